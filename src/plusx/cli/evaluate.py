"""``plusx evaluate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx evaluate runs/photos-1 test-photos/
  plusx evaluate runs/photos-1 list.csv --split test --json
"""


def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    data: Annotated[str, typer.Argument(help="Class folders (with or without splits), or a CSV.")],
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all [default: test, else val, else all]."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Write logits and targets to this .npz file.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda[:N] or mps.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, float16, or auto: the fastest.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward.")] = 32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="For decoding [default: one a core].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Score a run on labelled images, classes matched by name; the run is not changed."""
    from pathlib import Path

    from plusx.cli.words import figure
    from plusx.jobs.evaluate import evaluate as job
    from plusx.jobs.run import write_json

    result = job(
        run,
        data,
        split=split,
        device=device,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
    )
    found = result.to_json()
    if out is not None:
        write_json(Path(out), found)
    if predictions is not None:
        result.predictions.save(Path(predictions))
    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        print(f"{found['n']} images ({found['split']})")
        for name, value in found["figures"].items():
            if value is not None and name != "nll":
                print(f"{name:<20} {figure(value)}")
        _classes(found)
    for item in result.bad:
        print(f"unreadable: {item.path}: {item.reason}", file=sys.stderr)
    if result.bad:
        raise typer.Exit(1)


def _classes(found: dict[str, list[dict[str, object]]]) -> None:
    from rich.console import Console
    from rich.table import Table

    seen = [one for one in found["per_class"] if one["support"]]
    table = Table(title=None)
    for name in ("class", "precision", "recall", "f1", "support"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for one in seen[:50]:
        cells = [_share(one[name]) for name in ("precision", "recall", "f1")]
        table.add_row(str(one["class"]), *cells, str(one["support"]))
    console = Console()
    console.print(table, markup=False)
    if len(seen) > 50:
        print(f"and {len(seen) - 50} classes more (--json has all)")
    if len(seen) <= 20:
        _confusion(found, [str(one["class"]) for one in seen])


def _confusion(found: dict[str, list[dict[str, object]]], names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    order = [found["classes"].index(name) for name in names]  # type: ignore[arg-type]
    rows: list[list[int]] = found["confusion"]  # type: ignore[assignment]
    table = Table(title="confusion: rows are true, columns predicted")
    for name in ("", *names):
        table.add_column(name, justify="right")
    for name, i in zip(names, order, strict=True):
        table.add_row(name, *(str(rows[i][j]) for j in order))
    elsewhere = sum(map(sum, rows)) - sum(rows[i][j] for i in order for j in order)
    Console().print(table, markup=False)
    if elsewhere:
        print(f"{elsewhere} predictions are of classes absent from the data")


def _share(value: object) -> str:
    return "-" if not isinstance(value, dict) else f"{value['value']:.3f}"
