"""Pictures of a training: a batch as the network sees it, and learning rates tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from plusx.evaluate.plots import ACCENT, TEXT, _open_frame, _render, _short, _svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def image_grid(images: npt.NDArray[np.uint8], captions: Sequence[str], *, title: str) -> bytes:
    """Images with a line below each, in rows of up to four.

    Args:
        images: (N, H, W, 3).
        captions: N lines.
        title: above them.

    Returns:
        A PNG file.
    """
    columns = min(4, len(images))
    rows = math.ceil(len(images) / columns)

    def draw(canvas: Canvas) -> None:
        canvas.suptitle(title, x=0.01, ha="left", fontsize=10, color=TEXT)
        grid = canvas.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, image, caption in zip(grid.flat, images, captions, strict=False):
            axes.imshow(image, interpolation="nearest")
            axes.set_title(_short(caption, 34), y=-0.14, fontsize=7.5, color=TEXT)

    return _render(draw, (2.0 * columns, 2.2 * rows + 0.4), "png")


def rate_curve(
    rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], suggested: float
) -> str:
    """Loss over learning rate, as an ``<svg>`` element.

    Args:
        rates: of each step, rising.
        losses: of each step.
        smooth: the same, smoothed.
        suggested: the rate that is marked.
    """

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot(xscale="log")
        axes.plot(rates, losses, color=TEXT, linewidth=0.6, alpha=0.5)
        axes.plot(rates, smooth, color=ACCENT, linewidth=1.6)
        axes.axvline(suggested, color=ACCENT, linewidth=0.9, linestyle="--")
        low, high = min(smooth), max(smooth[: max(1, len(smooth) // 2)])
        room = max(high - low, 1e-3)
        axes.set_ylim(low - 0.2 * room, high + 0.5 * room)
        axes.set_xlabel("learning rate")
        axes.set_title(
            f"loss, and the rate that is suggested: {suggested:.2g}", loc="left", fontsize=10
        )
        _open_frame(axes, grid="y")

    return _svg(draw, (5.5, 3.4))
