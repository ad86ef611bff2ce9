"""The figures of ``landscape``, from its arrays: lines, contours, surfaces, on both scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.science.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
STYLES = ("-", "--", "-.", ":")
HOLE = "#b0b0b0"
"""What is not finite: grey, which the colour map has not."""
_LEVELS = 22


def draw(result: Result) -> dict[str, Figure]:
    """Of lines one figure; of planes contours, contours of the logarithm, and surfaces, all nets
    side by side on one scale; the map of curvature where there is one."""
    nets = [str(row["net"]) for row in result.tables["sharpness"]]
    arrays: Any = result.arrays
    if len(arrays["ys_0"]) == 1:
        return {"landscape": _lines(nets, arrays)}
    figures = {
        "landscape": _contours(nets, arrays, log=False),
        "landscape_log": _contours(nets, arrays, log=True),
        "landscape_surface": _surfaces(nets, arrays),
    }
    if any(f"ratio_{at}" in arrays for at in range(len(nets))):
        figures["landscape_convexity"] = _convexity(nets, arrays)
    return figures


def _lines(nets: Sequence[str], arrays: Any) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    plain, log = figure.subplots(1, 2)
    for at, net in enumerate(nets):
        xs, loss = arrays[f"xs_{at}"], arrays[f"loss_{at}"][0]
        for panel in (plain, log):
            panel.plot(xs, loss, color=COLOURS[at % 4], linestyle=STYLES[at % 4], label=net)
            for x in xs[~np.isfinite(loss)]:
                panel.axvline(x, color=HOLE, linewidth=2, zorder=0)
    log.set_yscale("log")
    for panel in (plain, log):
        panel.set(xlabel="along the direction", ylabel="loss")
        panel.spines[["top", "right"]].set_visible(False)
    plain.legend(frameon=False, fontsize=8)
    return figure


def _contours(nets: Sequence[str], arrays: Any, *, log: bool) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(nets), 3.6), layout="constrained")
    panels = figure.subplots(1, len(nets), squeeze=False)[0]
    losses = [_shown(arrays[f"loss_{at}"], log) for at in range(len(nets))]
    levels = _levels(losses)
    for at, (panel, loss) in enumerate(zip(panels, losses, strict=True)):
        xs, ys = arrays[f"xs_{at}"], arrays[f"ys_{at}"]
        panel.set_facecolor(HOLE)  # shows where nothing is drawn
        filled = panel.contourf(xs, ys, loss, levels=levels, cmap="cividis", extend="max")
        panel.contour(xs, ys, loss, levels=levels, colors="white", linewidths=0.4)
        path = f"path_{at}"
        if path in arrays:
            panel.plot(*arrays[path].T, "o-", color="#D55E00", markersize=3, linewidth=1)
        panel.plot(0, 0, "+", color="white")
        panel.set(title=nets[at], xlabel="first direction", ylabel="second direction")
    name = "log10 of the loss" if log else "loss (above the scale: one colour)"
    figure.colorbar(filled, ax=list(panels), label=name, shrink=0.9)
    return figure


def _surfaces(nets: Sequence[str], arrays: Any) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(nets), 4), layout="constrained")
    losses = [_shown(arrays[f"loss_{at}"], log=True) for at in range(len(nets))]
    low, high = _ends(losses)
    for at, loss in enumerate(losses):
        panel: Any = figure.add_subplot(1, len(nets), at + 1, projection="3d")
        x, y = np.meshgrid(arrays[f"xs_{at}"], arrays[f"ys_{at}"])
        panel.plot_surface(x, y, loss.filled(np.nan), cmap="cividis", vmin=low, vmax=high,
                           linewidth=0, antialiased=True, rcount=101, ccount=101)  # fmt: skip
        panel.set(title=nets[at], zlabel="log10 of the loss", zlim=(low, high))
    return figure


def _convexity(nets: Sequence[str], arrays: Any) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(nets), 3.6), layout="constrained")
    panels = figure.subplots(1, len(nets), squeeze=False)[0]
    for at, panel in enumerate(panels):
        panel.set(title=nets[at], xlabel="first direction", ylabel="second direction")
        if f"ratio_{at}" not in arrays:
            continue
        ratio = np.ma.masked_invalid(arrays[f"ratio_{at}"])
        panel.set_facecolor(HOLE)
        shown = panel.pcolormesh(
            arrays[f"ratio_xs_{at}"], arrays[f"ratio_ys_{at}"], ratio,
            vmin=0, vmax=1, cmap="cividis", shading="nearest",
        )  # fmt: skip
        figure.colorbar(shown, ax=panel, label="|most negative / largest eigenvalue|")
    return figure


def _shown(loss: Array, log: bool) -> Any:
    """What is not finite is masked."""
    kept = np.ma.masked_invalid(loss)
    return np.ma.log10(np.ma.maximum(kept, 1e-12)) if log else kept


def _ends(losses: Sequence[Any]) -> tuple[float, float]:
    finite = np.concatenate([loss.compressed() for loss in losses])
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return low, high if high > low else low + 1


def _levels(losses: Sequence[Any]) -> Array:
    """From the lowest loss to where nine tenths of all points lie below: the rim is steep."""
    low, high = _ends(losses)
    finite = np.concatenate([loss.compressed() for loss in losses])
    if len(finite):
        high = max(float(np.percentile(finite, 90)), low + 1e-3 * (high - low))
    levels: Array = np.linspace(low, high, _LEVELS)
    return levels
