"""From an image file to an array, whatever is in the file. Loads no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from plusx.data.dicom import is_dicom, open_dicom
from plusx.data.filebytes import Refused, check_bytes, read_bytes
from plusx.data.geotiff import is_tiff, read_bands
from plusx.data.heic import is_heic, open_heic
from plusx.data.photograph import FORMATS as FORMATS
from plusx.data.photograph import finish, open_photograph, silence
from plusx.data.reading import Limits, Reading
from plusx.errors import UnreadableImage, UsageError

MAX_PIXELS = Limits().pixels
"""Larger images are refused by default (width times height); Pillow refuses there as well."""

UNNAMED = "image"
"""What content that came without a file is called."""

_KNOWN = "JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF, HEIC or DICOM"
_PLAIN = Reading()


def read_image(
    path: str | os.PathLike[str] | bytes,
    *,
    channels: int = 3,
    reading: Reading = _PLAIN,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Decode one image, upright, to (H, W, C) on the scale 0..255.

    It is uint8, except for TIFF files read as bands (see :func:`read_bands`), which may give
    float32 with NaN where there is no data. The rules, also for what ``reading`` does not say:
    the EXIF orientation is applied; colour profiles are converted to sRGB; of an animation or a
    TIFF of pages the first is taken; palettes are resolved; transparency is laid on the
    background; CMYK becomes RGB by its profile, else by Pillow's formula; 16-bit colour is taken
    at full range (value >> 8). For deep grey values, see :func:`grey_bytes`; for DICOM,
    :func:`open_dicom`. ``channels=1`` gives grey as ITU-R 601 weighs it. Any other number is
    taken only from a file with just as many 8-bit channels (RGBA for 4), unchanged, or from a
    TIFF with as many bands.

    Safe in threads; the decoders' warnings are not shown.

    Args:
        path: the file, whose extension does not matter; or its content.
        channels: C.
        reading: the choices.
        notes: gets a remark (see ``plusx.data.remarks``) for each thing that a person might not
            expect, such as pages that were left out.

    Raises:
        UnreadableImage: the file cannot be read as such an image; says why in a few words.
        UsageError: ``channels`` is below 1.
    """
    if channels < 1:
        raise UsageError(f"channels {channels!r} must be at least 1")
    name = UNNAMED if isinstance(path, bytes) else os.fspath(path)
    said: list[str] = []
    array = _guarded(name, lambda: _decode(path, channels, reading, said))
    if notes is not None:
        notes += said
    return array


def read_thumbnail(
    path: str | os.PathLike[str],
    size: int,
    *,
    channels: int = 3,
    reading: Reading = _PLAIN,
) -> np.ndarray:
    """A small (h, w, 3) uint8 picture to look at or to hash, at most ``size`` on its long side.

    Quicker than :func:`read_image`: a JPEG is decoded at a fraction of its size. Its pixels
    differ a little from those that a network sees, so no network sees it. An image that is
    smaller stays as it is. Of more than three channels the first three are shown, missing data
    grey.

    Args:
        path: the file.
        size: pixels.
        channels: as :func:`read_image` would be asked for.
        reading: the choices.

    Raises:
        UnreadableImage: the file cannot be read; says why.
        UsageError: ``size`` or ``channels`` is below 1.
    """
    if size < 1 or channels < 1:
        raise UsageError(f"size {size!r} and channels {channels!r} must be at least 1")
    name = os.fspath(path)
    array = _guarded(name, lambda: _decode(name, channels, reading, [], at_least=2 * size))
    array = as_bytes(array)
    image = Image.fromarray(array[:, :, :3] if array.shape[2] >= 3 else array[:, :, 0])
    image = image.convert("RGB")
    image.thumbnail((size, size), Image.Resampling.BOX)
    return np.array(image)


def as_bytes(array: np.ndarray) -> np.ndarray:
    """What :func:`read_image` gave, as uint8 to look at or to count: rounded, missing data grey."""
    if array.dtype == np.uint8:
        return array
    return np.asarray(np.rint(np.nan_to_num(array, nan=127.0)), np.uint8)


def _guarded(name: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
    """Whatever goes wrong is one bad file."""
    silence()
    try:
        return decode()
    except Refused as refusal:
        raise UnreadableImage(name, str(refusal)) from None
    except Exception as error:  # decoders meet hostile bytes, and raise anything
        raise UnreadableImage(name, _reason(error)) from error


def _decode(
    path: str | os.PathLike[str] | bytes,
    channels: int,
    reading: Reading,
    notes: list[str],
    *,
    at_least: int | None = None,
) -> np.ndarray:
    if isinstance(path, bytes):
        content = check_bytes(path, reading.limits)
    else:
        content = read_bytes(path, reading.limits)
    if is_dicom(content):
        return finish(open_dicom(content, reading, notes), channels, reading, notes)
    if is_heic(content):
        return finish(open_heic(content, reading.limits), channels, reading, notes)
    if reading.bands is not None or reading.range is not None:
        if not is_tiff(content):
            raise Refused("is no TIFF, so it has no bands to choose from or to scale")
        return read_bands(content, channels, reading, notes)
    if channels not in (1, 3) and is_tiff(content):
        return read_bands(content, channels, reading, notes)
    try:
        image = open_photograph(content, reading.limits, notes, at_least=at_least)
    except UnidentifiedImageError:
        if is_tiff(content):
            raise Refused("is a TIFF, but no photograph; choose its --bands and --range") from None
        raise
    return finish(image, channels, reading, notes)


def _reason(error: BaseException) -> str:
    """A few words for a person, of one line."""
    if isinstance(error, UnidentifiedImageError):
        return f"is not a {_KNOWN} image"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    text = " ".join(str(error).split()) or "no reason given"
    text = re.sub(r"'?/vsimem/[^'\s]+'?", "the file", text)  # GDAL's name for the bytes
    if "truncated" in text.lower():
        return "is truncated (the end of the file is missing)"
    if "Decompressed data too large" in text or "MAX_TEXT" in text:
        return "holds a text or profile block that unpacks to too many bytes"
    printable = "".join(c if c.isprintable() else "?" for c in text[:200])
    return f"cannot be decoded ({type(error).__name__}: {printable})"
