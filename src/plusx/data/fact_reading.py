"""The facts of one image file; runs in worker processes, so nothing heavy is imported."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from plusx.data.decode import FORMATS, read_image
from plusx.data.facts import THUMB, ImageFacts
from plusx.errors import UnreadableImage

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


def read_facts(item: tuple[int, str], *, channels: int) -> tuple[int, ImageFacts]:
    """(number, path) -> (number, facts)."""
    number, path = item
    try:
        before = os.stat(path)  # noqa: PTH116 (paths are plain strings here)
    except (OSError, ValueError):
        before = None
    known: dict[str, Any] = {}
    if before is not None:
        known = {"size_bytes": before.st_size, "mtime_ns": before.st_mtime_ns}
    try:
        known |= _pixel_facts(path, channels) | _header_facts(path)
        known["file_hash"] = _file_hash(path)
        after = os.stat(path)  # noqa: PTH116
    except UnreadableImage as error:
        return number, ImageFacts(path, error=error.reason, **_identity(known))
    except OSError as error:
        reason = "vanished while it was read" if before else str(error)
        return number, ImageFacts(path, error=reason, **_identity(known))
    if (after.st_size, after.st_mtime_ns) != (known.get("size_bytes"), known.get("mtime_ns")):
        reason = "changed while it was read"
        return number, ImageFacts(path, error=reason, **_identity(known))
    return number, ImageFacts(path, **known)


def _identity(known: dict[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in ("size_bytes", "mtime_ns") if name in known}


def _file_hash(path: str) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.digest()


def _header_facts(path: str) -> dict[str, Any]:
    """What the file says about itself; nothing where Pillow does not know the format."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            raw = str(image.tile[0][3]) if image.tile else ""
            depth = 16 if "16" in image.mode + raw else _DEPTHS.get(image.mode, 8)
            known = {
                "format": image.format or "",
                "mode": image.mode,
                "bit_depth": depth,
                "has_icc": bool(image.info.get("icc_profile")),
                "frames": _frames(image),
            }
            return known | _exif_facts(image)
    except Exception:  # the pixels are good: what else the file says may be anything
        return {}


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


def _pixel_facts(path: str, channels: int) -> dict[str, Any]:
    pixels = read_image(path, channels=channels)
    size = pixels.shape[1], pixels.shape[0]
    digest = hashlib.blake2b(f"{size} {pixels.shape} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    grey, colour = _pictures(pixels)
    thumb, gain = _thumb(grey)
    tiny = np.asarray(colour.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=2.0))
    spread = tiny.astype(np.int16).max(2) - tiny.min(2)
    return {
        "width": size[0],
        "height": size[1],
        "sharpness": _sharpness(grey),
        "border": _border(np.asarray(colour)),
        "grey": int(spread.max()) <= _GREY_SPREAD,
        "content_hash": digest.digest(),
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
