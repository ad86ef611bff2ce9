"""``plusx study lesion``: its pieces, and what they say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import lesion
from plusx.science.ledger import Key
from plusx.science.lesion import Lesions
from plusx.science.lesion_plans import Line
from plusx.science.result import Result
from plusx.science.subject import Asked, identity, opened


def study_lesion(
    asked: Sequence[Asked],
    folder: Path,
    *,
    which: Lesions,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Lesion every net; what is finished is kept below ``folder``.

    Raises:
        UsageError: a net without a block that can be removed.
        DataError: images that cannot be used.
    """
    talk, crew = talk or Talk(), crew or Crew()
    found = []
    for one in asked:
        subject, images = opened(one)
        for note in subject.notes:
            talk.note(note)
        line = Line(subject.model)
        study = {"study": "lesion", **_settings(which), **identity(subject, images)}
        starts = list(lesion.starts(images))
        ends = [min(at + lesion.PIECE, len(images)) for at in starts]
        costs = [lesion.cost(line, which, n) for n in ends]
        pieces = Pieces(
            study=study,
            keys=[{"at": at} for at in starts],
            costs=[after - before for after, before in zip(costs, [0, *costs], strict=False)],
            label=partial(_label, subject.name),
            do=partial(_do, one, which),
        )
        values = work_off(pieces, folder / "pieces", crew, talk)
        found.append(lesion.collect(subject, images, values, which=which))
    return lesion.summary(found, which)


def estimate_lesion(asked: Sequence[Asked], *, which: Lesions, crew: Crew) -> float:
    """Seconds that the study takes, from one net's speed on its first images."""
    total = 0.0
    for one in asked:
        subject, images = opened(one)
        torch.set_num_threads(crew.threads_each())
        rate = lesion.speed(subject, images)
        total += lesion.cost(Line(subject.model), which, len(images)) / rate / crew.processes
    return total


def _do(asked: Asked, which: Lesions, key: Key, tick: Callable[[int], None]) -> Any:
    subject, images = opened(asked)
    value = lesion.piece(subject, images, which=which, at=int(key["at"]))
    tick(0)
    return value


def _label(name: str, key: Key) -> str:
    return f"{name}, images from {key['at']}"


def _settings(which: Lesions) -> dict[str, Any]:
    return dict(vars(which))
