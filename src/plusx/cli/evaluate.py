"""``plusx evaluate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

EXAMPLES = """\b
Examples:
  plusx evaluate runs/photos-1 test-photos/
  plusx evaluate runs/photos-1 list.csv --split test --json
"""


def evaluate(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    data: Annotated[
        str, typer.Argument(help="Class folders (with or without splits), a CSV or Parquet file.")
    ],
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
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images per forward [default: 8 on a CPU, else 64].")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="For decoding [default: one a core].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Score a run on labelled images, classes matched by name; the run is not changed."""
    from pathlib import Path

    from plusx.cli.words import deciding, figure
    from plusx.jobs.evaluate import evaluate as job
    from plusx.jobs.run import write_json

    for option, name in (("--out", out), ("--predictions", predictions)):
        ready(option, name)
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
    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        print(f"{found['n']} images ({found['split']})")
        for name, value in found["figures"].items():
            if value is not None and name != "nll":
                print(f"{name:<22} {figure(value)}")
        for line in deciding(found["decision"] or {}):
            print(line)
        _classes(found)
    if out is not None:  # after the figures were shown: a full disk shall not cost them
        write_json(Path(out), found)
    if predictions is not None:
        result.predictions.save(Path(predictions))
    for item in result.bad:
        print(f"unreadable: {item.path}: {item.reason}", file=sys.stderr)
    if result.bad:
        raise typer.Exit(1)


def ready(option: str, name: str | None) -> None:
    """Make the folder of a file to write, and refuse what can't be one, before hours of work."""
    from pathlib import Path

    from plusx.errors import UsageError

    if name is None:
        return
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {name}: cannot be written: {error.strerror}") from error
    if Path(name).is_dir():
        raise UsageError(f"{option} {name!r}: is a folder; give the name of a file")


def _classes(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    seen = [one for one in found["per_class"] if one["support"]]
    table = Table(title=None)
    figures = ["precision", "recall", "f1"] + ["average_precision"] * (found["task"] == "multi")
    for name in ("class", *figures, "support"):
        table.add_column(name.replace("_", " "), justify="left" if name == "class" else "right")
    for one in seen[:50]:
        cells = [_share(one[name]) for name in figures]
        table.add_row(str(one["class"]), *cells, str(one["support"]))
    console = Console()
    console.print(table, markup=False)
    if len(seen) > 50:
        print(f"and {len(seen) - 50} classes more (--json has all)")
    if len(seen) <= 20 and found["confusion"] is not None:
        _confusion(found, [str(one["class"]) for one in seen])


def _confusion(found: dict[str, Any], names: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    order = [found["classes"].index(name) for name in names]
    rows: list[list[int]] = found["confusion"]
    numbers = [str(i) for i in range(1, len(names) + 1)]
    console = Console()
    for heads in (names, numbers):  # under numbers where the names don't fit side by side
        table = Table(title="confusion: rows are true, columns predicted")
        for head in ("", *heads):
            table.add_column(head, justify="right", no_wrap=True)
        for number, name, i in zip(numbers, names, order, strict=True):
            label = name if heads is names else f"{name} {number}"
            table.add_row(label, *(str(rows[i][j]) for j in order))
        if Console(width=10_000).measure(table).maximum <= console.width:
            console.print(table, markup=False)
            break
    else:
        print(f"the confusion matrix needs more than {console.width} columns (--json has it)")
    elsewhere = sum(map(sum, rows)) - sum(rows[i][j] for i in order for j in order)
    if elsewhere:
        print(f"{elsewhere} predictions are of classes absent from the data")


def _share(value: object) -> str:
    return "-" if not isinstance(value, dict) else f"{value['value']:.3f}"
