"""``plusx compare DATA --with ... --dry-run``: how long it would take, from a few images."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from plusx.data import load_batches, plain_reader
from plusx.jobs.contest_options import ContestOptions
from plusx.jobs.contest_plan import Plan, make_plan
from plusx.jobs.contest_shift import KINDS
from plusx.jobs.estimate import step_seconds
from plusx.jobs.talk import Talk

FEW = 16


@dataclass(frozen=True)
class ContestEstimate:
    """What a comparison would take on this machine.

    Attributes:
        seconds: contestant -> of its trials, trainings and scoring.
        trainings: of all contestants, trials included.
        epochs: of a training that counts.
    """

    seconds: dict[str, float]
    trainings: int
    epochs: int

    @property
    def total_seconds(self) -> float:
        """Of all contestants."""
        return sum(self.seconds.values())


def estimate_contest(
    data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any
) -> ContestEstimate:
    """Run a few images and one training step of each contestant, and multiply.

    Raises:
        PlusxError: as ``contest`` would.
    """
    asked, talk = ContestOptions.of(data, **options), talk or Talk()
    plan = make_plan(asked, talk)
    with talk.phase("measuring"):
        image = _image_seconds(plan)
        seconds = {}
        for entrant in plan.entrants:
            setup = plan.setup(entrant, entrant.build(asked.seed), lr=1e-3, epochs=1,
                               seed=asked.seed, talk=talk)  # fmt: skip
            step, _ = step_seconds(setup)
            cached = setup.unfreeze is not None
            seconds[entrant.name] = _multiply(plan, step, image, cached=cached)
    each = asked.trials + asked.seeds
    return ContestEstimate(seconds, each * len(plan.entrants), plan.epochs)


def _multiply(plan: Plan, step: float, image: float, *, cached: bool) -> float:
    """Seconds of one contestant, where an image takes ``step`` to learn from and ``image`` to
    decode; behind a frozen trunk it is decoded a few times in all."""
    options = plan.options
    train, val, test = (len(plan.listing.part(split)) for split in ("train", "val", "test"))
    epochs = options.trials * options.trial_epochs + options.seeds * plan.epochs
    forward = step / 3
    decoded = min(epochs, 4) if cached else epochs
    learning = epochs * (train * step + val * forward) + decoded * (train + val) * image
    scored = test + len(plan.shift) * len(KINDS)
    return learning + options.seeds * scored * (forward + image)


def _image_seconds(plan: Plan) -> float:
    samples = plan.listing.samples
    few = samples[:: max(1, len(samples) // FEW)][:FEW]
    read = plain_reader(plan.entrants[0].preprocessing)
    started = time.perf_counter()
    for _ in load_batches(few, read, batch_size=FEW, threads=plan.threads):
        pass
    return (time.perf_counter() - started) / len(few)
