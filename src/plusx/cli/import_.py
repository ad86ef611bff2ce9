"""``plusx import``."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx import resnet18.pth --model resnet18 --classes names.txt --out runs/mine
  plusx import timm/resnet50.a1_in1k --out runs/imagenet
  plusx import old.th --model resnet56_cifar_a --classes classes.tsv:2 --out runs/cifar
  plusx import microsoft/resnet-50 --out runs/transformers
  plusx import resnet50.keras --out runs/keras
  plusx import detector.pth --layout detectron2 --stride 1x1 --pixels caffe-bgr --out runs/det
"""


def import_weights(
    weights: Annotated[str, typer.Argument(help="A weights file, a model folder or a hub id.")],
    out: Annotated[str, typer.Option(help="The run folder to make.")],
    model: Annotated[
        str | None, typer.Option(help="Variant or SPEC.json, where the weights don't say it.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Names in the order of the logits: text, JSON list, or FILE:COLUMN."),
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Whose names they have: torchvision, transformers, keras, ...")
    ] = "auto",
    stride: Annotated[
        str | None, typer.Option(help="Where bottlenecks stride: 1x1 (v1) or 3x3 (v1.5).")
    ] = None,
    pixels: Annotated[
        str | None, typer.Option(help="What they saw: imagenet or caffe-bgr.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --out.")
    ] = False,
) -> None:
    """Make a run of weights that exist, for predict and evaluate."""
    from plusx.jobs.import_weights import import_weights as job
    from plusx.jobs.import_weights import read_as

    reading = read_as(layout, stride, pixels)
    run = job(weights, out, model=model, classes=classes, overwrite=overwrite, reading=reading)
    print(f"model:   {run.model_path}")
    print(f"next:    plusx evaluate {run.path} DATA   or   plusx predict {run.path} IMAGE...")
