"""HEIC and HEIF, the format of phones, with the extra ``heic``.

pi-heif carries libheif and the decoder libde265 (both LGPL-3.0) and no encoder: the full
pillow-heif also brings x265, which is under the GPL.
"""

from __future__ import annotations

import io

from PIL import Image

from plusx.data.filebytes import Refused
from plusx.data.photograph import check_size
from plusx.data.reading import Limits

_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})


def is_heic(content: bytes) -> bool:
    """Whether the file says so; AVIF, which may share the brand mif1, is none."""
    if content[4:8] != b"ftyp" or content[8:12] not in _BRANDS:
        return False
    return b"avif" not in content[8 : min(64, int.from_bytes(content[:4], "big"))]


def open_heic(content: bytes, limits: Limits) -> Image.Image:
    """The primary image, upright, 8 bits a channel.

    Raises:
        Refused: over a limit, or the extra is not installed. Any other exception: the decoder's.
    """
    try:
        import pi_heif
    except ImportError:
        raise Refused("is a HEIC image; to read it: pip install 'plusx[heic]'") from None
    file = pi_heif.open_heif(io.BytesIO(content))
    check_size(file.size, len(file.mode), limits)
    image: Image.Image = file.to_pillow()
    return image
