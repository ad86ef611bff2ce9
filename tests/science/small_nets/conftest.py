"""Images for the studies: 32 to learn from, 16 to test on, in two classes that differ in colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plusx.science.cifar import Part, SmallImages


def make_images(n: int, seed: int) -> Part:
    rng = np.random.Generator(np.random.PCG64(seed))
    targets = np.arange(n) % 2
    images = rng.integers(0, 200, (n, 3, 32, 32))
    images[:, 0] += 55 * targets[:, None, None]
    return Part(torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(targets))


@pytest.fixture(scope="session")
def few_images() -> SmallImages:
    train = make_images(32, 0)
    pixels = train.images.permute(1, 0, 2, 3).reshape(3, -1).float()
    return SmallImages(("a", "b"), train, make_images(16, 1), pixels.mean(1), pixels.std(1))
