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
