"""Options that several studies have, each declared once."""

from __future__ import annotations

from typing import Annotated

import typer

Nets = Annotated[list[str], typer.Argument(help="Runs, model folders, or weights files.")]
Data = Annotated[str | None, typer.Option(help="Labelled images [default: the run's own].")]
Sources = Annotated[
    list[str],
    typer.Option(
        help="A folder, manifest, or tar file of images; CIFAR-10's *.bin folder. May be given "
        "again: all are put together."
    ),
]
Models = Annotated[
    list[str] | None, typer.Option(help="Of a weights file: its network; may be repeated.")
]
Split = Annotated[
    str | None, typer.Option(help="test, val, train or all [default: test, else val].")
]
Threads = Annotated[int | None, typer.Option(help="Of each process [default: cores, divided].")]
Estimate = Annotated[bool, typer.Option("--estimate", help="Tell the time, do nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Also where it takes days.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
