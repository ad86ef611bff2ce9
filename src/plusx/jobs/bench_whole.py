"""The whole way, from image files to answers: read, decode, preprocess, classify."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plusx.data import BadImage, Sample, load_batches, plain_reader
from plusx.errors import DataError
from plusx.jobs.bench_engines import Run
from plusx.jobs.bench_subjects import Subject
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count


@dataclass(frozen=True)
class Whole:
    """Images read and classified once.

    Attributes:
        name: of the network.
        engine, precision, batch: how it ran.
        images: that could be read.
        seconds: for all of them.
        bad: those that could not.
    """

    name: str
    engine: str
    precision: str
    batch: int
    images: int
    seconds: float
    bad: tuple[BadImage, ...]

    @property
    def per_s(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "engine": self.engine,
            "precision": self.precision,
            "batch": self.batch,
            "images": self.images,
            "images_per_s": self.per_s,
            "bad": {item.path: item.reason for item in self.bad},
        }


def whole_way(
    subject: Subject,
    how: tuple[str, str],
    run: Run,
    samples: Sequence[Sample],
    batch: int,
    talk: Talk,
) -> Whole:
    """Classify the images once, and time it.

    Args:
        subject: the network.
        how: engine and precision.
        run: the network on that engine.
        samples: the images.
        batch: images a batch.
        talk: where progress is said.

    Raises:
        DataError: none of the images can be read.
    """
    preprocessing = subject.preprocessing()
    assert preprocessing is not None  # only of networks and runs is this asked
    bad: list[BadImage] = []
    read = plain_reader(preprocessing)
    images = 0
    with talk.phase("end to end", len(samples)) as tick:
        began = time.perf_counter()
        for found in load_batches(samples, read, batch_size=batch, threads=cpu_count()):
            if len(found.images):
                run(found.images.numpy())
            images += len(found.images)
            bad += found.bad
            tick(len(found.images) + len(found.bad), f"{subject.name} {how[0]} {how[1]}")
        seconds = time.perf_counter() - began
    if not images:
        raise DataError(f"none of the {len(samples)} images can be read: {bad[0].reason}")
    return Whole(subject.name, *how, batch, images, seconds, tuple(bad))
