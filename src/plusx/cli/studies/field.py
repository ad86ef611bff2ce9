"""``plusx study field``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Data, Models, Split, Threads

EXAMPLES = """\b
Examples:
  plusx study field runs/photos-1
  plusx study field resnet56.th --model resnet56_cifar_a --data cifar10/ --images 2000
  plusx study field resnet50.pth vit.safetensors --model resnet50
      --model timm:vit_small_patch16_224 --data imagenet.csv --grids 1,2,4,7
  plusx study field none --model resnet50 --data photos/ --inits 5
"""


def field(
    nets: Annotated[list[str], typer.Argument(help="Runs, model folders, weights files, or none.")],
    data: Data = None,
    model: Models = None,
    split: Split = None,
    images: Annotated[int, typer.Option(help="At most so many, shuffled and hidden.")] = 1000,
    field_images: Annotated[int, typer.Option(help="Images whose gradients are measured.")] = 16,
    draws: Annotated[int, typer.Option(help="Random cotangents an image.")] = 2,
    inits: Annotated[int, typer.Option(help="Fresh nets beside the trained one.")] = 2,
    grids: Annotated[
        str | None, typer.Option(help="Tiles a side [default: 1,2,4,7,8,16, if they fit].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of images, nets, cotangents and tiles.")] = 0,
    out: Annotated[str | None, typer.Option(help="Folder [default: RUN/studies/field].")] = None,
    processes: Annotated[int, typer.Option(help="How many share the work.")] = 1,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """How much of the image a unit looks at, in theory and in effect (Luo et al. 2016), and what
    the net still answers when tiles are shuffled, the middle or the rim hidden. What is finished
    is kept: the same command goes on after a stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give, whole_numbers
    from plusx.jobs.field import study_field
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.jobs.study_subjects import asked_for
    from plusx.science.field import Looking
    from plusx.science.field_plot import draw

    looking = Looking(field_images, draws, inits, seed)
    cut = whole_numbers("--grids", grids)
    asked = asked_for(nets, model or [], data, limit=images, split=split, seed=seed)
    folder = Path(out) if out else default_folder("field", nets[0])
    result = study_field(asked, folder, looking=looking, grids=cut, crew=Crew(processes, threads))
    give(result, draw(result), folder, as_json=as_json)
