"""``plusx train --find-lr``: learning rates tried on a copy of the network; nothing is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from plusx.errors import UsageError
from plusx.evaluate.training_plots import rate_curve
from plusx.fit.criterion import recipe_criterion
from plusx.fit.range_test import STEPS, range_test
from plusx.jobs.beginning import begin, training_source
from plusx.jobs.material import gather
from plusx.jobs.options import TrainOptions
from plusx.jobs.run import run_folder, write_json, write_text
from plusx.jobs.setup import prepare
from plusx.jobs.talk import Talk
from plusx.runtime import seed_everything

PLOT, FIGURES = "find-lr.svg", "find-lr.json"


@dataclass(frozen=True)
class FoundRate:
    """What the range test suggests.

    Attributes:
        suggested: a peak learning rate.
        usual: the one that a training without it would take.
        plot: the picture.
        steps: that were tried.
    """

    suggested: float
    usual: float
    plot: str
    steps: int


def find_lr(options: TrainOptions, talk: Talk) -> FoundRate:
    """Run the range test on the training images; plot and figures stay in the run folder.

    Raises:
        PlusxError: as training would; or there is nothing to train.
        Diverged: the loss is not finite at the smallest rates.
    """
    if options.unfreeze == 0:
        raise UsageError("--find-lr tries rates of training, and --unfreeze 0 trains no block")
    seed_everything(options.seed)
    setup = prepare(options, talk)
    with run_folder(options.out, options.data, overwrite=options.overwrite, resume=False) as folder:
        cache = folder / "cache"
        cache.mkdir()
        material = gather(setup, cache, talk)
        fitted, weights = begin(setup, material, setup.listing, talk)
        train = fitted.positions["train"]
        with talk.phase("learning rates", STEPS) as tick:
            found = range_test(
                fitted.net,
                training_source(setup, material, setup.listing, train, talk),
                recipe=setup.recipe,
                hardware=setup.hardware,
                criterion=recipe_criterion(
                    setup.recipe,
                    setup.listing.task,
                    class_weights=weights,
                    taught=options.teacher is not None,
                ),
                tick=lambda n: tick(1, ""),
            )
        svg = rate_curve(found.rates, found.losses, found.smooth, found.suggested)
        write_text(folder / PLOT, svg)
        about = {"suggested": found.suggested, "usual": setup.recipe.lr, "rates": found.rates,
                 "losses": found.losses, "smooth": found.smooth}  # fmt: skip
        write_json(folder / FIGURES, about)
        shutil.rmtree(cache, ignore_errors=True)
        plot = str(Path(folder) / PLOT)
    return FoundRate(found.suggested, setup.recipe.lr, plot, len(found.rates))
