"""``plusx study paths``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Data, Estimate, Split, Threads

EXAMPLES = """\b
Examples:
  plusx study paths runs/photos-1
  plusx study paths resnet56.th --model resnet56_cifar_a --data cifar10/ --estimate
  plusx study paths resnet110.th --model resnet110_cifar_a --data cifar10/ --draws 50
  plusx study paths runs/photos-1 --train 200
"""


def paths(
    net: Annotated[str, typer.Argument(help="A run, a model folder, or a weights file.")],
    data: Data = None,
    model: Annotated[str | None, typer.Option(help="Of a weights file: its network.")] = None,
    split: Split = None,
    images: Annotated[int, typer.Option(help="Images whose gradients are measured.")] = 64,
    draws: Annotated[int, typer.Option(help="Paths of each length.")] = 20,
    train: Annotated[
        int, typer.Option(help="Also train the effective paths alone for so many steps.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of images and paths.")] = 0,
    out: Annotated[str | None, typer.Option(help="Folder [default: RUN/studies/paths].")] = None,
    processes: Annotated[int, typer.Option(help="How many share the lengths.")] = 1,
    threads: Threads = None,
    estimate: Estimate = False,
    as_json: AsJson = False,
) -> None:
    """How many paths of each length a residual net has, and how much gradient comes through them
    to the input (Veit et al. 2016). What is finished is kept: the same command goes on after a
    stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give
    from plusx.jobs import wording
    from plusx.jobs.paths import estimate_paths, study_paths
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.jobs.study_subjects import asked_for
    from plusx.science.paths import Sampling
    from plusx.science.paths_plot import draw

    sampling = Sampling(draws, images, seed)
    models = [] if model is None else [model]
    asked = asked_for([net], models, data, limit=images, split=split, seed=seed)[0]
    crew = Crew(processes, threads)
    if estimate:
        seconds = estimate_paths(asked, sampling=sampling, crew=crew)
        typer.echo(f"about {wording.duration(seconds)} on this machine as it is now")
        return
    folder = Path(out) if out else default_folder("paths", net)
    result = study_paths(asked, folder, sampling=sampling, train=train, crew=crew)
    give(result, draw(result), folder, as_json=as_json)
