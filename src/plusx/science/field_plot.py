"""The figures of ``field``, from its tables and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.science.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, which colour-blind readers tell apart; the markers differ as well."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DRAWN = 64
"""Pixels a side of a drawn map, at most."""


def draw(result: Result) -> dict[str, Figure]:
    """``field``: sizes by map, shuffled tiles, hidden parts; ``field_maps``: the maps."""
    from matplotlib.figure import Figure

    fields, context = result.tables["fields"], result.tables["context"]
    panels = 3 if context else 1
    figure = Figure(figsize=(1 + 3.1 * panels, 3.2), layout="constrained")
    several = np.atleast_1d(np.asarray(figure.subplots(1, panels)))
    _sizes(several[0], fields)
    if context:
        _shuffled(several[1], context)
        _hidden(several[2], context)
    for panel in several:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.25)
    return {"field": figure, "field_maps": _maps(result)}


def _nets(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(str(row["net"]) for row in rows))


def _sizes(panel: Axes, rows: Sequence[Row]) -> None:
    """Effective and theoretical size over the image's, by map."""
    for at, net in enumerate(_nets(rows)):
        look: dict[str, Any] = {"color": COLOURS[at % 6], "marker": MARKERS[at % 6]}
        for kind, line in (("trained", "-"), ("initialised", "--")):
            mine = [row for row in rows if row["net"] == net and row["weights"] == kind]
            if not mine:
                continue
            share = [row["share_of_image"] for row in mine]
            below = [row["effective"] - row["effective_low"] for row in mine]
            above = [row["effective_high"] - row["effective"] for row in mine]
            ends = np.maximum([below, above], 0) / mine[0]["image"]
            panel.errorbar(range(len(mine)), share, yerr=ends, linestyle=line,
                           linewidth=1, markersize=4, label=f"{net}, {kind}", **look)  # fmt: skip
        known = {row["map"]: row for row in rows if row["net"] == net and row["theoretical"]}
        theory = [row["theoretical"] / row["image"] for row in known.values()]
        panel.plot(list(known), theory, linestyle=":", linewidth=1, color=look["color"])
    names = max((_of(rows, net) for net in _nets(rows)), key=len)
    if all(_of(rows, net) == names[: len(_of(rows, net))] for net in _nets(rows)):
        panel.set_xticks(range(len(names)), names, rotation=30, fontsize=8)
    else:  # other nets have other maps
        panel.set_xticks(range(len(names)), [str(at + 1) for at in range(len(names))])
        panel.set_xlabel("map, counted from the input")
    panel.set(ylabel="field / image (dotted: in theory)", yscale="log")
    panel.legend(frameon=False, fontsize=7)


def _of(rows: Sequence[Row], net: str) -> list[str]:
    return list(dict.fromkeys(str(row["place"]) for row in rows if row["net"] == net))


def _shuffled(panel: Axes, rows: Sequence[Row]) -> None:
    for at, net in enumerate(_nets(rows)):
        mine = [row for row in rows if row["net"] == net and row["change"] == "shuffled"]
        _line(panel, mine, [row["level"] for row in mine], net, at)
    levels = sorted({row["level"] for row in rows if row["change"] == "shuffled"})
    panel.set_xscale("log", base=2)
    panel.set_xticks(levels, [str(level) for level in levels])
    panel.minorticks_off()
    panel.set(xlabel="tiles a side, shuffled", ylabel="top-1", ylim=(0, 1))
    panel.legend(frameon=False, fontsize=7)


def _hidden(panel: Axes, rows: Sequence[Row]) -> None:
    for at, net in enumerate(_nets(rows)):
        for kind, style in (("centre hidden", "-"), ("rim hidden", "--")):
            mine = [row for row in rows if row["net"] == net and row["change"] == kind]
            mine = [next(row for row in rows if row["net"] == net) | {"level": 0}, *mine]  # type: ignore[operator]
            label = kind if at == 0 else None
            _line(panel, mine, [row["level"] for row in mine], label, at, style=style)
    panel.set(xlabel="hidden share of the image", ylabel="top-1", ylim=(0, 1))
    panel.legend(frameon=False, fontsize=7)


def _line(
    panel: Axes,
    rows: Sequence[Row],
    across: Sequence[float],
    label: str | None,
    at: int,
    *,
    style: str = "-",
) -> None:
    top1 = [row["top1"] for row in rows]
    ends = [[row["top1"] - row["top1_low"] for row in rows],
            [row["top1_high"] - row["top1"] for row in rows]]  # fmt: skip
    panel.errorbar(across, top1, yerr=ends, linestyle=style, linewidth=1, markersize=4, label=label,
                   color=COLOURS[at % 6], marker=MARKERS[at % 6])  # fmt: skip


def _maps(result: Result) -> Figure:
    """A row a net and kind of weights, a column a map: the gradient's root mean square over its
    greatest, and the fitted Gaussian's two-sigma circle."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle

    rows = result.tables["fields"]
    nets = _nets(rows)
    lines = list(dict.fromkeys((str(row["net"]), str(row["weights"])) for row in rows))
    columns = max(len(_of(rows, net)) for net in nets)
    figure = Figure(figsize=(1.4 * columns + 0.4, 1.55 * len(lines)), layout="constrained")
    panels: Any = figure.subplots(len(lines), columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for line, (net, kind) in enumerate(lines):
        for row in (row for row in rows if (row["net"], row["weights"]) == (net, kind)):
            panel = panels[line, row["map"]]
            name = f"{kind}_{nets.index(net)}_{str(row['place']).replace(' ', '_')}"
            found = np.asarray(result.arrays[name], np.float64)
            height, width = found.shape
            panel.imshow(_small(found / found.max()), cmap="cividis", vmin=0, vmax=1,
                         extent=(0, width, height, 0), interpolation="nearest")  # fmt: skip
            if 2 * row["sigma"] < max(height, width):
                middle = (row["centre_column"] + 0.5, row["centre_row"] + 0.5)
                panel.add_patch(Circle(middle, 2 * row["sigma"], fill=False, color="white",
                                       linewidth=0.8))  # fmt: skip
            title = f"{net}\n{kind}, {row['place']}" if row["map"] == 0 else str(row["place"])
            panel.set_title(title, fontsize=6.5, loc="left")
    return figure


def _small(found: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """At most ``DRAWN`` pixels a side, the greatest of each square."""
    step = -(-max(found.shape) // DRAWN)
    height, width = (n // step * step for n in found.shape)
    cut = found[:height, :width].reshape(height // step, step, width // step, step)
    small: npt.NDArray[np.float64] = cut.max(axis=(1, 3))
    return small
