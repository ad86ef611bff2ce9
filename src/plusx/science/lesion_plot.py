"""The figures of ``lesion``, from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P")


def draw(result: Result) -> dict[str, Figure]:
    """One figure of three panels: one block removed, several removed, blocks swapped."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    one, several, swapped = figure.subplots(1, 3, sharey=True)
    tables = result.tables
    nets = list(dict.fromkeys(str(row["net"]) for row in tables["blocks"]))
    for at, net in enumerate(nets):
        look: dict[str, Any] = {"color": COLOURS[at % 6], "marker": MARKERS[at % 6]}
        _one(one, _of(tables["blocks"], net), net, look)
        _cloud(several, _of(tables["several"], net), "removed", look)
        _cloud(swapped, _of(tables["swapped"], net), "kendall_tau", look)
    one.set(xlabel="removed block, counted from the input", ylabel="error", ylim=(0, 1))
    several.set(xlabel="number of blocks removed")
    swapped.set(xlabel="Kendall tau of the order of blocks")
    swapped.invert_xaxis()
    one.legend(frameon=False, fontsize=7)
    for panel in (one, several, swapped):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
    return {"lesion": figure}


def _of(rows: Sequence[Row], net: str) -> list[Row]:
    return [row for row in rows if row["net"] == net]


def _one(panel: Axes, rows: Sequence[Row], net: str, look: Mapping[str, Any]) -> None:
    error = [row["error"] for row in rows]
    spread = [
        [row["cost"] - row["cost_low"] for row in rows],
        [row["cost_high"] - row["cost"] for row in rows],
    ]
    at = [row["block"] for row in rows]
    panel.errorbar(at, error, yerr=spread, label=net, linewidth=1, markersize=3.5, **look)
    changes = [row for row in rows if row["changes_shape"]]
    panel.scatter(
        [row["block"] for row in changes],
        [row["error"] for row in changes],
        s=60, facecolors="none", edgecolors="black", linewidths=0.8, zorder=3,
    )  # fmt: skip
    if rows:
        whole = rows[0]["error"] - rows[0]["cost"]
        panel.axhline(whole, color=look["color"], linewidth=0.8, linestyle=":")


def _cloud(panel: Axes, rows: Sequence[Row], across: str, look: Mapping[str, Any]) -> None:
    """Every draw as a mark; the median of each size as a line, where a size has several."""
    panel.scatter([row[across] for row in rows], [row["error"] for row in rows],
                  s=8, alpha=0.5, linewidths=0, **look)  # fmt: skip
    by: dict[float, list[float]] = {}
    for row in rows:
        by.setdefault(row[across], []).append(row["error"])
    medians = [(at, median(found)) for at, found in sorted(by.items())]
    if across == "removed" and medians:
        panel.plot([at for at, _ in medians], [m for _, m in medians],
                   color=look["color"], linewidth=1)  # fmt: skip
