"""``plusx study gradients``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Models, Threads

EXAMPLES = """\b
Examples:
  plusx study gradients
  plusx study gradients --data cifar10/ --depths 20,56,110
  plusx study gradients runs/photos-1 --no-table
  plusx study gradients resnet56.th --model resnet56_cifar_a --data cifar10/ --no-table
"""


def gradients(
    nets: Annotated[
        list[str] | None,
        typer.Argument(help="Trained nets to look at, too: runs, model folders, weights files."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder, manifest, or tar file of images; may be given again [default: a run's "
            "own; noise for the table]."
        ),
    ] = None,
    model: Models = None,
    depths: Annotated[str, typer.Option(help="Layers of the table's nets, 6n + 2.")] = "20,56",
    seeds: Annotated[str, typer.Option(help="Of every net of the table.")] = "0,1,2,3,4",
    images: Annotated[int, typer.Option(help="That a measurement takes.")] = 32,
    steps: Annotated[int, typer.Option(help="Of training, with --data; the shallowest nets.")] = 60,
    table: Annotated[
        bool, typer.Option("--table/--no-table", help="Measure the table of nets, too.")
    ] = True,
    out: Annotated[
        str | None, typer.Option(help="Folder [default: RUN/studies/ or studies/gradients].")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many share the nets.")] = 1,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Gradient and activation norms by depth: shortcut x BatchNorm x initialisation, at the start
    and along training; how much each block of a trained net changes (He et al. 2015, figure 7);
    shattered gradients (Balduzzi et al. 2017)."""
    from pathlib import Path

    from plusx.cli.studies.giving import give, whole_numbers
    from plusx.jobs.gradients import study_gradients
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.science.gradients import GradientPlan
    from plusx.science.gradients_plot import plots

    plan = GradientPlan(
        depths=whole_numbers("--depths", depths) or (),
        seeds=whole_numbers("--seeds", seeds) or (),
        images=images,
        steps=steps,
    )
    folder = Path(out) if out else default_folder("gradients", nets[0] if nets else None)
    result = study_gradients(
        nets or [], data or [], folder, models=model or [], plan=plan, table=table,
        crew=Crew(processes, threads),
    )  # fmt: skip
    give(result, plots(result), folder, as_json=as_json)
