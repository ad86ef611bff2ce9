"""The first pass: every image once through the frozen backbone, features kept.

What the frozen trunk gives on the way is handed to the activation store, so that fine-tuning need
not run it again on the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data import BadImage, Preprocessing, Sample, load_batches, plain_reader
from plusx.data.remarks import Remarks
from plusx.engines import TorchEngine
from plusx.fit.trunk import ActivationStore
from plusx.runtime import forward_batch


@dataclass(frozen=True)
class FirstPass:
    """What one pass over n images gave.

    Attributes:
        features: (n, C) float32, memory-mapped; the rows of unreadable images are zero.
        readable: (n,) bool.
        bad: the unreadable images.
    """

    features: npt.NDArray[np.float32]
    readable: npt.NDArray[np.bool_]
    bad: tuple[BadImage, ...]


def first_pass(
    engine: TorchEngine,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    folder: Path,
    store: ActivationStore | None = None,
    batch_size: int | None = None,
    threads: int = 2,
    tick: Callable[[int], None] = lambda n: None,
    remarks: Remarks | None = None,
) -> FirstPass:
    """Run ``samples`` through ``engine`` once, in evaluation mode and without augmentation.

    Args:
        engine: its trunk and top are the frozen backbone.
        samples: n images.
        preprocessing: image file to tensor.
        folder: where ``features.npy`` is written, so that memory stays flat in n.
        store: takes the trunk's activations; row i for sample i.
        batch_size: images per forward; by default what suits the device.
        threads: for decoding.
        tick: called with the number of images done since the last call.
        remarks: gets what a person should be told about the images.
    """
    features: npt.NDArray[np.float32] | None = None
    readable = np.zeros(len(samples), dtype=bool)
    bad: list[BadImage] = []

    read = plain_reader(preprocessing, remarks)
    size = batch_size or forward_batch(engine.device)
    for batch in load_batches(samples, read, batch_size=size, threads=threads):
        bad += batch.bad
        if len(batch.images):
            index = batch.index.numpy()
            activation, pooled = engine.trunk(batch.images)
            found = engine.top(activation, pooled).features
            if features is None:
                features = np.lib.format.open_memmap(
                    folder / "features.npy", "w+", np.float32, (len(samples), found.shape[1])
                )
            features[index] = found
            readable[index] = True
            if store is not None:
                store.write(index, activation, pooled)
        tick(len(batch.images) + len(batch.bad))
    if features is None:
        features = np.zeros((len(samples), 0), dtype=np.float32)
    return FirstPass(features, readable, tuple(bad))
