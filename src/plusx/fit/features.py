"""The first pass: every image once through the frozen backbone, features kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from plusx.data import BadImage, Preprocessing, Sample, load_batches, plain_reader
from plusx.data.remarks import Remarks
from plusx.engines.split import SplitEngine
from plusx.fit.cache_rows import Rows
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.trunk import ActivationStore
from plusx.runtime import forward_batch

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FirstPass:
    """What one pass over n images gave.

    Attributes:
        features: (n, C) float32, memory-mapped; the rows of unreadable images are zero.
        readable: (n,) bool.
        bad: the unreadable images.
    """

    features: Features
    readable: npt.NDArray[np.bool_]
    bad: tuple[BadImage, ...]


@dataclass(frozen=True)
class Loading:
    """How images come in.

    Attributes:
        threads: for decoding.
        batch_size: images per forward; by default what suits the device.
        tick: called with the number of images done since the last call.
        remarks: gets what a person should be told about the images.
    """

    threads: int = 2
    batch_size: int | None = None
    tick: Callable[[int], None] = field(default=lambda n: None)
    remarks: Remarks | None = None


@dataclass(frozen=True)
class Ran:
    """A batch behind the trunk: positions (N,) of its images, (N, C, H, W), (N, P)."""

    index: Rows
    activation: Tensor
    pooled: Tensor


def first_pass(
    engine: SplitEngine,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    folder: Path,
    loading: Loading | None = None,
) -> FirstPass:
    """Run ``samples`` through ``engine`` once, in evaluation mode and without augmentation.

    Args:
        engine: its trunk and top are the frozen backbone.
        samples: n images.
        preprocessing: image file to tensor.
        folder: where the features are written, so that memory stays flat in n.
        loading: how images come in.
    """
    readable = np.zeros(len(samples), dtype=bool)
    bad: list[BadImage] = []
    found: FeatureFile | None = None
    for ran in run_trunk(engine, samples, preprocessing, loading or Loading(), bad):
        features = np.asarray(engine.top(ran.activation, ran.pooled).features)
        found = found or FeatureFile(folder, len(samples), features.shape[1])
        found.put(ran.index, features)
        readable[ran.index] = True
    empty = np.zeros((len(samples), 0), dtype=np.float32)
    return FirstPass(empty if found is None else found.whole(), readable, tuple(bad))


def cached_pass(
    engine: SplitEngine,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    folder: Path,
    features: KeyedRows,
    store: ActivationStore | None = None,
    loading: Loading | None = None,
) -> FirstPass:
    """The same, for what is not known yet of the features and the plain activations.

    Args:
        engine: its trunk and top are the frozen backbone.
        samples: n images.
        preprocessing: image file to tensor.
        folder: for a scratch file.
        features: takes those of each image, one view.
        store: takes the trunk's activations.
        loading: how images come in.

    Raises:
        OSError: the disk is full.
    """
    how, bad = loading or Loading(), list[BadImage]()
    everything = np.arange(len(samples), dtype=np.int64)
    lack = features.missing(0, everything)
    if store is None:
        run = lack
    else:
        run = store.plain.missing(0, everything)
        for ran in _from_store(store, lack[store.plain.known(0)[lack]]):
            features.write(0, ran.index, _bits(engine, ran))
    how.tick(len(samples) - len(run))
    for ran in run_trunk(engine, [samples[i] for i in run], preprocessing, how, bad):
        placed = Ran(run[ran.index], ran.activation, ran.pooled)
        if store is not None:
            store.write(0, placed.index, placed.activation, placed.pooled)
        new = ~features.known(0)[placed.index]
        if new.any():
            features.write(0, placed.index[new], _bits(engine, placed)[new])
    readable = features.known(0)
    if store is not None:
        readable &= store.plain.known(0)
    return FirstPass(
        matrix(features, readable, folder), readable, _all_bad(samples, readable, features, bad)
    )


def run_trunk(
    engine: SplitEngine,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    loading: Loading,
    bad: list[BadImage],
) -> Iterator[Ran]:
    """Batches of ``samples`` behind the trunk; unreadable images are added to ``bad``."""
    read = plain_reader(preprocessing, loading.remarks)
    size = loading.batch_size or forward_batch(engine.device)
    for batch in load_batches(samples, read, batch_size=size, threads=loading.threads):
        bad += batch.bad
        if len(batch.images):
            yield Ran(batch.index.numpy(), *engine.trunk(batch.images))
        loading.tick(len(batch.images) + len(batch.bad))


def matrix(features: KeyedRows, readable: npt.NDArray[np.bool_], folder: Path) -> Features:
    """(n, C) from (n,) kept rows; zero where unreadable."""
    positions = np.flatnonzero(readable)
    found = FeatureFile(folder, len(readable), features.table.row_bytes // 4)
    for start in range(0, len(positions), 1024):
        part = positions[start : start + 1024]
        bits = features.read(np.zeros_like(part), part)
        found.put(part, bits.view(np.float32))
    return found.whole()


class FeatureFile:
    """(rows, columns) float32 in ``folder``, written as files are (see ``cache_rows``)."""

    def __init__(self, folder: Path, rows: int, columns: int) -> None:
        self._path, self._shape = folder / "features.bin", (rows, columns)
        with self._path.open("wb") as file:
            file.truncate(rows * columns * 4)

    def put(self, rows: Rows, features: Features) -> None:
        """Write (N, columns) as ``rows``, which rise."""
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        with self._path.open("r+b") as file:
            for start, part in zip((0, *breaks.tolist()), np.split(features, breaks), strict=True):
                file.seek(int(rows[start]) * self._shape[1] * 4)
                file.write(np.ascontiguousarray(part).tobytes())

    def whole(self) -> Features:
        """(rows, columns), memory-mapped; rows that were not written are zero."""
        if not self._shape[0] * self._shape[1]:
            return np.zeros(self._shape, dtype=np.float32)
        return np.memmap(self._path, np.float32, "r+", shape=self._shape)


def _from_store(store: ActivationStore, positions: Rows) -> Iterator[Ran]:
    for start in range(0, len(positions), 8):
        part = positions[start : start + 8]
        yield Ran(part, *store.read(part))


def _bits(engine: SplitEngine, ran: Ran) -> npt.NDArray[np.uint8]:
    """(N, 4 C) of the features behind the top."""
    found = engine.top(ran.activation.to(engine.device), ran.pooled.to(engine.device)).features
    return np.ascontiguousarray(np.asarray(found, dtype=np.float32)).view(np.uint8)


def _all_bad(
    samples: Sequence[Sample],
    readable: npt.NDArray[np.bool_],
    features: KeyedRows,
    bad: Sequence[BadImage],
) -> tuple[BadImage, ...]:
    """One for each unreadable image; copies of a file were tried once."""
    why = {item.path: item.reason for item in bad}
    lost = np.flatnonzero(~readable).tolist()
    copies = {features.own[i]: why[samples[i].path] for i in lost if samples[i].path in why}
    return tuple(BadImage(samples[i].path, copies[features.own[i]]) for i in lost)
