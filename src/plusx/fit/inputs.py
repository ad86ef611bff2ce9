"""Where the loop's batches come from: activations on disk, or images read anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from plusx.data import (
    AnyAugmentation,
    BadImage,
    Preprocessing,
    Sample,
    load_batches,
    plain_reader,
    view_rng,
)
from plusx.data.loader import decode
from plusx.data.records import Targets
from plusx.fit.sampling import Sampling, times_before
from plusx.fit.trunk import ActivationStore, Rows
from plusx.runtime import World

Inputs = tuple[Tensor, ...]
Step = tuple[Inputs, Tensor, Rows]
"""What the net takes, targets (N,) int64 or (N, K) bool, and the positions (N,) of the images in
the set."""


@dataclass(frozen=True)
class Feed:
    """How a set is dealt out.

    A step takes the same images whatever the number of processes: each takes its part of them.

    Attributes:
        batch_size: images per step, of all processes together.
        threads: for decoding.
        seed: of order and augmentation.
        world: which share of a step is this process's.
        sampling: which images an epoch takes.
    """

    batch_size: int
    threads: int
    seed: int
    world: World = field(default_factory=World)
    sampling: Sampling = field(default_factory=Sampling)

    @property
    def share(self) -> int:
        """Images of a whole step that this process takes."""
        return len(range(self.world.rank, self.batch_size, self.world.size))

    def order(self, n: int, epoch: int, start: int = 0) -> Rows:
        """This process's positions of a shuffled epoch over n images, from step ``start`` on, in
        ``steps(n) - start`` batches of ``share``."""
        return self.dealt(n, epoch, start)[0]

    def dealt(self, n: int, epoch: int, start: int = 0) -> tuple[Rows, Rows]:
        """``order``, and for each of its places how often the image came before in the epoch."""
        drawn = self.sampling.order(n, seed=self.seed, epoch=epoch)
        whole = drawn[: self.steps(n) * self.batch_size]
        place = np.arange(len(whole)) % self.batch_size % self.world.size
        later = np.arange(len(whole)) >= start * self.batch_size
        mine = later & (place == self.world.rank)
        return whole[mine], times_before(whole)[mine]

    def in_order(self, n: int) -> Rows:
        """This process's positions of 0..n-1: whole batches in turn, so that every batch is one
        that a single process makes."""
        batch = np.arange(n) // self.batch_size
        return np.flatnonzero(batch % self.world.size == self.world.rank)

    def steps(self, n: int) -> int:
        """Whole batches of an epoch over n images, at least one; the same for every process."""
        return max(1, n // self.batch_size)


class Source(Protocol):
    """One set of images as the network takes them."""

    @property
    def images(self) -> int:
        """Number of images."""
        ...

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        ...

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """This process's share of one shuffled epoch from step ``start`` on, in whole batches if
        there is one; a step whose images cannot be read is empty."""
        ...

    def ordered(self) -> Iterator[Step]:
        """This process's share of all images, each once, in order, without augmentation."""
        ...


class Wrapped:
    """A source that is another one but for its shuffled epochs, which a subclass gives.

    Args:
        source: the other one.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def images(self) -> int:
        """Number of images."""
        return self._source.images

    @property
    def steps(self) -> int:
        """See ``Source``."""
        return self._source.steps

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        return self._source.ordered()


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

    @property
    def steps(self) -> int:
        """See ``Source``."""
        return self._feed.steps(self.images)

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Source``."""
        order = self._feed.order(self.images, epoch, start)
        view = (epoch + order) % len(self._rows)
        yield from self._steps(order, self._rows[view, order], self._feed.share)

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        order = self._feed.in_order(self.images)
        yield from self._steps(order, self._rows[0, order], self._feed.batch_size)

    def _steps(self, index: Rows, rows: Rows, size: int) -> Iterator[Step]:
        for start in range(0, len(index), size):
            part = slice(start, start + size)
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
        sizes: epoch -> pixels of its views; by default those of ``preprocessing``.
        on_bad: told of images that could be read before and cannot now.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        *,
        targets: Targets,
        augmentation: AnyAugmentation,
        feed: Feed,
        trunk: Callable[[Tensor], Inputs] | None = None,
        names: Sequence[int] | None = None,
        sizes: Callable[[int], int] | None = None,
        on_bad: Callable[[Sequence[BadImage]], None],
    ) -> None:
        self._samples, self._preprocessing = samples, preprocessing
        self._targets = torch.from_numpy(targets)
        self._augmentation, self._feed = augmentation, feed
        self._trunk, self._on_bad = trunk, on_bad
        self._names = range(len(samples)) if names is None else names
        self._sizes = sizes

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._samples)

    @property
    def steps(self) -> int:
        """See ``Source``."""
        return self._feed.steps(self.images)

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Source``."""
        order, times = self._feed.dealt(self.images, epoch, start)
        seen = self._preprocessing
        if self._sizes is not None:
            seen = seen.at_size(self._sizes(epoch))
        read = self._augmented(epoch, order, times, seen)
        yield from self._read(order, read, self._feed.share, seen.size)

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        order, seen = self._feed.in_order(self.images), self._preprocessing
        yield from self._read(order, plain_reader(seen), self._feed.batch_size, seen.size)

    def view(self, number: int) -> Iterator[Step]:
        """Every image once, in order, as augmented view ``number``."""
        order, seen = np.arange(self.images), self._preprocessing
        read = self._augmented(number, order, np.zeros_like(order), seen)
        yield from self._read(order, read, self._feed.batch_size, seen.size)

    def _augmented(
        self, number: int, order: Rows, times: Rows, seen: Preprocessing
    ) -> Callable[[Sample, int], Tensor]:
        def read(sample: Sample, place: int) -> Tensor:
            name, again = self._names[order[place]], int(times[place])
            rng = view_rng(self._feed.seed, number, name, again)
            return self._augmentation(decode(sample, seen), seen, rng=rng)

        return read

    def _read(
        self, order: Rows, read: Callable[[Sample, int], Tensor], size: int, pixels: int
    ) -> Iterator[Step]:
        samples = (self._samples[i] for i in order)
        threads, channels = self._feed.threads, self._preprocessing.channels
        for batch in load_batches(samples, read, batch_size=size, threads=threads):
            if batch.bad:
                self._on_bad(batch.bad)
            # Where none can be read: of the right shape, for the other processes of this step.
            images = batch.images
            if not len(images):
                images = torch.empty(0, channels, pixels, pixels)
            inputs = self._trunk(images) if self._trunk else (images,)
            index = order[batch.index.numpy()]
            yield inputs, self._targets[index], index
