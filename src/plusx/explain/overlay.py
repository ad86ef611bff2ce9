"""A heat map back on the photograph it came from, at full resolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from plusx.data import Preprocessing

STRENGTH = 0.6
"""Opacity where the map is hottest."""


def on_image(heat: torch.Tensor, hw: tuple[int, int], preprocessing: Preprocessing) -> torch.Tensor:
    """A map over the network's crop -> over the whole photograph; NaN where the crop ended.

    Args:
        heat: (size, size), what ``grad_cam`` gave.
        hw: height and width of the photograph, upright.
        preprocessing: what cut the crop.

    Returns:
        (H, W) float32.
    """
    top, left, height, width = preprocessing.crop_box(hw)
    whole = torch.full(hw, float("nan"))
    inside = functional.interpolate(
        heat[None, None], (height, width), mode="bilinear", align_corners=False
    )[0, 0]
    inside = inside[max(0, -top) :, max(0, -left) :]  # less what the padding showed
    top, left = max(0, top), max(0, left)
    inside = inside[: hw[0] - top, : hw[1] - left]
    whole[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return whole


def smaller(
    image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32], side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """A photograph and its map, so that the short side has at most ``side`` pixels.

    Args:
        image: (H, W, 1 or 3) uint8.
        heat: (H, W), NaN where the network saw nothing.
        side: pixels.

    Returns:
        (h, w, 1 or 3) uint8 and (h, w).
    """
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, side / min(height, width))
    h, w = (max(1, round(length * scale)) for length in (height, width))
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    small = np.array(picture.resize((w, h), Image.Resampling.LANCZOS)).reshape(h, w, -1)
    # The map is smooth and its NaN are not to be mixed with it: the nearest pixel will do.
    rows = ((np.arange(h) + 0.5) * height / h).astype(np.int64)
    columns = ((np.arange(w) + 0.5) * width / w).astype(np.int64)
    return small, heat[rows[:, None], columns]


def overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Paint a map over a photograph: the hotter, the more colour; grey where no map is.

    Args:
        image: (H, W, 1 or 3) uint8.
        heat: (H, W), 0..1, NaN where the network saw nothing.

    Returns:
        (H, W, 3) uint8.
    """
    from matplotlib import colormaps

    photograph = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[:, :, :3]
    seen = np.isfinite(heat)
    value = np.where(seen, heat, 0.0)
    colour = colormaps["inferno"](value)[:, :, :3] * 255
    alpha = (STRENGTH * np.sqrt(value))[:, :, None]
    mixed = (1 - alpha) * photograph + alpha * colour
    unseen = photograph.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.5 + 96
    painted: npt.NDArray[np.uint8] = (
        np.where(seen[:, :, None], mixed, unseen).round().astype(np.uint8)
    )
    return painted
