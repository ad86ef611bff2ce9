"""What the studies' commands have in common: numbers in, a result out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from plusx.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from plusx.science.result import Result


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """``20,56`` -> (20, 56); None stays None.

    Raises:
        UsageError: something else.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise UsageError(f"{option} {text!r} must be whole numbers with commas, such as 0,1,2")
    return tuple(int(part) for part in parts)


def give(
    result: Result, figures: Mapping[str, Figure], folder: Path, *, as_json: bool = False
) -> None:
    """Keep a result and print its finding."""
    from plusx.jobs.study import keep

    written = keep(result, figures, folder)
    if as_json:
        typer.echo(written[0].read_text(encoding="utf-8"), nl=False)
        return
    typer.echo(result.finding)
    for note in result.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"kept in {folder}: {', '.join(path.name for path in written)}")
