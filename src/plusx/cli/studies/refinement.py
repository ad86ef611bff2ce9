"""``plusx study refinement``."""

from __future__ import annotations

from typing import Annotated

import typer

from plusx.cli.studies.options import AsJson, Data, Models, Nets, Split, Threads

EXAMPLES = """\b
Examples:
  plusx study refinement runs/photos-1
  plusx study refinement resnet50.pth --model resnet50 --data photos/ --split all
  plusx study refinement resnet20.th resnet56.th --model resnet20_cifar_a
      --model resnet56_cifar_a --data cifar10/ --images 2000 --processes 2
"""


def refinement(
    nets: Nets,
    data: Data = None,
    model: Models = None,
    split: Split = None,
    images: Annotated[int, typer.Option(help="At most so many images.")] = 2000,
    folds: Annotated[int, typer.Option(help="Each is answered by probes of the others.")] = 5,
    step_images: Annotated[
        int, typer.Option(help="Images for branches against gradients (0: none).")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Of images, folds, halves, intervals.")] = 0,
    out: Annotated[
        str | None, typer.Option(help="Folder [default: RUN/studies/refinement].")
    ] = None,
    processes: Annotated[int, typer.Option(help="How many share the probes.")] = 1,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """How the answer forms from block to block, and how early each image could leave the net
    (Greff et al. 2017; Jastrzebski et al. 2018). The images' classes need not be the net's. What
    is finished is kept: the same command goes on after a stop."""
    from pathlib import Path

    from plusx.cli.studies.giving import give
    from plusx.jobs.refinement import study_refinement
    from plusx.jobs.study import default_folder
    from plusx.jobs.study_pieces import Crew
    from plusx.jobs.study_subjects import asked_for
    from plusx.science.refinement import Probing
    from plusx.science.refinement_plot import draw

    probing = Probing(folds, step_images, seed)
    asked = asked_for(nets, model or [], data, limit=images, split=split, seed=seed)
    folder = Path(out) if out else default_folder("refinement", nets[0])
    result = study_refinement(asked, folder, probing=probing, crew=Crew(processes, threads))
    give(result, draw(result), folder, as_json=as_json)
