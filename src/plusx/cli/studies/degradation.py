"""``plusx study degradation``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Estimate, Force, Sources, Threads

EXAMPLES = """\b
Examples:
  plusx study degradation --data cifar10/ --estimate
  plusx study degradation --data train.tar --data test.tar --processes 2
  plusx study degradation --data cifar10/ --depths 20,32,44,56 --seeds 0,1,2,3,4
  plusx study degradation --data cifar10/ --preset paper --device cuda
"""


def degradation(
    data: Sources,
    preset: Annotated[
        str, typer.Option(help="laptop (under an hour on 2 cores) or paper.")
    ] = "laptop",
    depths: Annotated[
        str | None, typer.Option(help="Layers, 6n + 2 each [default: the preset's].")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0,1,2 [default: preset's].")] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps of each training [default: the preset's].")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Train on so many [default: the preset's].")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder [default: studies/degradation].")] = None,
    processes: Annotated[int, typer.Option(help="How many share the trainings.")] = 1,
    threads: Threads = None,
    device: Annotated[str, typer.Option(help="cpu, cuda[:N] or mps.")] = "cpu",
    estimate: Estimate = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Plain and residual nets of several depths, trained alike from paired seeds: do deeper nets
    have the higher training error? (He et al. 2015, sections 1 and 4.2.) What is finished is
    kept: the same command goes on after a stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give, whole_numbers
    from plusx.jobs import wording
    from plusx.jobs.degradation import estimate_degradation, study_degradation
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.science.degradation import plan_of
    from plusx.science.degradation_plot import plot

    plan = plan_of(
        preset,
        depths=whole_numbers("--depths", depths),
        seeds=whole_numbers("--seeds", seeds),
        iterations=iterations,
        train_images=images,
    )
    crew = Crew(processes, threads)
    if estimate:
        seconds = estimate_degradation(data, plan=plan, crew=crew, device=device)
        typer.echo(f"about {wording.duration(seconds)} on this machine as it is now")
        return
    folder = Path(out) if out else default_folder("degradation", None)
    result = study_degradation(data, folder, plan=plan, crew=crew, device=device, force=force)
    give(result, {"degradation": plot(result)}, folder, as_json=as_json)
