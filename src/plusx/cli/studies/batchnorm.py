"""``plusx study batchnorm``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Sources, Threads

EXAMPLES = """\b
Examples:
  plusx study batchnorm --data cifar10/ --processes 2
  plusx study batchnorm --data cifar10/ --batches 2,16,64 --seeds 0,1,2,3,4
"""


def batchnorm(
    data: Sources,
    batches: Annotated[str, typer.Option(help="Images a step.")] = "1,2,4,8,16,32",
    seeds: Annotated[str, typer.Option(help="Of each training.")] = "0,1,2",
    images: Annotated[int, typer.Option(help="Train on so many.")] = 2000,
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 2,
    out: Annotated[str | None, typer.Option(help="Folder [default: studies/batchnorm].")] = None,
    processes: Annotated[int, typer.Option(help="How many share the trainings.")] = 1,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy and stability against batch size, for trainable BatchNorm, frozen BatchNorm and
    GroupNorm, from scratch and in fine-tuning: is "at least 16 images a step" true?"""
    from pathlib import Path

    from plusx.cli.studies.giving import give, whole_numbers
    from plusx.jobs.batchnorm import study_batchnorm
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.science.batchnorm import NormPlan
    from plusx.science.batchnorm_plot import plot

    plan = NormPlan(
        batches=whole_numbers("--batches", batches) or (),
        seeds=whole_numbers("--seeds", seeds) or (),
        images=images,
        epochs=epochs,
    )
    folder = Path(out) if out else default_folder("batchnorm", None)
    result = study_batchnorm(data, folder, plan=plan, crew=Crew(processes, threads))
    give(result, {"batchnorm": plot(result)}, folder, as_json=as_json)
