"""``plusx study paths``: one piece a length, and what they say together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import paths
from plusx.science.ledger import Key
from plusx.science.paths import Gradients, Sampling
from plusx.science.paths_gradient import Tape
from plusx.science.result import Result
from plusx.science.subject import Asked, identity, opened, subset

SUM = -1
"""The piece that sums over all paths."""


def study_paths(
    asked: Asked,
    folder: Path,
    *,
    sampling: Sampling,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Measure one net; what is finished is kept below ``folder``.

    Raises:
        UsageError: the net has no choice of paths.
        DataError: images that cannot be used.
    """
    subject, images = opened(asked)
    blocks = paths.blocks_of(subject)
    talk = talk or Talk()
    for note in subject.notes:
        talk.note(note)
    some = subset(images, sampling.images)
    lengths = [*range(blocks + 1), SUM]
    pieces = Pieces(
        study={"study": "paths", **asdict(sampling), **identity(subject, some)},
        keys=[{"length": length} for length in lengths],
        costs=[_cost(blocks, length, sampling) for length in lengths],
        label=partial(_label, subject.name),
        do=partial(_do, asked, sampling),
    )
    *sampled, (exact, whole) = work_off(pieces, folder / "pieces", crew or Crew(), talk)
    found = Gradients(
        subject, some, [np.array(norms) for norms in sampled], np.array(exact), np.array(whole)
    )
    return paths.summary(found, sampling)


def estimate_paths(asked: Asked, *, sampling: Sampling, crew: Crew) -> float:
    """Seconds that the study takes, from the longest path."""
    subject, _ = opened(asked)
    torch.set_num_threads(crew.threads_each())
    tape = _tape(asked, sampling)
    began = time.perf_counter()
    paths.along(tape, len(tape), sampling)
    spent = time.perf_counter() - began
    blocks = paths.blocks_of(subject)
    total = sum(_cost(blocks, length, sampling) for length in (*range(blocks + 1), SUM))
    return spent / blocks * total / crew.processes


@functools.lru_cache(maxsize=1)
def _tape(asked: Asked, sampling: Sampling) -> Tape:
    return paths.tape_of(*opened(asked), sampling)


def _do(asked: Asked, sampling: Sampling, key: Key, tick: Callable[[int], None]) -> Any:
    tape = _tape(asked, sampling)
    tick(0)
    if key["length"] == SUM:
        exact, whole = paths.together(tape)
        return [exact.tolist(), whole.tolist()]
    return paths.along(tape, int(key["length"]), sampling).tolist()


def _cost(blocks: int, length: int, sampling: Sampling) -> int:
    """In branches gone through backwards."""
    if length == SUM:
        return blocks * (blocks + 1) // 2
    return max(1, length * len(paths.draw_paths(blocks, length, draws=sampling.draws, seed=0)))


def _label(name: str, key: Key) -> str:
    return f"{name}, " + ("all paths" if key["length"] == SUM else f"length {key['length']}")
