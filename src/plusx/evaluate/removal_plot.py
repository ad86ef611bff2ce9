"""Top-1 against blocks removed, before and after tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plusx.evaluate.plots import ACCENT, TEXT, _open_frame

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def removal_curve(rows: Sequence[Mapping[str, float | None]], *, allowed: float) -> Canvas:
    """Two lines over the number of blocks removed.

    Args:
        rows: ``removed``; ``ranking_top1``, of the images that ranked; ``before_top1`` and
            ``after_top1``, of the images that judged, None where nothing was tuned.
        allowed: top-1 that may not be undercut, a dashed line.
    """
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import MaxNLocator

    canvas = Canvas(figsize=(5.4, 3.4), layout="constrained")
    axes = canvas.add_subplot()
    lines = (
        ("ranking_top1", "before tuning, images that ranked", TEXT, ":", None),
        ("before_top1", "before tuning", TEXT, "-", "s"),
        ("after_top1", "after tuning", ACCENT, "-", "o"),
    )
    for column, label, colour, style, marker in lines:
        shown = [(row["removed"], row[column]) for row in rows if row[column] is not None]
        if shown:
            x, y = zip(*shown, strict=True)
            axes.plot(x, y, color=colour, linestyle=style, marker=marker, label=label)
    axes.axhline(allowed, color=TEXT, linestyle=(0, (4, 3)), linewidth=1.0, label="least allowed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
    axes.set_xlabel("blocks removed")
    axes.set_title("top-1", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    _open_frame(axes, grid="y")
    return canvas
