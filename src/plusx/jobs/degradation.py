"""``plusx study degradation``: the trainings, kept one by one, and what they say."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from plusx.data import Preprocessing
from plusx.errors import UsageError
from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.runtime import resolve_device
from plusx.science import degradation
from plusx.science.cifar import SIDE, SmallImages, load_small_images
from plusx.science.degradation import Plan
from plusx.science.degradation_result import result
from plusx.science.ledger import Key
from plusx.science.result import Result
from plusx.science.small_training import Course, Schedule, Watch, seeded, train
from plusx.weights import save_artifact

PACE = 12_000
"""Layers times images that a core trains in a second (ResNet-20 and -56, bfloat16, Zen 4)."""

LONG_S = 86_400
"""Longer than this is not begun unasked."""

MEASURED = 4
"""Steps of each net that an estimate times."""


@dataclass
class Trainer:
    """Does one training and keeps its net as a model folder; goes to other processes as it is."""

    plan: Plan
    sources: tuple[str, ...]
    folder: Path
    device: str = "cpu"
    _data: SmallImages | None = field(default=None, repr=False)

    def data(self) -> SmallImages:
        """Read at the first use, once a process."""
        if self._data is None:
            self._data = load_small_images(self.sources)
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def __call__(self, key: Key, tick: Callable[[int], None]) -> Any:
        """See ``plusx.science.degradation.train_one``."""
        name = label(key).replace(", ", "-").replace(" ", "")
        data, depth = self.data(), key["depth"]
        value, net = degradation.train_one(
            self.plan, data, key,
            tick=lambda images: tick(images * depth),
            checkpoint=self.folder / "underway" / f"{name}.pt",
            device=self.device,
        )  # fmt: skip
        mean, std = ([float(v) / 255 for v in values] for values in (data.mean, data.std))
        usual = Preprocessing(SIDE, SIDE, mean=tuple(mean), std=tuple(std))
        save_artifact(
            self.folder / "nets" / name, net.cpu(), classes=data.classes, preprocessing=usual,
            provenance={"study": "degradation", **self.plan.to_dict(), **key},
            card=f"{name}, trained by `plusx study degradation`.\n",
        )  # fmt: skip
        return value


def label(key: Key) -> str:
    """``plain-56, seed 0``."""
    return f"{key['kind']}-{key['depth']}, seed {key['seed']}"


def study_degradation(
    data: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    plan: Plan = degradation.LAPTOP,
    crew: Crew | None = None,
    device: str = "cpu",
    force: bool = False,
    talk: Talk | None = None,
) -> Result:
    """Train what the plan says; trainings that are finished below ``folder`` are not repeated.

    Args:
        data: see ``plusx.science.cifar.load_small_images``.
        folder: for everything that is kept.
        plan: what is trained.
        crew: who works.
        device: where.
        force: begin on a CPU what would take it days.
        talk: progress.

    Raises:
        UsageError: it would take a CPU days, or there is no such device.
        DataError: the images cannot be used.
        ArtifactError: something in ``folder`` is damaged or cannot be written.
    """
    crew = crew or Crew()
    if resolve_device(device).type == "cpu" and not force:
        _refuse_days(plan, crew)
    sources = tuple(os.fspath(source) for source in data)
    trainer = Trainer(plan, sources, folder, device)
    classes = trainer.data().classes
    keys = degradation.keys(plan)
    # Seeds are left out, so that a study of more seeds takes the trainings that are there.
    common = {k: v for k, v in plan.to_dict().items() if k != "seeds"}
    common |= {"data": list(sources), "study": "degradation"}
    pieces = Pieces(common, keys, [degradation.cost(plan, key) for key in keys], label, trainer)
    values = work_off(pieces, folder / "pieces", crew, talk or Talk())
    return result(plan, values, classes)


def _refuse_days(plan: Plan, crew: Crew) -> None:
    total = sum(degradation.cost(plan, key) for key in degradation.keys(plan))
    seconds = total / (PACE * crew.processes * crew.threads_each())
    if seconds > LONG_S:
        raise UsageError(
            f"--preset {plan.preset} with depths {', '.join(map(str, plan.depths))} would take "
            f"about {seconds / LONG_S:.0f} days on this CPU; give --device cuda, fewer --depths, "
            "--seeds or --iterations, or --force"
        )


def estimate_degradation(
    data: Sequence[str | os.PathLike[str]],
    *,
    plan: Plan = degradation.LAPTOP,
    crew: Crew | None = None,
    device: str = "cpu",
) -> float:
    """Seconds that all of it would take on this machine as it is now, from a few steps of each net.

    Processes are taken to be as fast as one alone, which holds while each has cores of its own.
    """
    import torch

    crew = crew or Crew()
    torch.set_num_threads(crew.threads_each())
    images = load_small_images([os.fspath(source) for source in data])
    seconds = 0.0
    for key in degradation.keys(plan):
        if key["seed"] == plan.seeds[0]:
            seconds += len(plan.seeds) * _training_seconds(plan, images, key, device)
    return seconds / min(crew.processes, len(degradation.keys(plan)))


def _training_seconds(plan: Plan, images: SmallImages, key: Key, device: str) -> float:
    from plusx.model import ResNet

    spec = degradation.spec_of(key["kind"], key["depth"], len(images.classes))
    net = seeded(partial(ResNet, spec), key["seed"]).to(device)
    asked = degradation.schedule_of(plan, key["depth"])
    few = images.at_most(asked.batch_size, 1)
    times = []
    for steps in (1, 1 + MEASURED):
        schedule = Schedule(steps, asked.batch_size, lr=1e-3)
        began = time.perf_counter()
        train(net, few, Course(schedule, Watch(steps, 1), key["seed"]))
        times.append(time.perf_counter() - began)
    step = max(1e-6, (times[1] - times[0]) / MEASURED)
    trained = len(images.train) if plan.train_images is None else plan.train_images
    seen = 2 * plan.points * plan.seen + trained + len(images.test)
    # a forward pass takes a third of a step's time
    return step * (asked.iterations + seen / (3 * asked.batch_size))
