"""The figure of ``batchnorm``: accuracy by batch size, for each norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from plusx.science.batchnorm import ADVICE
from plusx.science.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOOKS = {
    "batch": ("trainable BatchNorm", "#0072b2", "o-"),
    "frozen": ("frozen BatchNorm", "#d55e00", "s--"),
    "group": ("GroupNorm", "#009e73", "^-."),
}


def plot(result: Result) -> Figure:
    """A panel a mode: mean over seeds, bars from the lowest to the highest."""
    from matplotlib.figure import Figure

    modes = list(result.settings["modes"])
    figure = Figure(figsize=(4.2 * len(modes) + 0.4, 3.5), layout="constrained")
    panels = figure.subplots(1, len(modes), squeeze=False)[0]
    batches = list(result.settings["batches"])
    for axes, mode in zip(panels, modes, strict=True):
        for i, (norm, (label, colour, line)) in enumerate(_LOOKS.items()):
            rows = [r for r in result.tables["summary"] if (r["mode"], r["norm"]) == (mode, norm)]
            mean = np.array([100 * r["top1"] for r in rows])
            low = mean - np.array([100 * r["top1_least"] for r in rows])
            high = np.array([100 * r["top1_most"] for r in rows]) - mean
            axes.errorbar(np.array(batches) * 1.04 ** (i - 1), mean, [low, high], fmt=line,
                          color=colour, capsize=3, markersize=5, label=label)  # fmt: skip
        axes.axvline(ADVICE, color="0.5", linewidth=1, linestyle=":")
        axes.set_xscale("log", base=2)
        axes.set_xticks(batches, [str(b) for b in batches])
        axes.minorticks_off()
        axes.set(title=mode, xlabel="images a step", ylabel="test top-1 (%)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    panels[0].legend(frameon=False, fontsize=8)
    return figure
