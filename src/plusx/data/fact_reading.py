"""The facts of one image file; runs in worker processes, so nothing heavy is imported."""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter, ImageOps

from plusx.data.decode import FORMATS, as_bytes, read_image
from plusx.data.facts import THUMB, ImageFacts
from plusx.data.filebytes import Refused, locate, read_bytes
from plusx.data.reading import Limits, Reading
from plusx.errors import UnreadableImage

LEAST_SIDE = 128
"""Both sides of a JPEG that is decoded at a reduced scale keep so many pixels."""

WORKING_SIDE = 256
"""The longer side, at most, at which sharpness is measured: about what a network sees."""

_GREY_SPREAD = 6
"""Channels that differ by no more anywhere on the thumbnail are one grey."""

MOST_GAIN = 32.0
"""How far the thumbnail of a faint picture is stretched."""

_LAPLACIAN = ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=8, offset=128)
_DEPTHS = {"1": 1, "I": 32, "F": 32}
_MAKE, _MODEL, _CHANGED, _EXIF, _TAKEN = 0x010F, 0x0110, 0x0132, 0x8769, 0x9003
_DATE = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")


def read_facts(item: tuple[int, str], *, channels: int, reading: Reading) -> tuple[int, ImageFacts]:
    """(number, path) -> (number, facts)."""
    number, path = item
    known: dict[str, Any] = {}
    try:
        with suppress(Refused, OSError, ValueError):  # reading it says why
            place = locate(path)
            known = {"size_bytes": place.size, "mtime_ns": place.mtime_ns}
        facts = _facts(read_bytes(path, reading.limits), channels, reading)
    except Refused as refusal:
        return number, ImageFacts(path, error=str(refusal), **known)
    except UnreadableImage as error:
        return number, ImageFacts(path, error=error.reason, **known)
    return number, ImageFacts(path, **known, **facts)


def _facts(content: bytes, channels: int, reading: Reading) -> dict[str, Any]:
    """What the header says and the pixels show.

    Raises:
        UnreadableImage: as ``read_image`` says.
    """
    header, pixels = _open(content, channels, reading.limits)
    notes: list[str] = []
    if pixels is None:
        found = read_image(content, channels=channels, reading=reading, notes=notes)
        pixels = as_bytes(found)
        header["width"], header["height"] = pixels.shape[1], pixels.shape[0]
    elif header["orientation"] >= 5:
        header["width"], header["height"] = header["height"], header["width"]
    size = f"{header['width']} {header['height']} {pixels.shape} "
    return header | {
        "file_hash": hashlib.blake2b(content, digest_size=16).digest(),
        "content_hash": _hash(size, pixels),
        "remarks": tuple(dict.fromkeys(notes)),
        **_pixel_facts(pixels),
    }


def _hash(size: str, pixels: npt.NDArray[np.uint8]) -> bytes:
    digest = hashlib.blake2b(size.encode("ascii"), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _open(
    content: bytes, channels: int, limits: Limits
) -> tuple[dict[str, Any], npt.NDArray[np.uint8] | None]:
    """What the file says about itself, nothing where Pillow does not know the format; and the
    pixels if it is a large JPEG, decoded in full but at a fraction of its size."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            raw = str(image.tile[0][3]) if image.tile else ""
            header = {
                "format": image.format or "",
                "mode": image.mode,
                "bit_depth": 16 if "16" in image.mode + raw else _DEPTHS.get(image.mode, 8),
                "has_icc": bool(image.info.get("icc_profile")),
                "frames": _frames(image),
                "width": image.width,
                "height": image.height,
                "orientation": 1,
            } | _exif_facts(image)
            return header, _reduced(image, channels, limits)
    except Exception:  # what else the file says may be anything; read_image judges the pixels
        return {}, None


def _reduced(image: Image.Image, channels: int, limits: Limits) -> npt.NDArray[np.uint8] | None:
    """(H, W, C) of a plain JPEG at 1/2, 1/4 or 1/8; None where there is nothing to gain, or where
    the decoder stumbles: read_image then says at what. Every byte is read either way."""
    plain = image.format == "JPEG" and image.mode in ("L", "RGB") and channels in (1, 3)
    if not plain or min(image.size) < 2 * LEAST_SIDE or image.width * image.height > limits.pixels:
        return None
    try:
        image.draft(None, (LEAST_SIDE, LEAST_SIDE))
        upright = ImageOps.exif_transpose(image)
    except Exception:
        return None
    pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged second frame
        return 1


def _exif_facts(image: Image.Image) -> dict[str, Any]:
    try:
        exif = image.getexif()
        if not exif:
            return {}
        names = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]
        date = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_CHANGED)
        orientation = exif.get(0x0112, 1)
        return {
            "camera": " ".join(" ".join(names).split())[:64],
            "taken": _iso(str(date)),
            "orientation": orientation if orientation in range(1, 9) else 1,
        }
    except Exception:  # damaged metadata
        return {}


def _iso(text: str) -> str | None:
    found = _DATE.match(text)
    if not found:
        return None
    try:
        return str(np.datetime64("{}-{}-{}T{}:{}:{}".format(*found.groups()), "s"))
    except ValueError:  # month 13, or all zeros
        return None


def _pixel_facts(pixels: npt.NDArray[np.uint8]) -> dict[str, Any]:
    grey, colour = _pictures(pixels)
    thumb, gain = _thumb(grey)
    tiny = np.asarray(colour.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=2.0))
    spread = tiny.astype(np.int16).max(2) - tiny.min(2)
    return {
        "sharpness": _sharpness(grey),
        "border": _border(np.asarray(colour)),
        "grey": int(spread.max()) <= _GREY_SPREAD,
        "thumb": thumb,
        "thumb_gain": gain,
        **_light(np.array(grey.histogram(), dtype=np.float64)),
    }


def _pictures(pixels: npt.NDArray[np.uint8]) -> tuple[Image.Image, Image.Image]:
    """Grey and colour of (H, W, C); of more than three channels the mean is the grey."""
    if pixels.shape[2] == 3:
        colour = Image.fromarray(pixels)
        return colour.convert("L"), colour
    level = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels.mean(2).astype(np.uint8)
    grey = Image.fromarray(level)
    if pixels.shape[2] < 3:
        return grey, grey.convert("RGB")
    return grey, Image.fromarray(np.ascontiguousarray(pixels[:, :, :3]))


def _light(counts: npt.NDArray[np.float64]) -> dict[str, float | int]:
    share = counts / counts.sum()
    levels = np.arange(256)
    mean = float(share @ levels)
    below = share.cumsum()
    some = share[share > 0]
    return {
        "mean": mean,
        "std": float(np.sqrt(share @ (levels - mean) ** 2)),
        "entropy": float(-(some @ np.log2(some))) + 0.0,
        "dark_level": int(np.searchsorted(below, 0.99)),
        "light_level": int(np.searchsorted(below, 0.05)),
    }


def _thumb(grey: Image.Image) -> tuple[bytes, float]:
    """The thumbnail, stretched so that a faint picture keeps its structure; and by how much."""
    small = np.asarray(grey.convert("F").resize((THUMB, THUMB), Image.Resampling.BILINEAR))
    levels = small - small.mean()
    gain = min(MOST_GAIN, 127 / max(float(np.abs(levels).max()), 1e-6))
    return np.rint(levels * gain + 128).astype(np.uint8).tobytes(), gain


def _sharpness(grey: Image.Image) -> float:
    factor = -(-max(grey.size) // WORKING_SIDE)
    small = grey.reduce(factor) if factor > 1 and min(grey.size) >= factor else grey
    if min(small.size) < 3:
        return 0.0
    edges = np.asarray(small.filter(_LAPLACIAN))[1:-1, 1:-1]
    return 8.0 * float(edges.std())


def _border(colour: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    height, width = colour.shape[:2]
    rim = max(1, min(height, width) // 50)
    strips = (colour[:rim], colour[-rim:], colour[rim:-rim, :rim], colour[rim:-rim, -rim:])
    joined = np.concatenate([strip.reshape(-1, 3) for strip in strips])
    red, green, blue = joined.mean(0).tolist()
    return red, green, blue
