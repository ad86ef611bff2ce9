"""Pictures of an evaluation as SVG text, for light and dark pages alike.

The background is transparent, lines and text are mid greys, and one hue (a blue that
colour-blind readers tell from grey) carries the data. Text stays text. The same input gives the
same bytes. matplotlib is imported when a picture is drawn, through its object interface.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError
from plusx.evaluate.abstain import RiskCoverage
from plusx.evaluate.calibration import Reliability
from plusx.evaluate.metrics import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ACCENT = "#2583c6"
FIRM, DEEP = "#2a75ab", "#0f4a75"
"""White on either has a contrast of at least 4.5."""
TEXT = "#7b8088"
RULE = "#8a8f9855"
SCORES = {"val_top1": "validation top-1", "val_map": "validation mean average precision"}
"""Column of a history -> what it is called."""

Counts = npt.NDArray[np.int64]

_COUNTS_UP_TO = 40  # classes: beyond this, counts in cells are too small to read
_CELLS_UP_TO, _CONFUSED_SHOWN = 50, 40
_BARS_UP_TO = 50
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "plusx",
    "text.parse_math": False,  # a class may be called $5
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same layout on every machine
    "font.size": 9.0,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": RULE,
    "axes.titlecolor": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.unicode_minus": False,
}
_FONTS = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_drawing = threading.Lock()  # matplotlib's settings belong to the whole process


def confusion_matrix(evaluation: Evaluation) -> str:
    """Rows true, columns predicted; the number is the count, the shade grows with its share of the
    row, faster at first so that rare confusions show. Of more than 50 classes it shows the 40 with
    the most errors.

    Raises:
        UsageError: the evaluation has no confusion matrix (task multi).
    """
    if evaluation.confusion is None:
        raise UsageError("evaluation has no confusion matrix: it is of task 'multi'")
    whole = evaluation.confusion
    share = whole / np.maximum(whole.sum(axis=1, keepdims=True), 1)
    shown = _most_confused(whole) if len(whole) > _CELLS_UP_TO else np.arange(len(whole))
    cells = np.ix_(shown, shown)
    k = len(shown)
    names = [_short(evaluation.classes[i]) for i in shown]
    cells_inches = float(np.clip(0.62 * k, 1.5, 10.0))
    side = cells_inches + 0.5 + _inches(names)

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot(aspect="equal", xlim=(0, k), ylim=(k, 0))
        _draw_cells(axes, whole[cells], share[cells], min(9.0, 0.4 * 72 * cells_inches / k))
        few = k <= 12
        size = float(np.clip(9.0 * 30 / k, 6.0, 9.0))
        axes.set_xticks(np.arange(k) + 0.5, names, fontsize=size, rotation=45 if few else 90,
                        ha="right" if few else "center",
                        rotation_mode="anchor" if few else "default")  # fmt: skip
        axes.set_yticks(np.arange(k) + 0.5, names, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if k < len(whole):
            title = f"the {k} classes of {len(whole)} with the most errors"
            axes.set_title(title, loc="left", fontsize=10)

    return _svg(draw, (side, side))


def _most_confused(counts: Counts) -> Counts:
    """Class numbers, in their order, of the 40 classes with the most wrong images."""
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return np.sort(np.argsort(-errors, kind="stable")[:_CONFUSED_SHOWN])


def _draw_cells(axes: Axes, counts: Counts, share: npt.NDArray[np.float64], size: float) -> None:
    from matplotlib.patches import Rectangle

    k = len(counts)
    axes.add_patch(Rectangle((0, 0), k, k, facecolor=ACCENT, alpha=0.05, linewidth=0))
    for row, column in zip(*np.nonzero(counts), strict=True):
        part = float(share[row, column])
        # Shades of one blue for rare cells; dark ones, on which white can be read, for the others.
        many = part >= 0.2
        colour = _between(FIRM, DEEP, (part - 0.2) / 0.8) if many else ACCENT
        shade = 1.0 if many else 0.3 * (part / 0.2) ** 0.5
        corner = (column, row)
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=shade, linewidth=0))
        text = f"{counts[row, column]}"
        if k <= 8:
            text += f"\n{100 * part:.0f}%"
        if k <= _COUNTS_UP_TO:
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size,
                      color="#ffffff" if many else TEXT)  # fmt: skip


def _between(one: str, other: str, share: float) -> str:
    """A colour so far from ``one`` to ``other``."""
    pairs = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(a + share * (b - a)) for a, b in pairs).hex()


def learning_curves(
    history: Sequence[Mapping[str, float]], *, score: str = "val_top1", probe: float | None = None
) -> str:
    """Training loss and the figure that chooses against the epoch.

    Args:
        history: one mapping per epoch with ``epoch``, ``train_loss`` and ``score``.
        score: ``val_top1`` or ``val_map`` (mean average precision).
        probe: the probe's figure (fraction), drawn as a dashed line.

    Raises:
        UsageError: the history is empty or lacks one of the three.
    """
    if not history:
        raise UsageError("history is empty: there is no epoch to draw")
    series: dict[str, list[float]] = {}
    for key in ("epoch", "train_loss", score):
        if any(key not in row for row in history):
            raise UsageError(f"history lacks {key!r} in some epoch; it has {sorted(history[0])}")
        series[key] = [float(row[key]) for row in history]

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import MaxNLocator

        loss, right = canvas.subplots(1, 2)
        for axes, key, title in ((loss, "train_loss", "training loss"),
                                 (right, score, SCORES[score])):  # fmt: skip
            axes.plot(series["epoch"], series[key], color=ACCENT, linewidth=1.8,
                      marker="o" if len(history) <= 40 else None, markersize=3.5)  # fmt: skip
            axes.set_title(title, loc="left", fontsize=10)
            axes.set_xlabel("epoch")
            axes.set_xlim(min(series["epoch"]) - 0.5, max(series["epoch"]) + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            _open_frame(axes, grid="y")
        right.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
        if probe is not None:
            right.axhline(probe, color=TEXT, linestyle=(0, (4, 3)), linewidth=1.2)
            right.annotate(f"probe {100 * probe:.1f}%", (1, probe), (0, 3),
                          xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", va="bottom", fontsize=8)  # fmt: skip
        right.margins(y=0.12)

    return _svg(draw, (7.6, 2.9))


def class_f1(evaluation: Evaluation) -> str:
    """F1 of each class with its 95% interval, worst first; of many classes the worst 50.

    Raises:
        UsageError: no class has an F1.
    """
    found = [(one.f1, one.name, one.support) for one in evaluation.per_class if one.f1 is not None]
    if not found:
        raise UsageError("evaluation has no class with an F1: there is nothing to draw")
    found.sort(key=lambda item: (item[0].value, item[1]))
    shown = found[:_BARS_UP_TO]
    place = np.arange(len(shown))
    names = [f"{_short(name)}  ({support})" for _, name, support in shown]

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        values = np.array([f1.value for f1, _, _ in shown])
        axes.barh(place, values, height=0.62, color=ACCENT, alpha=0.45, linewidth=0)
        axes.hlines(place, [f1.low for f1, _, _ in shown], [f1.high for f1, _, _ in shown],
                    color=ACCENT, linewidth=1.6)  # fmt: skip
        axes.plot(values, place, "o", color=ACCENT, markersize=4)
        axes.set_yticks(place, names)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        title = "F1 with 95% interval (images)"
        if len(found) > len(shown):
            title = f"F1 with 95% interval (images): the {len(shown)} lowest of {len(found)}"
        axes.set_title(title, loc="left", fontsize=10)
        _open_frame(axes, grid="x")
        axes.spines["bottom"].set_visible(False)

    return _svg(draw, (5.6 + _inches(names), 0.75 + 0.27 * len(shown)))


def robustness_curves(points: Sequence[Mapping[str, Any]], *, figure: str = "top1") -> str:
    """One small curve a kind of harm: the figure with its 95% interval against the strength.

    Args:
        points: mappings with ``kind``, ``strength``, ``value``, ``low`` and ``high``, as
            ``plusx evaluate --robustness --json`` has them; strength 0 is the image as it is.
        figure: what was measured, ``top1`` or ``mean_average_precision``.

    Raises:
        UsageError: there is no point.
    """
    kinds = list(dict.fromkeys(str(point["kind"]) for point in points))
    if not kinds:
        raise UsageError("points is empty: there is no curve to draw")
    columns = min(4, len(kinds))
    rows = -(-len(kinds) // columns)

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for axes, kind in zip(grid, kinds, strict=False):
            own = sorted((p for p in points if p["kind"] == kind), key=lambda p: p["strength"])
            x = [p["strength"] for p in own]
            axes.fill_between(x, [p["low"] for p in own], [p["high"] for p in own],
                              color=ACCENT, alpha=0.2, linewidth=0)  # fmt: skip
            axes.plot(x, [p["value"] for p in own], color=ACCENT, linewidth=1.8, marker="o",
                      markersize=3.5)  # fmt: skip
            axes.axhline(own[0]["value"], color=TEXT, linestyle=(0, (4, 3)), linewidth=1.0)
            axes.set_title(kind, loc="left", fontsize=10)
            axes.set_ylim(0, 1.02)
            axes.set_xticks(x)
            axes.tick_params(labelbottom=True)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")
            _open_frame(axes, grid="y")
        for axes in grid[len(kinds) :]:
            axes.set_visible(False)
        canvas.supxlabel("strength (0: as it is)", fontsize=9)
        canvas.supylabel(figure.replace("top1", "top-1").replace("_", " "), fontsize=9)

    return _svg(draw, (1.9 * columns + 0.4, 1.9 * rows + 0.4))


def reliability_diagram(after: Reliability, before: Reliability | None = None) -> str:
    """How often answers were right against how sure they were; on the diagonal both agree.

    Args:
        after: as the model ships.
        before: without its temperature, drawn in grey.
    """

    def draw(canvas: Canvas) -> None:
        from matplotlib.ticker import MultipleLocator

        axes = canvas.add_subplot(aspect="equal")
        curves = [(before, TEXT, "before"), (after, ACCENT, "after")]
        shown = [one for one in curves if one[0] is not None]
        lowest = min(float(min(c.confidence.min(), c.accuracy.min())) for c, _, _ in shown if c)
        low = max(0.0, np.floor(10 * lowest - 0.5) / 10)
        axes.plot([low, 1], [low, 1], color=RULE, linewidth=1.2, linestyle=(0, (4, 3)))
        for curve, colour, name in shown:
            assert curve is not None
            axes.plot(curve.confidence, curve.accuracy, color=colour, linewidth=1.6, marker="o",
                      markersize=4, label=name)  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_xlim(low, 1.02)
        axes.set_ylim(low, 1.02)
        axes.xaxis.set_major_locator(MultipleLocator(0.1 if low >= 0.5 else 0.2))
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if low >= 0.5 else 0.2))
        axes.set_xlabel("how sure it says it is")
        axes.set_title("how often it is right", loc="left", fontsize=10)
        if before is not None:
            axes.legend(loc="upper left", frameon=False, fontsize=9)
        _open_frame(axes, grid="y")

    return _svg(draw, (3.3, 3.3))


def risk_curve(curve: RiskCoverage) -> str:
    """The share of wrong answers against the share of images answered, the surest first."""

    def draw(canvas: Canvas) -> None:
        axes = canvas.add_subplot()
        # A long curve is drawn at 400 places: more cannot be seen.
        places = np.unique(np.linspace(0, len(curve.coverage) - 1, 400).astype(np.int64))
        coverage, risk = curve.coverage[places], curve.risk[places]
        axes.plot(coverage, risk, color=ACCENT, linewidth=1.8)
        axes.fill_between(coverage, risk, color=ACCENT, alpha=0.12, linewidth=0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, max(0.05, 1.15 * float(risk.max())))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        axes.set_xlabel("images answered, the surest first")
        axes.set_title("wrong among those answered", loc="left", fontsize=10)
        _open_frame(axes, grid="y")

    return _svg(draw, (4.5, 3.2))


def _open_frame(axes: Axes, *, grid: str) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x" if grid == "x" else "y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _short(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def _inches(names: Sequence[str]) -> float:
    """About the width of the longest of ``names`` at 9 points; Chinese letters count double."""
    wide = [sum(1 + (east_asian_width(letter) in "WF") for letter in name) for name in names]
    return 0.085 * max(wide)


def _svg(draw: Callable[[Canvas], None], size: tuple[float, float]) -> str:
    """What ``draw`` puts on a canvas of ``size`` inches, as an ``<svg>`` element."""
    text = _render(draw, size, "svg").decode("utf-8")
    text = text[text.index("<svg") :]
    # Laid out in the font that ships with matplotlib, shown in the reader's own.
    return re.sub(r"(<text style=\"[^\"]*)'DejaVu Sans'", rf"\1{_FONTS}", text)


def _render(draw: Callable[[Canvas], None], size: tuple[float, float], kind: str) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    file = io.BytesIO()
    with _drawing, warnings.catch_warnings(), rc_context(_STYLE):
        # The reader's browser has the letters that the layout font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = Canvas(figsize=size, layout="constrained")
        draw(canvas)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {}
        canvas.savefig(file, format=kind, transparent=True, dpi=110, metadata=metadata)
    return file.getvalue()
