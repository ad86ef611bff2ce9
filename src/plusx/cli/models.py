"""``plusx models``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plusx.jobs.models import Listed

EXAMPLES = """\b
Examples:
  plusx models
  plusx models 'resnext*' --max-macs 5G
  plusx models --pretrained --json
  plusx models resnet50 --image-size 288
  plusx models runs/photos-1 --svg net.svg
"""


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="A model to draw (name, SPEC.json, run), or filters such as 'wide*'."),
    ] = None,
    max_params: Annotated[str | None, typer.Option(help="Parameters, at most (30M).")] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="Multiply-adds for one image, at most (5G).")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Those that --weights auto has weights for.")
    ] = False,
    kind: Annotated[str | None, typer.Option(help="imagenet, cifar or small.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Draw: pixels of the image [default: its own].")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="Draw: channels of the image [default: its own].")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Draw: outputs [default: its own].")] = None,
    svg: Annotated[
        str | None, typer.Option(help="Draw: write the picture to this .svg file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """List the networks (parameters, multiply-adds, published accuracy, known weights), or draw
    one: stages, blocks, shapes, receptive field."""
    from plusx.errors import UsageError
    from plusx.jobs.models import is_one, list_models

    asked = names or []
    if len(asked) == 1 and is_one(asked[0]):
        filters = {"--max-params": max_params, "--max-macs": max_macs, "--kind": kind,
                   "--pretrained": pretrained or None}  # fmt: skip
        if given := [option for option, value in filters.items() if value is not None]:
            raise UsageError(f"{given[0]} filters the list; leave it out to draw {asked[0]}")
        _draw(asked[0], (image_size, in_channels, classes), svg, as_json)
        return
    shape = {"--image-size": image_size, "--in-channels": in_channels, "--classes": classes,
             "--svg": svg}  # fmt: skip
    if given := [option for option, value in shape.items() if value is not None]:
        raise UsageError(f"{given[0]} needs one model to draw: plusx models NAME {given[0]} ...")
    found = list_models(
        asked, max_params=max_params, max_macs=max_macs, pretrained=pretrained, kind=kind
    )
    if as_json:
        print(json.dumps([one.to_json() for one in found], ensure_ascii=False))
    else:
        _table(found)


def _draw(
    name: str, asked: tuple[int | None, int | None, int | None], svg: str | None, as_json: bool
) -> None:
    import shutil
    from pathlib import Path

    from plusx.jobs.drawing import draw
    from plusx.jobs.models import describe_model
    from plusx.jobs.run import write_text
    from plusx.jobs.svg import picture

    image_size, in_channels, classes = asked
    found = describe_model(name, image_size=image_size, in_channels=in_channels, classes=classes)
    if svg is not None:
        write_text(Path(svg), picture(found))
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    elif svg is not None:
        print(f"picture: {svg}")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
        print(draw(found, sys.stdout.encoding or "ascii", width), end="")


_HEADS = ("name", "parameters", "multiply-adds", "pixels", "top-1", "year", "weights of auto")


def _table(found: list[Listed]) -> None:
    """With lines on a terminal; columns alone where another program reads."""
    rows = [_cells(one) for one in found]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for number, head in enumerate(_HEADS):
            right = 0 < number < 6
            table.add_column(head, justify="right" if right else "left", no_wrap=number == 0)
        for cells in rows:
            table.add_row(*cells)
        Console().print(table, markup=False)
        print(f"{len(found)} models; plusx models NAME draws one")
        return
    widths = [max(len(row[i]) for row in [_HEADS, *rows]) for i in range(len(_HEADS))]
    for cells in [_HEADS, *rows]:
        line = [
            cell.rjust(width) if 0 < i < 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        print("  ".join(line).rstrip())


def _cells(one: Listed) -> tuple[str, ...]:
    from plusx.jobs.drawing import short

    said = one.published
    return (
        one.name,
        f"{one.params:,}",
        short(one.macs),
        str(one.image_size),
        (said.percent if said else "") or "-",
        str((said and said.year) or "-"),
        one.auto or "-",
    )
