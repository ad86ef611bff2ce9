"""Pictures of speed: latency of each network, and accuracy against latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plusx.atomic import replacing
from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure
from plusx.evaluate.plots import ACCENT, RULE, TEXT, _inches, _open_frame, _render, _short, _svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    Draw = Callable[[Canvas], None]

KINDS = ("svg", "png")


@dataclass(frozen=True)
class Picture:
    """What is drawn, and on how many inches."""

    draw: Draw
    size: tuple[float, float]

    def svg(self) -> str:
        """As an ``<svg>`` element."""
        return _svg(self.draw, self.size)


@dataclass(frozen=True)
class Point:
    """A network on the picture of the front.

    Attributes:
        name: of it.
        latency_ms: median for one image.
        top1: with its interval.
        on_front: whether none is both faster and more accurate.
        chosen: whether it is the one to take.
    """

    name: str
    latency_ms: float
    top1: Figure
    on_front: bool
    chosen: bool


def check_plot(path: Path) -> None:
    """Whether a picture of that name can be written.

    Raises:
        UsageError: its ending is none of ``KINDS``.
    """
    if path.suffix.lower().removeprefix(".") not in KINDS:
        raise UsageError(f"--plot {path}: must end in {' or '.join('.' + kind for kind in KINDS)}")


def save_plot(picture: Picture, path: Path) -> None:
    """Write a picture as its name says; the background is transparent."""
    check_plot(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind == "svg":
        content = picture.svg().encode("utf-8")
    else:
        content = _render(picture.draw, picture.size, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        beside.write_bytes(content)


def latencies(bars: Mapping[int, Mapping[str, tuple[float, float, float]]]) -> Picture:
    """Median milliseconds a batch as bars, the 95th percentile as a line, images a second beside.

    Args:
        bars: batch size -> name -> (median ms, 95th percentile ms, images a second).

    Raises:
        UsageError: there is nothing to draw.
    """
    if not any(bars.values()):
        raise UsageError("bars are empty: there is nothing to draw")
    names = [_short(name, 44) for found in bars.values() for name in found]
    rows = [len(found) for found in bars.values()]

    def draw(canvas: Canvas) -> None:
        panels = canvas.subplots(len(bars), 1, squeeze=False, height_ratios=rows)
        for axes, (batch, found) in zip(panels[:, 0], bars.items(), strict=True):
            place = np.arange(len(found))
            low, high, rate = (np.array(column) for column in zip(*found.values(), strict=True))
            axes.barh(place, low, height=0.62, color=ACCENT)
            axes.hlines(place, low, high, color=TEXT, linewidth=1.6)
            for at, (end, per_s) in enumerate(zip(high, rate, strict=True)):
                axes.annotate(f"{per_s:.3g} images/s", (end, at), xytext=(5, 0),
                              textcoords="offset points", va="center", color=TEXT)  # fmt: skip
            axes.set_yticks(place, [_short(name, 44) for name in found])
            axes.set_ylim(len(found) - 0.4, -0.6)
            axes.set_xlim(0, 1.3 * float(high.max()))
            title = f"batch of {batch}" if batch > 1 else "one image"
            axes.set_title(f"{title}: ms, median (bar) and 95th percentile (line)", loc="left",
                           fontsize=10)  # fmt: skip
            _open_frame(axes, grid="x")

    return Picture(draw, (5.4 + _inches(names), 0.7 * len(bars) + 0.34 * sum(rows)))


def front(points: Sequence[Point], *, budget_ms: float | None = None) -> Picture:
    """Top-1 with its interval against latency; those that none beats in both are joined.

    Args:
        points: networks.
        budget_ms: drawn as a dashed line.

    Raises:
        UsageError: there are none.
    """
    if not points:
        raise UsageError("points are empty: there is nothing to draw")
    ordered = sorted(points, key=lambda one: one.latency_ms)

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        best = [one for one in ordered if one.on_front]
        axes.step([one.latency_ms for one in best], [100 * one.top1.value for one in best],
                  where="post", color=ACCENT, linewidth=1.4)  # fmt: skip
        for one in ordered:
            colour, value = ACCENT if one.on_front else TEXT, 100 * one.top1.value
            axes.vlines(one.latency_ms, 100 * one.top1.low, 100 * one.top1.high, color=colour,
                        linewidth=1.6, alpha=0.7)  # fmt: skip
            axes.plot(one.latency_ms, value, "D" if one.chosen else "o", color=colour,
                      markersize=9 if one.chosen else 6,
                      markerfacecolor=colour if one.on_front else "none")  # fmt: skip
            # Above and left of a point on the front there is nothing; below and right of others.
            place, side = ((-7, 4), "right") if one.on_front else ((7, -10), "left")
            axes.annotate(_short(one.name), (one.latency_ms, value), xytext=place, ha=side,
                          textcoords="offset points", color=TEXT,
                          fontweight="bold" if one.chosen else "normal")  # fmt: skip
        if budget_ms is not None:
            axes.axvline(budget_ms, color=TEXT, linestyle=(0, (4, 3)), linewidth=1.1)
        axes.set_xscale("log")
        slow = max(ordered[-1].latency_ms, budget_ms or 0.0)
        fast = min(ordered[0].latency_ms, budget_ms or ordered[0].latency_ms)
        axes.set_xlim(fast / 1.9, slow * 1.5)  # room for names
        ticks = _ticks(fast / 1.9, slow * 1.5)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}%")
        axes.set_xlabel("ms for one image")
        axes.set_title("top-1, each image judged by a head that never saw it", loc="left",
                       fontsize=10)  # fmt: skip
        _open_frame(axes, grid="y")
        axes.spines["bottom"].set_color(RULE)

    return Picture(draw, (7.6, 4.2))


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... between the two, at least one."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    found = [times * 10.0**power for power in powers for times in (1, 2, 5)
             if low <= times * 10.0**power <= high]  # fmt: skip
    return found or [float(f"{np.sqrt(low * high):.2g}")]
