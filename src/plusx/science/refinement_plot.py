"""The figure of ``refinement``, from its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P")


STEPS = {"step_over_input": "‖F(x)‖ / ‖x‖", "cosine_with_gradient": "cos(F(x), ∂loss/∂x)"}


def draw(result: Result) -> dict[str, Figure]:
    """One figure: the probes by depth, what leaving early saves, and the branches' steps where
    they were measured."""
    from matplotlib.figure import Figure

    blocks = result.tables["blocks"]
    measured = [what for what in STEPS if any(row[what] is not None for row in blocks)]
    shape = (2, 2) if len(measured) == 2 else (1, 2 + len(measured))
    figure = Figure(figsize=(3.5 * shape[1], 2.7 * shape[0]), layout="constrained")
    depth, leaving, *steps = np.asarray(figure.subplots(*shape)).ravel()
    for at, net in enumerate(dict.fromkeys(str(row["net"]) for row in blocks)):
        look: dict[str, Any] = {"color": COLOURS[at % 6], "marker": MARKERS[at % 6]}
        mine = [row for row in blocks if row["net"] == net]
        _depth(depth, mine, net, look)
        _leaving(leaving, result, net, look)
        for panel, what in zip(steps, measured, strict=True):
            _step(panel, mine, what, look)
    depth.set(xlabel="share of multiply-adds", ylabel="share of images", ylim=(0, 1.02))
    leaving.set(xlabel="share of multiply-adds, on average", ylabel="top-1")
    for panel, what in zip(steps, measured, strict=True):
        panel.set(xlabel="block, counted from the input", ylabel=STEPS[what])
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.axhline(0, color="black", linewidth=0.8)
    for panel in (depth, leaving, *steps):
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
    depth.legend(frameon=False, fontsize=7)
    leaving.legend(frameon=False, fontsize=7)
    return {"refinement": figure}


def _depth(panel: Axes, rows: Sequence[Row], net: str, look: dict[str, Any]) -> None:
    """Accuracy of the probes, and the share of images that are right for good."""
    across = [row["share_of_macs"] for row in rows]
    top1 = [row["top1"] for row in rows]
    ends = [[row["top1"] - row["top1_low"] for row in rows],
            [row["top1_high"] - row["top1"] for row in rows]]  # fmt: skip
    panel.errorbar(across, top1, yerr=ends, linewidth=1, markersize=3.5,
                   label=f"{net}: probe is right", **look)  # fmt: skip
    panel.step(across, [row["settled_share"] for row in rows], where="post", linestyle="--",
               linewidth=1, color=look["color"], label=f"{net}: right for good")  # fmt: skip


def _leaving(panel: Axes, result: Result, net: str, look: dict[str, Any]) -> None:
    """Cost against accuracy of all thresholds, and of the ones chosen on the other half."""
    rows = [row for row in result.tables["curve"] if row["net"] == net]
    panel.plot([row["share_of_macs"] for row in rows], [row["top1"] for row in rows],
               linewidth=1, color=look["color"])  # fmt: skip
    both = next(row for row in result.tables["exits"]
                if row["net"] == net and row["half"] == "both")  # fmt: skip
    across = 1 - both["saved"]
    panel.errorbar(
        [across], [both["top1"]],
        xerr=[[both["saved_high"] - both["saved"]], [both["saved"] - both["saved_low"]]],
        yerr=[[both["gain"] - both["gain_low"]], [both["gain_high"] - both["gain"]]],
        capsize=2, markersize=5, linewidth=1, label=f"{net}: chosen on the other half", **look,
    )  # fmt: skip
    panel.axhline(both["top1_last"], linestyle=":", linewidth=0.8, color=look["color"])


def _step(panel: Axes, rows: Sequence[Row], what: str, look: dict[str, Any]) -> None:
    known = [row for row in rows if row[what] is not None]
    mean = np.array([row[what] for row in known])
    ends = [mean - [row[f"{what}_low"] for row in known],
            [row[f"{what}_high"] for row in known] - mean]  # fmt: skip
    if known:
        panel.errorbar([row["block"] for row in known], mean, yerr=np.maximum(ends, 0),
                       linewidth=1, markersize=3.5, **look)  # fmt: skip
