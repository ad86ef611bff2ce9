"""What Pillow opens: JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF; and how any such image is finished."""

from __future__ import annotations

import io
import logging
import warnings

import numpy as np
from PIL import Image

from plusx.data.colour import to_srgb
from plusx.data.deep import grey_bytes
from plusx.data.filebytes import Refused
from plusx.data.reading import Limits, Reading
from plusx.data.remarks import ANIMATION, DEEP_COLOUR, PAGES

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "GIF")
"""What a file may hold, by content, not by extension. Others are left to no decoder at all
(Pillow's EPS decoder, for one, starts a program)."""

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE = 258
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LIBRARIES = r"(PIL|pi_heif|pydicom|rasterio)(\.|$)"

for _name in ("PIL", "pydicom", "rasterio"):
    logging.getLogger(_name).addHandler(logging.NullHandler())  # else errors go to stderr


def silence() -> None:
    """Ignore warnings that come from decoders' modules, in the whole process.

    ``warnings.catch_warnings`` is not safe in threads, so the filter stays; where someone has
    put another in front, or reset the list, it is put back.
    """
    first = warnings.filters[0] if warnings.filters else None
    if first is None or getattr(first[3], "pattern", None) != _LIBRARIES:
        warnings.filterwarnings("ignore", module=_LIBRARIES)


def open_photograph(
    content: bytes, limits: Limits, notes: list[str], *, at_least: int | None = None
) -> Image.Image:
    """The first frame or page, decoded.

    Args:
        content: of the file.
        limits: checked before any pixel is unpacked.
        notes: gets a remark where there are more frames or pages.
        at_least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, if both sides keep this
            many pixels: quicker, but with other pixels. For looking at, never for the network.

    Raises:
        Refused: over a limit. Any other exception: the decoder's.
    """
    if 2 * (Image.MAX_IMAGE_PIXELS or limits.pixels) < limits.pixels:
        Image.MAX_IMAGE_PIXELS = limits.pixels  # Pillow's own limit, which it doubles, was lower
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError:
        raise Refused(f"has more than {limits.pixels:,} pixels") from None
    check_size(image.size, len(image.getbands()) * _sample_bytes(image.mode), limits)
    if at_least is not None and image.format in ("JPEG", "MPO"):
        image.draft(None, (at_least, at_least))
    if image.format == "TIFF":
        if getattr(image, "is_animated", False):
            notes.append(PAGES)
        if image.mode in ("RGB", "RGBA") and max(_tiff_bits(image)) > 8:
            notes.append(DEEP_COLOUR)
    elif image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False):
        notes.append(ANIMATION)
    image.load()
    return image


def check_size(size: tuple[int, int], pixel_bytes: int, limits: Limits) -> None:
    """Refuse an image that is too large to be unpacked.

    Raises:
        Refused: over a limit; an image without pixels.
    """
    pixels = size[0] * size[1]
    if pixels > limits.pixels:
        raise Refused(f"has more than {limits.pixels:,} pixels")
    if pixels * pixel_bytes > limits.decoded_bytes:
        raise Refused(f"unpacks to more than {limits.decoded_bytes:,} bytes")
    if pixels <= 0:
        raise Refused(f"has no pixels ({size[0]} x {size[1]})")


def finish(image: Image.Image, channels: int, reading: Reading, notes: list[str]) -> np.ndarray:
    """A decoded image as (H, W, C) uint8: upright, in sRGB, on the background, in C channels."""
    array = np.array(in_channels(_upright(image), channels, reading, notes))
    return array if array.ndim == 3 else array[:, :, None]


def in_channels(
    image: Image.Image, channels: int, reading: Reading, notes: list[str]
) -> Image.Image:
    """The image in mode L (1) or RGB (3); with any other number as it is, if it has as many.

    Raises:
        Refused: another number, and the image has not as many 8-bit channels.
    """
    if channels not in (1, 3):
        bands = len(image.getbands())
        if bands != channels or image.mode.startswith(("I", "F", "1", "P")):
            raise Refused(f"has {bands} channels (mode {image.mode}); expected {channels}")
        return image
    target = "RGB" if channels == 3 else "L"
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(grey_bytes(np.asarray(image), reading, notes))
    elif image.has_transparency_data or image.mode in ("RGBa", "La", "PA"):
        image = _on_background(image, reading, notes)
    else:
        profile = image.info.get("icc_profile")
        if image.mode not in ("L", "RGB", "CMYK") and (image.mode == "P" or profile):
            image = image.convert("L" if image.mode == "1" else "RGB")
        if reading.profiles:
            image = to_srgb(image, reading.limits, notes)
    return image if image.mode == target else image.convert(target)


def _on_background(image: Image.Image, reading: Reading, notes: list[str]) -> Image.Image:
    image = image.convert("RGBA")
    if reading.profiles and image.info.get("icc_profile"):
        alpha = image.getchannel("A")
        image = to_srgb(image.convert("RGB"), reading.limits, notes)
        image.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", image.size, reading.background), image)


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says; a damaged EXIF block says nothing."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
        turn = _UPRIGHT.get(orientation)
    except Exception:  # the pixels are good; Pillow raises many kinds for damaged metadata
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = image.info  # Pillow copies it; said here because the profile hangs on it
    return turned


def _sample_bytes(mode: str) -> int:
    return 4 if mode in ("I", "F") else 2 if mode.startswith("I;16") else 1


def _tiff_bits(image: Image.Image) -> tuple[int, ...]:
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    return bits if isinstance(bits, tuple) and bits else (8,)
