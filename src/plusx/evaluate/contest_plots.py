"""Pictures of a comparison, in the manner of ``plusx.evaluate.plots``.

Contestants differ in colour, line and marker: any one of the three tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure
from plusx.evaluate.plots import ACCENT, RULE, TEXT, _inches, _open_frame, _short, _svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Curve = Sequence[Mapping[str, float | None]]

COLOURS = (ACCENT, "#d1741a", "#2f9e6e", "#b4559b", "#a88a12", "#cc4b4b", "#5f78d8", "#7f8a3b")
"""Each readable on white and on near black."""

_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "os^Dv<>P"


def race(curves: Mapping[str, Sequence[Curve]], *, goal: float | None = None) -> str:
    """Validation top-1 against epochs and against seconds: mean over seeds, and a band from the
    lowest seed to the highest.

    Args:
        curves: contestant -> one curve a seed; rows with ``epoch``, ``seconds``, ``val_top1``.
        goal: a figure drawn as a dashed line.

    Raises:
        UsageError: there is nothing to draw.
    """
    bands = {name: found for name, several in curves.items() if len(found := _band(several))}
    if not bands:
        raise UsageError("curves are empty: there is no epoch to draw")

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import MaxNLocator

        left, right = canvas.subplots(1, 2, sharey=True)
        for axes, column, label in ((left, 0, "epochs"), (right, 1, "seconds of training")):
            for number, name in enumerate(curves):
                if name in bands:
                    _draw_band(axes, bands[name], column, number, _short(name))
            if goal is not None:
                axes.axhline(goal, color=TEXT, linestyle=(0, (2, 3)), linewidth=1.0)
            axes.set_xlabel(label)
            axes.margins(x=0.02, y=0.08)
            _open_frame(axes, grid="y")
        left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        left.set_title("validation top-1", loc="left", fontsize=10)
        left.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        handles, labels = left.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)),
                      frameon=False, handlelength=3.2)  # fmt: skip

    return _svg(draw, (8.2, 3.6))


def _band(curves: Sequence[Curve]) -> np.ndarray:
    """(E, 5): epoch, mean seconds, and mean, lowest and highest top-1 of the seeds that got there;
    up to the first epoch that some seed lacks, so that no seed leaving bends the mean."""
    table = []
    for curve in curves:
        known = {float(row["epoch"] or 0): row for row in curve if row["val_top1"] is not None}
        table += [known] if known else []
    if not table:
        return np.empty((0, 5))
    shared = sorted(set(table[0]).intersection(*table[1:]))
    rows = []
    for epoch in shared:
        tops = np.array([one[epoch]["val_top1"] for one in table], dtype=np.float64)
        seconds = np.array([one[epoch]["seconds"] for one in table], dtype=np.float64)
        rows.append((epoch, seconds.mean(), tops.mean(), tops.min(), tops.max()))
    return np.array(rows, dtype=np.float64)


def _draw_band(axes: Axes, band: np.ndarray, column: int, number: int, label: str) -> None:
    colour = COLOURS[number % len(COLOURS)]
    x, mean, low, high = band[:, column], band[:, 2], band[:, 3], band[:, 4]
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, mean, color=colour, linewidth=1.8, linestyle=_LINES[number % len(_LINES)],
              marker=_MARKERS[number % len(_MARKERS)], markersize=4, label=label,
              markevery=max(1, len(x) // 8))  # fmt: skip


def differences(found: Mapping[str, Figure]) -> str:
    """Differences of top-1 in points, each with its interval, and a line at no difference.

    Args:
        found: what is compared -> the difference, -1 to 1.

    Raises:
        UsageError: there is none.
    """
    if not found:
        raise UsageError("differences are empty: there is nothing to draw")
    names = [_short(name, 40) for name in found]
    place = np.arange(len(found))

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        low = [100 * one.low for one in found.values()]
        high = [100 * one.high for one in found.values()]
        axes.axvline(0, color=TEXT, linewidth=1.2)
        axes.hlines(place, low, high, color=ACCENT, linewidth=2.2)
        axes.plot([100 * one.value for one in found.values()], place, "o", color=ACCENT,
                  markersize=6)  # fmt: skip
        axes.set_yticks(place, names)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(min(-5.0, *low) - 2, max(5.0, *high) + 2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.3g}" if value else "0")
        axes.set_xlabel("points of top-1 more")
        _open_frame(axes, grid="x")
        axes.spines["bottom"].set_color(RULE)

    return _svg(draw, (4.6 + _inches(names), 0.85 + 0.34 * len(found)))
