"""``plusx study batchnorm``: the trainings, kept one by one, and what they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import batchnorm
from plusx.science.batchnorm import NormPlan
from plusx.science.cifar import SmallImages, load_small_images
from plusx.science.ledger import Key
from plusx.science.result import Result

STEP = 40
"""What a step costs beside its images, in images: small batches wait for Python."""


@dataclass
class NormTrainer:
    """Does one training; goes to other processes as it is."""

    plan: NormPlan
    sources: tuple[str, ...]
    folder: Path
    _data: SmallImages | None = field(default=None, repr=False)

    def data(self) -> SmallImages:
        """Read at the first use, once a process."""
        if self._data is None:
            self._data = load_small_images(self.sources)
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def __call__(self, key: Key, tick: Callable[[int], None]) -> Any:
        """See ``plusx.science.batchnorm``."""

        def step(images: int) -> None:
            tick(images + STEP)

        do = batchnorm.train_start if key["mode"] == "start" else batchnorm.train_one
        return do(self.plan, self.data(), key, tick=step, folder=self.folder / "starts")


def label(key: Key) -> str:
    """``scratch, group, batch 4, seed 0``."""
    batch = f", batch {key['batch']}" if "batch" in key else ""
    return f"{key['mode']}, {key['norm']}{batch}, seed {key['seed']}"


def study_batchnorm(
    data: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    plan: NormPlan | None = None,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Train what the plan says; trainings that are finished below ``folder`` are not repeated.

    Fine-tuning goes from half of the classes to the other half; with fewer than four classes it
    is left out, and a note says so.

    Raises:
        DataError: the images cannot be used.
        ArtifactError: something in ``folder`` is damaged or cannot be written.
    """
    plan, crew, talk = plan or NormPlan(), crew or Crew(), talk or Talk()
    sources = tuple(os.fspath(source) for source in data)
    trainer = NormTrainer(plan, sources, folder)
    classes, left_out = len(trainer.data().classes), ""
    if classes < 4 and "fine-tune" in plan.modes:
        left_out = f"no fine-tuning: it needs four classes, and the images show {classes}"
        plan = replace(plan, modes=("scratch",))
        trainer.plan = plan
    common = {k: v for k, v in plan.to_dict().items() if k not in ("batches", "seeds", "modes")}
    common |= {"data": list(sources), "study": "batchnorm"}
    given = []
    for keys in (batchnorm.start_keys(plan), batchnorm.keys(plan)):
        costs = [_cost(plan, key) for key in keys]
        pieces = Pieces(common, keys, costs, label, trainer)
        given.append(work_off(pieces, folder / "pieces", crew, talk))
    found = batchnorm.result(plan, given[0], given[1])
    return replace(found, notes=[*found.notes, left_out]) if left_out else found


def _cost(plan: NormPlan, key: Key) -> int:
    batch = key.get("batch", 64)
    epochs = plan.epochs * (2 if key["mode"] == "start" else 1)
    return int(epochs * plan.images * (1 + STEP / batch))
