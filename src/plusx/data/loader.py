"""From samples to batches: decoded in threads, in order, bad images reported and left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch

from plusx.data.ordered import map_ordered
from plusx.data.preprocessing import Preprocessing
from plusx.data.records import BadImage, Batch, Sample
from plusx.data.remarks import Remarks
from plusx.data.safely import read_safely
from plusx.errors import UnreadableImage, UsageError

Item = tuple[int, "torch.Tensor | BadImage"]


def load_batches(
    samples: Iterable[Sample],
    read: Callable[[Sample, int], torch.Tensor],
    *,
    batch_size: int,
    threads: int,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """Read samples in threads and yield them in batches, in the order given.

    Memory stays flat: ``samples`` may be a generator of millions. A batch holds ``batch_size``
    consecutive samples (the last one what is left), less its bad images, which stand in
    ``Batch.bad``; it may therefore be empty. ``read`` runs with torch confined to one core (see
    :func:`map_ordered`). Closing the iterator stops the threads.

    Args:
        samples: what to read.
        read: (sample, position in ``samples``) -> (C, H, W) float32, all of one shape; raises
            UnreadableImage for a bad one. Any other error ends the iteration.
        batch_size: N.
        threads: how many read at once.
        prefetch: how many batches may be read ahead of the consumer.

    Raises:
        UsageError: ``batch_size``, ``threads`` or ``prefetch`` is below 1.
    """
    for name, value in (("batch_size", batch_size), ("threads", threads), ("prefetch", prefetch)):
        if type(value) is not int or value < 1:
            raise UsageError(f"{name} {value!r} must be a whole number of at least 1")

    items = map_ordered(
        partial(_read_one, read),
        enumerate(samples),
        threads=threads,
        ahead=max(prefetch * batch_size, threads),
        chunk=max(1, min(8, batch_size // threads)),
    )
    return _batches(items, batch_size)


def read_batch(
    numbered: Sequence[tuple[int, Sample]], read: Callable[[Sample, int], torch.Tensor]
) -> Batch:
    """One batch, read in the caller's own thread; else as :func:`load_batches`.

    Args:
        numbered: its samples, each with its position among all.
        read: (sample, position) -> (C, H, W) float32.
    """
    return next(_batches((_read_one(read, one) for one in numbered), len(numbered)))


def decode(
    sample: Sample, preprocessing: Preprocessing, remarks: Remarks | None = None
) -> torch.Tensor:
    """The one way from a file to what the preprocessing or the augmentation takes.

    Args:
        sample: its file is read.
        preprocessing: says how many channels, and by which reading.
        remarks: gets what a person should be told about the image.

    Returns:
        (H, W, C) uint8, or float32 on 0..255.

    Raises:
        UnreadableImage: it cannot be read.
    """
    image, notes = read_safely(
        sample.path, channels=preprocessing.channels, reading=preprocessing.reading
    )
    if remarks is not None:
        remarks.add(notes)
    return torch.from_numpy(image)


def plain_reader(
    preprocessing: Preprocessing, remarks: Remarks | None = None
) -> Callable[[Sample, int], torch.Tensor]:
    """How ``load_batches`` reads where nothing is augmented: decode, then preprocess."""

    def read(sample: Sample, _: int) -> torch.Tensor:
        return preprocessing(decode(sample, preprocessing, remarks))

    return read


def epoch_order(n: int, *, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """One process's share of a shuffled epoch.

    All processes shuffle alike and take every ``world_size``-th position, so over all ranks
    each of 0..n-1 comes exactly once; shares differ by at most one in length.

    Returns:
        int64 positions, in the order to visit them.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank!r} must lie in 0..{world_size - 1}")
    rng = np.random.Generator(np.random.PCG64([seed % 2**64, epoch]))
    return rng.permutation(n)[rank::world_size].astype(np.int64, copy=False)


def _read_one(read: Callable[[Sample, int], torch.Tensor], numbered: tuple[int, Sample]) -> Item:
    index, sample = numbered
    try:
        return index, read(sample, index)
    except UnreadableImage as error:
        return index, BadImage(sample.path, error.reason)


def _batches(items: Iterator[Item], batch_size: int) -> Iterator[Batch]:
    shape: tuple[int, ...] = (0, 0, 0)
    try:
        while group := list(islice(items, batch_size)):
            images = [image for _, image in group if isinstance(image, torch.Tensor)]
            good = [i for i, image in group if isinstance(image, torch.Tensor)]
            shape = tuple(images[0].shape) if images else shape
            yield Batch(
                images=_stack(images) if images else torch.empty((0, *shape)),
                index=torch.tensor(good, dtype=torch.int64),
                bad=[image for _, image in group if isinstance(image, BadImage)],
            )
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _stack(images: list[torch.Tensor]) -> torch.Tensor:
    """(C, H, W) each -> (N, C, H, W), channels last in memory where the images are.

    numpy copies on this one core. ``torch.stack`` would wake a thread on every core, and they
    go on spinning while the loader's threads want those cores (measured: 3 ms more an image).
    """
    first = images[0]
    layout = torch.contiguous_format if first.is_contiguous() else torch.channels_last
    batch = torch.empty((len(images), *first.shape), dtype=first.dtype, memory_format=layout)
    for slot, image in zip(batch.numpy(), images, strict=True):
        if image.shape != first.shape:
            raise UsageError(
                f"images of one batch must have one shape, not {tuple(first.shape)} and "
                f"{tuple(image.shape)}; preprocess them to one size"
            )
        np.copyto(slot, image.numpy())
    return batch
