"""What a data set is made of: samples, a listing of them, and the batches the loader yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Task = Literal["single", "multi"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as listed.

    Attributes:
        path: the image file.
        target: position in ``Listing.classes``; None when unlabelled.
        split: ``train``, ``val`` or ``test``; None where the source says nothing.
        group: images of one group (a patient, a scene) must stay on one side of a split.
    """

    path: str
    target: int | None
    split: str | None = None
    group: str | None = None


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
        source: the folder or file that was read, as errors name it; by default ``root``.
    """

    root: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    task: Task = "single"
    ignored: int = 0
    source: str = ""

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
        targets: (N,) int64, -1 where unlabelled.
        index: (N,) int64, position in the sequence of samples given to the loader.
        bad: those left out of this batch.
    """

    images: torch.Tensor
    targets: torch.Tensor
    index: torch.Tensor
    bad: list[BadImage]
