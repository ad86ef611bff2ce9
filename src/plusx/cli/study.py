"""``plusx study NAME``: one module a study below ``plusx.cli.studies``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from plusx.cli.studies import (
    batchnorm,
    degradation,
    field,
    gradients,
    landscape,
    lesion,
    paths,
    refinement,
)

study = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Why residual networks work: the experiments of the papers, on their nets and on yours.",
    epilog="plusx study NAME --help has examples",
)

STUDIES: dict[str, tuple[Callable[..., None], str, str]] = {
    "degradation": (
        degradation.degradation,
        "Do deeper nets train worse without shortcuts?",
        degradation.EXAMPLES,
    ),
    "batchnorm": (
        batchnorm.batchnorm,
        "How many images a step does BatchNorm need?",
        batchnorm.EXAMPLES,
    ),
    "gradients": (
        gradients.gradients,
        "Which nets' gradients vanish, explode, stay level?",
        gradients.EXAMPLES,
    ),
    "field": (field.field, "How much of the image a unit looks at.", field.EXAMPLES),
    "landscape": (landscape.landscape, "The loss about a trained net.", landscape.EXAMPLES),
    "lesion": (lesion.lesion, "Remove blocks, swap blocks.", lesion.EXAMPLES),
    "paths": (paths.paths, "Paths by length, and their gradients.", paths.EXAMPLES),
    "refinement": (
        refinement.refinement,
        "How the answer forms block by block.",
        refinement.EXAMPLES,
    ),
}
"""Each study: what runs, one line of help, examples."""

for _name, (_run, _help, _examples) in STUDIES.items():
    study.command(_name, short_help=_help, epilog=_examples)(_run)
