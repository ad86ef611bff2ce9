"""``plusx study landscape``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Data, Estimate, Force, Models, Nets, Split, Threads

EXAMPLES = """\b
Examples:
  plusx study landscape runs/photos-1 --estimate
  plusx study landscape runs/plain runs/residual --data cifar10/ --images 1000 --processes 2
  plusx study landscape resnet56.th --model resnet56_cifar_a --data cifar10/ --line
  plusx study landscape nets/r20/model --data cifar10/ --path nets/r20/epochs
  plusx study landscape runs/photos-1 --grid 25 --curvature 5
"""


def landscape(
    nets: Nets,
    data: Data = None,
    model: Models = None,
    split: Split = None,
    images: Annotated[int, typer.Option(help="At most so many images.")] = 1000,
    grid: Annotated[int, typer.Option(help="Points along each direction.")] = 51,
    extent: Annotated[float, typer.Option(help="From -EXTENT to EXTENT.")] = 1.0,
    line: Annotated[bool, typer.Option("--line", help="One direction in place of two.")] = False,
    path: Annotated[
        list[str] | None,
        typer.Option(help="Checkpoints of the net's training; their plane is drawn."),
    ] = None,
    curvature: Annotated[
        int, typer.Option(help="Points a side of a map of the Hessian's eigenvalues (0: none).")
    ] = 0,
    curvature_images: Annotated[int, typer.Option(help="Images for that map.")] = 128,
    seed: Annotated[int, typer.Option(help="Of directions and images.")] = 0,
    out: Annotated[
        str | None, typer.Option(help="Folder [default: RUN/studies/landscape].")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many share the rows.")] = 1,
    threads: Threads = None,
    estimate: Estimate = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """The loss about trained nets, on random directions or those of their training (Li et al.
    2018). What is finished is kept: the same command goes on after a stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give
    from plusx.errors import UsageError
    from plusx.jobs import wording
    from plusx.jobs.landscape import (
        Plan,
        checkpoints_in,
        estimate_landscape,
        study_landscape,
    )
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.jobs.study_subjects import asked_for
    from plusx.science.landscape import Grid
    from plusx.science.landscape_plot import draw

    if path and (len(nets) > 1 or line):
        raise UsageError("--path draws one net's training on a plane; give one net, without --line")
    asked = asked_for(nets, model or [], data, limit=images, split=split, seed=seed)
    plan = Plan(
        Grid(grid, extent, not line, seed), checkpoints_in(path or []), curvature,
        curvature_images, force,
    )  # fmt: skip
    crew = Crew(processes, threads)
    if estimate:
        seconds = estimate_landscape(asked, plan=plan, crew=crew)
        typer.echo(f"about {wording.duration(seconds)} on this machine as it is now")
        return
    folder = Path(out) if out else default_folder("landscape", nets[0])
    result = study_landscape(asked, folder, plan=plan, crew=crew)
    give(result, draw(result), folder, as_json=as_json)
