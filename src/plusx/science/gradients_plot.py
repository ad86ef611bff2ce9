"""The figures of ``gradients``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: dict[tuple[str, str], tuple[str, Any]] = {
    ("residual", "batch"): ("#0072b2", "-"),
    ("plain", "batch"): ("#d55e00", "-"),
    ("residual", "none"): ("#56b4e9", (0, (5, 2))),
    ("plain", "none"): ("#e69f00", (0, (5, 2))),
}
_MARKS = {"he": "o", "framework": "s"}
_NETS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def plots(result: Result) -> dict[str, Figure]:
    """``gradients`` (by depth), ``shattering`` and ``responses``: those there is data for."""
    found = {}
    if "norms" in result.tables:
        found["gradients"] = _norms(result)
    if "shattering" in result.tables:
        found["shattering"] = _shattering(result.tables["shattering"])
    if "blocks" in result.tables:
        found["responses"] = _responses(result)
    return found


def _canvas(panels: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * panels + 1.2, 3.4), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", linewidth=0.5, alpha=0.4)
    return figure, axes


def _norms(result: Result) -> Figure:
    """Gradient norm by block of the deepest nets at initialisation; activations; per-block rate."""
    depth = max(result.settings["depths"])
    rows = [r for r in result.tables["norms"] if r["step"] == 0 and r["depth"] == depth]
    figure, (left, right) = _canvas(2)
    for (shortcut, norm), (colour, line) in _STYLES.items():
        for init, mark in _MARKS.items():
            own = [r for r in rows
                   if (r["shortcut"], r["norm"], r["init"]) == (shortcut, norm, init)]  # fmt: skip
            number = sorted({r["block"] for r in own})
            label = f"{shortcut}, {'BatchNorm' if norm == 'batch' else 'no norm'}, {init}"
            for axes, column in ((left, "gradient"), (right, "activation")):
                mean = [_log_mean([r[column] for r in own if r["block"] == n]) for n in number]
                every = max(1, len(number) // 6)
                axes.plot(number, mean, color=colour, linestyle=line, marker=mark, markersize=3.5,
                          markevery=every, linewidth=1.4, label=label)  # fmt: skip
    for axes, title in ((left, "gradient norm"), (right, "root mean square activation")):
        axes.set(title=f"{title}, {depth} layers", xlabel="block (0: nearest the input)",
                 yscale="log")  # fmt: skip
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", frameon=False,
                  fontsize=8)  # fmt: skip
    return figure


def _log_mean(values: Sequence[float]) -> float:
    kept = np.array([v for v in values if v > 0 and np.isfinite(v)])
    return float(np.exp(np.log(kept).mean())) if len(kept) else float("nan")


def _shattering(rows: Sequence[Row]) -> Figure:
    """Autocorrelation by lag, a curve for each number of layers; as figure 2 of the paper."""
    figure, panels = _canvas(2)
    layers = sorted({r["layers"] for r in rows})
    for axes, kind in zip(panels, ("feedforward", "residual"), strict=True):
        for i, count in enumerate(layers):
            own = [r for r in rows if (r["kind"], r["layers"]) == (kind, count)]
            lags = sorted({r["lag"] for r in own})
            mean = [np.mean([r["value"] for r in own if r["lag"] == lag]) for lag in lags]
            axes.plot(lags, mean, color=_NETS[i % len(_NETS)], marker="os^Dv<"[i % 6],
                      markersize=3.5, linewidth=1.4, label=f"{count} layers")  # fmt: skip
        axes.axhline(0, color="0.4", linewidth=0.8)
        axes.set(title=kind, xlabel="lag (of 256 points)", ylabel="autocorrelation",
                 ylim=(-0.3, 1.05))  # fmt: skip
        axes.legend(frameon=False, fontsize=8)
    return figure


def _responses(result: Result) -> Figure:
    """Figure 7 of He et al. 2015: responses sorted by size; and the change of each block."""
    figure, (left, middle, right) = _canvas(3)
    blocks = result.tables["blocks"]
    for i, net in enumerate(dict.fromkeys(r["net"] for r in blocks)):
        colour = _NETS[i % len(_NETS)]
        sizes = [r["deviation"] for r in result.tables["responses"] if r["net"] == net]
        left.plot(sorted(sizes, reverse=True), color=colour, linewidth=1.4, label=net)
        own = [r for r in blocks if r["net"] == net]
        kept = [(r["block"], r["ratio"]) for r in own if r["ratio"] is not None]
        if kept:
            middle.plot(*zip(*kept, strict=True), color=colour, marker="os^Dv<"[i % 6],
                        markersize=3.5, linewidth=1.2, label=net)  # fmt: skip
        right.plot([r["block"] for r in own], [r["gradient"] for r in own], color=colour,
                   marker="os^Dv<"[i % 6], markersize=3.5, linewidth=1.2)  # fmt: skip
    left.set(title="layer responses", xlabel="layer, sorted", ylabel="standard deviation")
    middle.set(title="|F(x)| / |x|", xlabel="block", ylim=(0, None))
    right.set(title="gradient norm", xlabel="block", yscale="log")
    left.legend(frameon=False, fontsize=8)
    return figure
