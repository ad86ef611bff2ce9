"""From an image file to an array of bytes, whatever is in the file."""

from __future__ import annotations

import logging
import os
import stat
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from plusx.errors import UnreadableImage, UsageError

MAX_PIXELS = 178_956_970
"""Larger images are refused (width times height); it is where Pillow refuses as well."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF")
"""What a file may hold, by content, not by extension. Others are left to no decoder at all
(Pillow's EPS decoder, for one, starts a program)."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FROM_PILLOW = r"PIL(\.|$)"

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr


def read_image(path: str | os.PathLike[str], *, channels: int = 3) -> np.ndarray:
    """Decode one image, upright, to (H, W, C) uint8.

    The rules: the EXIF orientation is applied; ICC profiles are not. Of an animation, the first
    frame. Palettes are resolved; transparency is laid on white; CMYK becomes RGB by Pillow's
    formula. Sixteen-bit integers are taken at full range (value >> 8, in grey as in colour),
    never clipped. For other integers and for floats, see :func:`_grey_bytes`. ``channels=1``
    gives grey as ITU-R 601 weighs it. Any other number is taken only from a file whose pixels
    have just as many 8-bit channels (RGBA for 4), unchanged.

    Safe in threads; Pillow's warnings are not shown.

    Args:
        path: the file; its extension does not matter.
        channels: C.

    Raises:
        UnreadableImage: the file cannot be read as such an image; says why in a few words.
        UsageError: ``channels`` is below 1.
    """
    if channels < 1:
        raise UsageError(f"channels {channels!r} must be at least 1")
    name = os.fspath(path)
    _check_file(name)
    _silence_pillow()
    try:
        with Image.open(name, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
            array = np.array(_in_channels(_upright(image), channels))
    except _Refused as refusal:
        raise UnreadableImage(name, str(refusal)) from None
    except Exception as error:  # decoders meet hostile bytes: whatever they raise is one bad file
        raise UnreadableImage(name, _reason(error)) from error
    return array if array.ndim == 3 else array[:, :, None]


class _Refused(Exception):
    """A sound image that is not what was asked for; the text is the reason."""


def _check_file(name: str) -> None:
    try:
        status = os.stat(name)  # noqa: PTH116 (a tenth of the time of Path.stat)
    except (OSError, ValueError) as error:
        raise UnreadableImage(name, _reason(error)) from error
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise UnreadableImage(name, f"is {kind}, not a file")
    if status.st_size == 0:
        raise UnreadableImage(name, "is empty (0 bytes)")


def _silence_pillow() -> None:
    """Ignore warnings that come from Pillow's modules, in the whole process.

    ``warnings.catch_warnings`` is not safe in threads, so the filter stays; where someone has
    put another in front, or reset the list, it is put back.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _FROM_PILLOW:
        warnings.filterwarnings("ignore", module=_FROM_PILLOW)


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says; a damaged EXIF block says nothing."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # the pixels are good; Pillow raises many kinds for damaged metadata
        return image
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    if channels not in (1, 3):
        bands = len(image.getbands())
        if bands != channels or image.mode.startswith(("I", "F", "1", "P")):
            raise _Refused(f"has {bands} channels (mode {image.mode}); expected {channels}")
        return image
    target = "RGB" if channels == 3 else "L"
    if image.mode == target and not image.has_transparency_data:
        return image
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_grey_bytes(image))
    elif image.has_transparency_data or image.mode in ("RGBa", "La"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode == "P":  # by way of RGB: Pillow's own way from a palette to grey is the same
        image = image.convert("RGB")
    return image if image.mode == target else image.convert(target)


def _grey_bytes(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 from deep grey values.

    16-bit integers: value >> 8. 32-bit integers and floats have no stated range. It is taken to
    be the first of 0..1 (floats only), 0..255 (floats only) and 0..65535 that holds every
    value, else the image's own minimum to maximum; it is mapped linearly to 0..255.
    """
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return (values >> 8).astype(np.uint8)
    if not np.isfinite(values).all():
        raise _Refused("holds values that are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "iu":
        if low >= 0 and high <= 65535:
            return (values >> 8).astype(np.uint8)
    else:
        for top in (1.0, 255.0, 65535.0):
            if low >= 0 and high <= top:
                low, high = 0.0, top
                break
    scaled = (values.astype(np.float64) - low) * (255.0 / max(high - low, 1e-300))
    return np.rint(scaled).astype(np.uint8)


def _reason(error: BaseException) -> str:
    """A few words for a person, of one line."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, UnidentifiedImageError):
        return "is not a JPEG, PNG, WebP, BMP, TIFF or GIF image"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    text = " ".join(str(error).split()) or "no reason given"
    if "truncated" in text.lower():
        return "is truncated (the end of the file is missing)"
    return f"cannot be decoded ({type(error).__name__}: {text[:200]})"
