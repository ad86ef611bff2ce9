"""``plusx study paths``: one piece a length, and what they say together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.errors import UsageError
from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import paths
from plusx.science.ledger import Key
from plusx.science.paths import Gradients, Sampling
from plusx.science.paths_gradient import Tape
from plusx.science.paths_training import Training, train_effective
from plusx.science.result import Result
from plusx.science.subject import Asked, identity, opened, subset

SUM = -1
"""The piece that sums over all paths."""
TESTED = 1000
"""Images on which trained nets are compared, at most."""


def study_paths(
    asked: Asked,
    folder: Path,
    *,
    sampling: Sampling,
    train: int = 0,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Measure one net; what is finished is kept below ``folder``.

    Args:
        asked: the net and its images.
        folder: made if absent.
        sampling: how paths are drawn.
        train: also train the effective paths alone for so many steps, on the train split.
        crew: who shares the lengths.
        talk: where progress is said.

    Raises:
        UsageError: the net has no choice of paths, or there are no images to train on.
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
    result = paths.summary(found, sampling)
    return _with_training(result, asked, found, train, talk) if train else result


def _with_training(
    result: Result, asked: Asked, found: Gradients, steps: int, talk: Talk
) -> Result:
    low, high = paths.effective(paths.shares(found))
    how = Training(steps=steps, seed=asked.seed)
    training, test = replace(asked, split="train", limit=None), replace(asked, limit=TESTED)
    if opened(test)[1].split in ("train", "all"):
        raise UsageError("--train needs data with a train split and a test or val split")
    with talk.phase("training", 2 * steps) as tick:
        trained = train_effective(
            found.subject, opened(training)[1], opened(test)[1], lengths=(low, high), how=how,
            tick=lambda n: tick(n, ""),
        )  # fmt: skip
    row = {"steps": steps, "lr": how.lr, "batch": how.batch, "first_length": low,
           "last_length": high, "images": len(opened(test)[1]), **asdict(trained)}  # fmt: skip
    said = (
        f" {steps} steps of training on paths of {low} to {high} alone took the error on "
        f"{row['images']:,} images from {trained.before:.1%} to {trained.effective:.1%}, on all "
        f"paths to {trained.everything:.1%} (one seed)."
    )
    tables = {**result.tables, "training": [row]}
    return replace(result, finding=result.finding + said, tables=tables)


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
