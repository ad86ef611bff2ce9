"""``plusx study gradients``: the table of nets, and trained nets beside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plusx.errors import DataError, UsageError
from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.study_subjects import data_of, named_nets
from plusx.jobs.talk import Talk
from plusx.science import gradients
from plusx.science.cifar import Part, SmallImages, load_small_images, sample_images
from plusx.science.gradients import GradientPlan, measure
from plusx.science.gradients_responses import responses
from plusx.science.gradients_result import Measured, Trained, result
from plusx.science.gradients_shattering import shattering
from plusx.science.ledger import Key
from plusx.science.result import Result
from plusx.science.subject import Subject, open_subject

LAYERS = (2, 4, 10, 24, 50)
"""Of the nets on a line: 24 and 50 are those of Balduzzi et al. 2017, figure 1."""

IMAGES = 256
"""That a trained net is shown."""


@dataclass
class Meter:
    """Measures one net; goes to other processes as it is."""

    plan: GradientPlan
    sources: tuple[str, ...]
    _data: SmallImages | None = field(default=None, repr=False)

    def data(self) -> SmallImages:
        """Read at the first use; noise where there is no source."""
        if self._data is None:
            found = load_small_images(self.sources) if self.sources else noise(self.plan.images)
            self._data = found
        return self._data

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_data": None}

    def __call__(self, key: Key, tick: Callable[[int], None]) -> Any:
        """See ``plusx.science.gradients.measure_one``."""
        depth = key["depth"]
        return gradients.measure_one(
            self.plan, self.data(), key, tick=lambda images: tick(images * depth)
        )


def noise(n: int) -> SmallImages:
    """Random pixels of ten random classes, from a fixed seed."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 3, 32, 32), generator=rng, dtype=torch.uint8)
    part = Part(pixels, torch.randint(0, 10, (n,), generator=rng))
    flat = pixels.permute(1, 0, 2, 3).reshape(3, -1).float()
    return SmallImages(tuple("0123456789"), part, part, flat.mean(1), flat.std(1))


def label(key: Key) -> str:
    """``residual-56, no norm, he, seed 0``."""
    norm = "BatchNorm" if key["norm"] == "batch" else "no norm"
    return f"{key['shortcut']}-{key['depth']}, {norm}, {key['init']}, seed {key['seed']}"


def study_gradients(
    nets: Sequence[str | os.PathLike[str]],
    data: Sequence[str | os.PathLike[str]],
    folder: Path,
    *,
    models: Sequence[str] = (),
    plan: GradientPlan | None = None,
    table: bool = True,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Measure the table of nets, the nets on a line, and trained nets.

    Args:
        nets: runs, model folders, weights files.
        data: images; without any the table is measured on noise, at initialisation alone, and a
            run on its own images.
        folder: finished pieces are kept below it.
        models: names of the networks of those that are weights files, or one for all.
        plan: of the table.
        table: False measures the nets alone.
        crew: who works.
        talk: progress.

    Raises:
        UsageError: neither a table nor a net, or a net whose images are unknown.
        PlusxError: a net or the images cannot be read.
    """
    plan, talk = plan or GradientPlan(), talk or Talk()
    sources = tuple(os.fspath(source) for source in data)
    if not nets and not table:
        raise UsageError("there is nothing to measure: name a run, or leave --no-table out")
    asked = named_nets([os.fspath(net) for net in nets], models)
    found = [_looked_at(what, model, sources) for what, model in asked]
    if not table:
        return result(plan, Measured(trained=found))
    if not sources:
        plan = GradientPlan(plan.depths, plan.seeds, plan.images, 0, plan.points, plan.lr)
    meter = Meter(plan, sources)
    meter.data()  # bad images are told at once
    keys = gradients.keys(plan)
    pieces = Pieces(
        {"study": "gradients", "data": list(sources), **plan.to_dict()},
        keys, [_cost(plan, key) for key in keys], label, meter,
    )  # fmt: skip
    values = work_off(pieces, folder / "pieces", crew or Crew(), talk)
    shattered = shattering(LAYERS, plan.seeds)
    return result(plan, Measured(values, shattered, found, noise=not sources))


def _cost(plan: GradientPlan, key: Key) -> int:
    trained = plan.steps * 32 if key["depth"] == min(plan.depths) else 0
    return int(key["depth"] * (plan.images + trained))


def _looked_at(what: str, model: str | None, sources: Sequence[str]) -> Trained:
    subject = open_subject(what, model=model)
    images, names = sample_images(sources or [data_of(what)], subject.preprocessing, IMAGES)
    net = subject.model.requires_grad_(True)  # gradients by block need a graph
    norms = measure(net, images, _targets(names, subject))
    called = subject.name if model else Path(what).name
    return Trained(called, responses(net, images), norms)


def _targets(names: Sequence[str], subject: Subject) -> Tensor:
    """By name; where the weights name no classes, by order, if there are as many."""
    known = list(subject.classes) if subject.classes is not None else sorted(set(names))
    if len(known) != subject.model.spec.classes:
        raise DataError(
            f"{subject.origin}: tells {subject.model.spec.classes} classes apart and --data shows "
            f"{len(known)}; give images of its own classes"
        )
    if strange := sorted(set(names) - set(known)):
        raise DataError(f"{subject.origin}: has no class {strange[0]!r}, which --data shows")
    return torch.tensor([known.index(name) for name in names])
