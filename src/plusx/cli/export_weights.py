"""``plusx export-weights``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx export-weights runs/photos-1 --as torchvision --out resnet50.pth
  plusx export-weights runs/photos-1 --as timm --out for-timm/
  plusx export-weights runs/photos-1 --as safetensors --out photos.safetensors
"""


def export_weights(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    out: Annotated[str, typer.Option(help="The file to write; for timm, the folder.")],
    kind: Annotated[str, typer.Option("--as", help="torchvision, timm or safetensors.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:
    """Write a run's weights for another library, or as one file that says everything; refuses what
    the other library would answer differently."""
    from plusx.jobs.export_weights import export_weights as job

    done = job(run, out, kind=kind, overwrite=overwrite)
    if as_json:
        print(json.dumps(done.to_json(), ensure_ascii=False))
        return
    print(f"wrote:   {done.path} ({done.bytes / 1e6:.1f} MB)")
    for text in done.notes:
        print(f"note:    {text}")
    print(f"use:     {done.use}")
