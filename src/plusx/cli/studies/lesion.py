"""``plusx study lesion``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Data, Estimate, Models, Nets, Split, Threads

EXAMPLES = """\b
Examples:
  plusx study lesion runs/photos-1
  plusx study lesion resnet56.th --model resnet56_cifar_a --data cifar10/ --estimate
  plusx study lesion runs/residual runs/vgg --data cifar10/ --images 5000 --processes 2
"""


def lesion(
    nets: Nets,
    data: Data = None,
    model: Models = None,
    split: Split = None,
    images: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    most: Annotated[int, typer.Option(help="Remove up to so many blocks at once.")] = 20,
    swaps: Annotated[int, typer.Option(help="Swap blocks up to so many times.")] = 20,
    draws: Annotated[int, typer.Option(help="Random lesions of each size.")] = 5,
    draw_images: Annotated[int, typer.Option(help="Images for random lesions.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the draws and intervals.")] = 0,
    out: Annotated[str | None, typer.Option(help="Folder [default: RUN/studies/lesion].")] = None,
    processes: Annotated[int, typer.Option(help="How many share the work.")] = 1,
    threads: Threads = None,
    estimate: Estimate = False,
    as_json: AsJson = False,
) -> None:
    """What a trained net answers without each of its blocks, without several, and with blocks
    swapped (Veit et al. 2016). What is finished is kept: the same command goes on after a
    stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give
    from plusx.jobs import wording
    from plusx.jobs.lesion import estimate_lesion, study_lesion
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.jobs.study_subjects import asked_for
    from plusx.science.lesion import Lesions
    from plusx.science.lesion_plot import draw

    asked = asked_for(nets, model or [], data, limit=images, split=split, seed=seed)
    which = Lesions(most, swaps, draws, draw_images, seed)
    crew = Crew(processes, threads)
    if estimate:
        seconds = estimate_lesion(asked, which=which, crew=crew)
        typer.echo(f"about {wording.duration(seconds)} on this machine as it is now")
        return
    folder = Path(out) if out else default_folder("lesion", nets[0])
    result = study_lesion(asked, folder, which=which, crew=crew)
    give(result, draw(result), folder, as_json=as_json)
