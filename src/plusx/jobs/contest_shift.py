"""How a network does on images made worse on purpose: every kind of harm at one strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from plusx.data import Preprocessing, Sample, load_batches, view_rng
from plusx.data.corruption import STRENGTHS, corrupt
from plusx.data.loader import decode
from plusx.engines import TorchEngine
from plusx.weights import Artifact

STRENGTH = 3
"""Of 1 (weak) to 5."""

KINDS = tuple(STRENGTHS)


def right_under_shift(
    artifact: Artifact,
    samples: Sequence[Sample],
    *,
    device: torch.device,
    threads: int,
    tick: Callable[[int, str], None] = lambda n, text: None,
) -> dict[str, str]:
    """Which images are still right, by kind of harm: one letter an image, ``1`` for right.

    An image is harmed in the same way for every network.

    Args:
        artifact: the model.
        samples: labelled images; their targets index the model's classes.
        device: where to run; in float32.
        threads: for decoding.
        tick: told of images done.
    """
    engine = TorchEngine(artifact.model, device=device)
    found: dict[str, str] = {}
    for number, kind in enumerate(KINDS):
        right = ["0"] * len(samples)
        read = _reader(artifact.preprocessing, kind, number)
        for at, batch in enumerate(load_batches(samples, read, batch_size=8, threads=threads)):
            if len(batch.images):
                called = engine.run(batch.images.numpy()).logits.argmax(axis=1).tolist()
                for i, answer in zip(batch.index.tolist(), called, strict=True):
                    right[i] = str(int(answer == samples[i].target))
            tick(min(8, len(samples) - 8 * at), kind)
        found[kind] = "".join(right)
    return found


def _reader(
    preprocessing: Preprocessing, kind: str, number: int
) -> Callable[[Sample, int], torch.Tensor]:
    def read(sample: Sample, place: int) -> torch.Tensor:
        image = decode(sample, preprocessing)
        rng: np.random.Generator = view_rng(0, number, place)
        harmed = corrupt(image, kind, STRENGTH, size=preprocessing.resize, rng=rng)
        return preprocessing(harmed)

    return read
