"""Embedded colour profiles (ICC) to sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from plusx.data.reading import Limits
from plusx.data.remarks import PROFILE

SAME = 2
"""Grey levels. A profile that changes no colour by more is sRGB but for rounding, and left out."""

_SPACES = {"RGB": ("RGB",), "L": ("GRAY", "RGB"), "CMYK": ("CMYK",)}
"""Which profiles an image's mode can have: a grey image may carry its camera's RGB profile."""


def to_srgb(image: Image.Image, limits: Limits, notes: list[str]) -> Image.Image:
    """An RGB, L or CMYK image in sRGB; a profile that is broken or odd is ignored, and noted.

    Relative colorimetric, with black point compensation. Grey stays grey. An image without a
    profile is returned as it is. The network's colours thus mean the same for every camera.

    Source: ICC.1:2022, section 6.2 (rendering intents); the work is done by Little CMS.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in _SPACES:
        return image
    if not isinstance(profile, bytes) or len(profile) > limits.profile_bytes:
        notes.append(PROFILE)
        return image
    found = _conversion(profile, image.mode)
    if found == "broken":
        notes.append(PROFILE)
        return image
    if found == "same":
        return image
    converted: Image.Image = image.point(found) if image.mode == "L" else found.apply(image)
    return converted


@lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> Any:
    """``same``, ``broken``, a table (grey), or a transform that may be used in several threads."""
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = parsed.profile.xcolor_space.strip()
        if space not in _SPACES[mode]:
            return "broken"
        inner = {"GRAY": "L"}.get(space, space)
        transform: Any = ImageCms.buildTransform(
            parsed,
            ImageCms.createProfile("sRGB"),
            inner,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if mode == "L":
            ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).convert(inner)
            table = np.asarray(transform.apply(ramp).getchannel("G"))[0]
            return "same" if _near(table, np.arange(256)) else table.tolist()
        if mode == "RGB":
            probe = _probe()
            if _near(np.asarray(transform.apply(Image.fromarray(probe))), probe):
                return "same"
    except Exception:  # hostile bytes: whatever Little CMS or its wrapper raises
        return "broken"
    return transform


def _near(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one.astype(int) - other).max() <= SAME)


def _probe() -> np.ndarray:
    """(81, 9, 3) uint8: every ninth part of the RGB cube."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(81, 9, 3)
