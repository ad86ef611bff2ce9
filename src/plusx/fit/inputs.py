"""Where the loop's batches come from: activations on disk, or images read anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from plusx.data import (
    Augmentation,
    BadImage,
    Preprocessing,
    Sample,
    epoch_order,
    load_batches,
    plain_reader,
    view_rng,
)
from plusx.data.loader import decode
from plusx.data.records import Targets
from plusx.fit.trunk import ActivationStore, Rows
from plusx.runtime import World

Inputs = tuple[Tensor, ...]
Step = tuple[Inputs, Tensor, Rows]
"""What the net takes, targets (N,) int64 or (N, K) bool, and the positions (N,) of the images in
the set."""


@dataclass(frozen=True)
class Feed:
    """How a set is dealt out.

    Attributes:
        batch_size: images per step.
        threads: for decoding.
        seed: of order and augmentation.
        world: which share of an epoch is this process's.
    """

    batch_size: int
    threads: int
    seed: int
    world: World = field(default_factory=World)

    def order(self, n: int, epoch: int) -> Rows:
        """This process's positions of a shuffled epoch over n images, in ``steps(n)`` batches."""
        world = self.world
        order = epoch_order(n, seed=self.seed, epoch=epoch, rank=world.rank, world_size=world.size)
        return order[: self.steps(n) * self.batch_size]

    def steps(self, n: int) -> int:
        """Whole batches of an epoch over n images, at least one; the same for every process."""
        return max(1, n // self.world.size // self.batch_size)


class Source(Protocol):
    """One set of images as the network takes them."""

    @property
    def images(self) -> int:
        """Number of images."""
        ...

    def shuffled(self, epoch: int) -> Iterator[Step]:
        """This process's share of one shuffled epoch, in whole batches if there is one."""
        ...

    def ordered(self) -> Iterator[Step]:
        """Every image once, in order, without augmentation."""
        ...


class CachedViews:
    """Trunk activations from an ``ActivationStore``; epoch e shows view (e + i) mod V of image i.

    Args:
        store: holds the activations.
        rows: (V, n) row of each view of each image; view 0 is the one without augmentation.
        targets: (n,) int64 or (n, K) bool.
        feed: how they are dealt out.
    """

    def __init__(self, store: ActivationStore, rows: Rows, targets: Targets, *, feed: Feed) -> None:
        self._store, self._rows, self._feed = store, rows, feed
        self._targets = torch.from_numpy(targets)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._targets)

    def shuffled(self, epoch: int) -> Iterator[Step]:
        """See ``Source``."""
        order = self._feed.order(self.images, epoch)
        view = (epoch + order) % len(self._rows)
        yield from self._steps(order, self._rows[view, order])

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        yield from self._steps(np.arange(self.images), self._rows[0])

    def _steps(self, index: Rows, rows: Rows) -> Iterator[Step]:
        for start in range(0, len(index), self._feed.batch_size):
            part = slice(start, start + self._feed.batch_size)
            yield self._store.read(rows[part]), self._targets[index[part]], index[part]


class StreamedImages:
    """Images decoded anew each epoch; through the frozen trunk, if there is one.

    Args:
        samples: n labelled images.
        preprocessing: of ``ordered``, and the end of every augmentation.
        targets: (n,) int64 or (n, K) bool.
        augmentation: of ``shuffled``; each view depends on (seed, epoch, image) alone.
        feed: how they are dealt out.
        trunk: images -> what the net takes; the images themselves where it is absent.
        names: (n,) whole numbers from which each image's views are drawn; by default its position.
        on_bad: told of images that could be read before and cannot now.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        targets: Targets,
        augmentation: Augmentation,
        feed: Feed,
        trunk: Callable[[Tensor], Inputs] | None = None,
        names: Sequence[int] | None = None,
        on_bad: Callable[[Sequence[BadImage]], None],
    ) -> None:
        self._samples, self._preprocessing = samples, preprocessing
        self._targets = torch.from_numpy(targets)
        self._augmentation, self._feed = augmentation, feed
        self._trunk, self._on_bad = trunk, on_bad
        self._names = range(len(samples)) if names is None else names

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._samples)

    def shuffled(self, epoch: int) -> Iterator[Step]:
        """See ``Source``."""
        order = self._feed.order(self.images, epoch)
        yield from self._read(order, self._augmented(epoch, order))

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        yield from self._read(np.arange(self.images), plain_reader(self._preprocessing))

    def view(self, number: int) -> Iterator[Step]:
        """Every image once, in order, as augmented view ``number``."""
        order = np.arange(self.images)
        yield from self._read(order, self._augmented(number, order))

    def _augmented(self, number: int, order: Rows) -> Callable[[Sample, int], Tensor]:
        def read(sample: Sample, place: int) -> Tensor:
            rng = view_rng(self._feed.seed, number, self._names[order[place]])
            image = decode(sample, self._preprocessing)
            return self._augmentation(image, self._preprocessing, rng=rng)

        return read

    def _read(self, order: Rows, read: Callable[[Sample, int], Tensor]) -> Iterator[Step]:
        samples = (self._samples[i] for i in order)
        size, threads = self._feed.batch_size, self._feed.threads
        for batch in load_batches(samples, read, batch_size=size, threads=threads):
            if batch.bad:
                self._on_bad(batch.bad)
            if len(batch.images):
                inputs = self._trunk(batch.images) if self._trunk else (batch.images,)
                index = order[batch.index.numpy()]
                yield inputs, self._targets[index], index
