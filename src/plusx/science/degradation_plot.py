"""The figure of ``degradation``: error along training, and where each depth ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by people with any colour vision
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def plot(result: Result) -> Figure:
    """Three panels: plain nets and residual nets along training, and final error by depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    depths = list(result.settings["depths"])
    for axes, kind in ((left, "plain"), (middle, "residual")):
        for number, depth in enumerate(depths):
            rows = [r for r in result.tables["curves"]
                    if (r["kind"], r["depth"]) == (kind, depth)]  # fmt: skip
            _curves(axes, rows, COLOURS[number % len(COLOURS)], f"{kind}-{depth}")
        axes.set(title=f"{kind} nets", xlabel="epochs", ylabel="error (%)")
        axes.legend(frameon=False, fontsize=8)
    limits = [f(a.get_ylim()[i] for a in (left, middle)) for i, f in ((0, min), (1, max))]
    for axes in (left, middle):
        axes.set_ylim(max(0.0, limits[0]), min(100.0, limits[1]))
    _ends(right, result.tables["summary"], depths)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    return figure


def _curves(axes: Axes, rows: Sequence[Row], colour: str, label: str) -> None:
    """Training error solid, test error dashed; the mean of the seeds, and a band of their range."""
    epochs = sorted({row["epoch"] for row in rows})
    for column, style in (("train_error", "-"), ("test_error", "--")):
        at = [[100 * r[column] for r in rows if r["epoch"] == epoch] for epoch in epochs]
        mean = [float(np.mean(v)) for v in at]
        axes.plot(epochs, mean, style, color=colour, linewidth=1.6,
                  label=label if style == "-" else None)  # fmt: skip
        if style == "-":
            low, high = [min(v) for v in at], [max(v) for v in at]
            axes.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _ends(axes: Axes, rows: Sequence[Row], depths: Sequence[int]) -> None:
    place = {depth: i for i, depth in enumerate(depths)}
    for number, kind in enumerate(("plain", "residual")):
        own = [r for r in rows if r["kind"] == kind and r["seeds"]]
        x = np.array([place[r["depth"]] for r in own]) + 0.06 * (2 * number - 1)
        for column, style, filled in (("train_error", "-", True), ("test_error", "--", False)):
            mean = np.array([100 * r[column] for r in own])
            low = mean - np.array([100 * r[f"{column}_least"] for r in own])
            high = np.array([100 * r[f"{column}_most"] for r in own]) - mean
            axes.errorbar(x, mean, [low, high], fmt="so"[number], linestyle=style, capsize=3,
                          color=COLOURS[number], mfc=COLOURS[number] if filled else "white",
                          label=f"{kind}, {column.split('_')[0]}")  # fmt: skip
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set(title="at the end (mean, range of seeds)", xlabel="layers", ylabel="error (%)")
    axes.legend(frameon=False, fontsize=8)
