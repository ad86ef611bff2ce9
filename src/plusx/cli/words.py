"""Figures as text for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def figure(value: Mapping[str, float] | None) -> str:
    """``94.8% (95% interval 91.2-97.0)``, or a dash where the figure is undefined."""
    if value is None:
        return "-"
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['value']:.1f}% (95% interval {low:.1f}-{high:.1f})"


def deciding(worth: Mapping[str, Any]) -> Iterator[str]:
    """Lines about what a decision is worth, as ``plusx.evaluate.deciding.worth`` states it."""
    if answered := worth.get("answered"):
        yield f"{'answered':<22} {figure(answered['coverage'])} of the images"
        yield f"{'right when answered':<22} {figure(answered['accuracy'])}"
    if unknown := worth.get("unknown"):
        promised = f"{100 * unknown['promised']:g}% was promised"
        yield f"{'called unknown':<22} {figure(unknown['share'])}  ({promised})"
    if favoured := worth.get("favoured"):
        yield f"{'sensitivity':<22} {figure(favoured['sensitivity'])} of {favoured['class']}"
    if sets := worth.get("sets"):
        promised = f"{100 * sets['promised']:g}% was promised"
        yield f"{'class in its set':<22} {figure(sets['coverage'])}  ({promised})"
        yield f"{'classes in a set':<22} {sets['mean_size']['value']:.2f}"
    if calibration := worth.get("calibration"):
        before, after = (calibration[when]["ece"]["value"] for when in ("before", "after"))
        yield f"{'calibration error':<22} {after:.3f} ({before:.3f} before calibration)"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int, wide: bool) -> None:
    """With lines on a terminal; columns alone where another program reads.

    Args:
        heads: of the columns.
        rows: their cells.
        left: so many first columns stand to the left, the others to the right.
        wide: whether this is a terminal.
    """
    if wide:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table()
        for at, head in enumerate(heads):
            drawn.add_column(head, justify="left" if at < left else "right", overflow="fold")
        for cells in rows:
            drawn.add_row(*(Text(cell) for cell in cells))
        Console().print(drawn)
        return
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    for row in (heads, *rows):
        cells = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def three(value: float) -> str:
    """Three figures, more where they stand before the point: ``9.42``, ``1,610``."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
