"""What a data set is made of: samples, a listing of them, and the batches the loader yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Task = Literal["single", "multi"]

Targets = NDArray[np.int64] | NDArray[np.bool_]
"""(n,) int64 for task ``single``, (n, K) bool for task ``multi``."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as listed.

    Attributes:
        path: the image file.
        target: position in ``Listing.classes``; for task ``multi`` the sorted positions of all
            its classes, ``()`` where it has none of them. None when unlabelled.
        split: ``train``, ``val`` or ``test``; None where the source says nothing.
        group: images of one group (a patient, a scene) must stay on one side of a split.
    """

    path: str
    target: int | tuple[int, ...] | None
    split: str | None = None
    group: str | None = None

    @property
    def targets(self) -> tuple[int, ...]:
        """Positions of its classes, whatever the task; ``()`` for none of them or unlabelled."""
        if self.target is None:
            return ()
        return self.target if isinstance(self.target, tuple) else (self.target,)


@dataclass(frozen=True)
class Listing:
    """What a folder or manifest says.

    Attributes:
        root: the folder that relative names refer to.
        classes: class names, sorted by name.
        samples: the images, sorted by path (folder) or in the order of the rows (manifest).
        task: one label an image (``single``) or several (``multi``).
        ignored: how many files or rows were left out because they are not images or say the
            same thing twice.
        unlabelled: how many rows were left out because nobody has said what they show.
        source: the folder or file that was read, as errors name it; by default ``root``.
        by_column: the labels stood in a column of 0 and 1 for each class.
    """

    root: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single"
    ignored: int = 0
    unlabelled: int = 0
    source: str = ""
    by_column: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.source or self.root)

    def part(self, split: str) -> tuple[Sample, ...]:
        """The samples of one split, in listing order; empty where there is none."""
        return tuple(sample for sample in self.samples if sample.split == split)


def groups_of(samples: Sequence[Sample]) -> tuple[str, ...] | None:
    """The group of each sample, a path where it has none; None where no sample has one."""
    if all(sample.group is None for sample in samples):
        return None
    return tuple(sample.group or sample.path for sample in samples)


def target_array(samples: Sequence[Sample], classes: int, task: Task) -> Targets:
    """What the samples show: (n,) int64, -1 where unlabelled (single); (n, K) bool (multi)."""
    if task == "single":
        numbers = [sample.targets[0] if sample.targets else -1 for sample in samples]
        return np.array(numbers, np.int64)
    marks = np.zeros((len(samples), classes), dtype=np.bool_)
    for row, sample in zip(marks, samples, strict=True):
        row[list(sample.targets)] = True
    return marks


@dataclass(frozen=True, slots=True)
class BadImage:
    """An image that cannot be used, and why, in a few words."""

    path: str
    reason: str


@dataclass
class Batch:
    """What the loader yields.

    Attributes:
        images: (N, C, H, W) float32; N is smaller than the batch size where images are bad,
            and may be 0.
        index: (N,) int64, position in the sequence of samples given to the loader.
        bad: those left out of this batch.
    """

    images: torch.Tensor
    index: torch.Tensor
    bad: list[BadImage]
