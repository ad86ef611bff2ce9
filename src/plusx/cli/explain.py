"""``plusx explain``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from plusx.cli.options import Device

EXAMPLES = """\b
Examples:
  plusx explain runs/photos-1 x.jpg
  plusx explain runs/photos-1 new/ --class bees --out maps/
  plusx explain runs/photos-1 x.jpg --neighbours 10 --json
  plusx explain photos.onnx x.jpg --parent runs/photos-1
"""


def explain(
    run: Annotated[str, typer.Argument(help="A run folder, a model folder or an exported file.")],
    images: Annotated[list[str], typer.Argument(help="Image files, folders or patterns.")],
    label: Annotated[
        str | None,
        typer.Option("--class", help="Explain this class [default: the most probable one]."),
    ] = None,
    out: Annotated[str, typer.Option(help="Folder for the pictures.")] = "explained",
    neighbours: Annotated[
        int, typer.Option(help="Name so many training images nearest to each (0: none).")
    ] = 5,
    parent: Annotated[
        str | None,
        typer.Option(
            help="The run that an exported file was made from [default: the one it lies in]."
        ),
    ] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON an image.")] = False,
) -> None:
    """Paint on each photograph where the network looked (Grad-CAM): warm colours mark what spoke
    for the class. Grey margins were cut off before the network saw the image. Also name the
    training images nearest to it, by the features that the network sees in both."""
    from pathlib import Path

    from plusx.data import BadImage
    from plusx.jobs.explain import Explainer, save
    from plusx.jobs.talk import Talk

    explainer = Explainer(run, device=device, neighbours=neighbours, parent=parent)
    if neighbours and not explainer.kept:
        print("note: the run kept no training images to be nearest", file=sys.stderr)
    failed, taken = 0, set[str]()
    with Talk().counting("explaining") as tick:
        for found in explainer.stream(images, label):
            tick(1, "")
            if isinstance(found, BadImage):
                print(f"unreadable: {found.path}: {found.reason}", file=sys.stderr)
                failed += 1
                continue
            written = save(found, Path(out), taken)
            if as_json:
                line = {
                    "path": found.path,
                    "class": found.label,
                    "probability": round(found.probability, 6),
                    "predicted": found.predicted,
                    "picture": str(written),
                    "neighbours": [
                        {"path": one.path, "label": one.label,
                         "similarity": round(one.similarity, 4)}
                        for one in found.neighbours
                    ],
                }  # fmt: skip
                print(json.dumps(line, ensure_ascii=not found.path.isprintable()))
            else:
                print(f"{found.path}: {found.label} {found.probability:.1%} -> {written}")
                for one in found.neighbours:
                    print(f"  {one.similarity:.3f}  {one.label}  {one.path}")
    if failed:
        raise typer.Exit(1)
