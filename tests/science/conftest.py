"""A small net with trained-looking norms, and images for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from plusx.data import Preprocessing
from plusx.model import ResNet, ResNetSpec
from plusx.science.subject import Images, Subject


@pytest.fixture
def small(randomise: Callable[..., nn.Module]) -> Callable[..., Subject]:
    """A function that makes a subject of a small residual net; fields of its spec may be given."""

    def make(**fields: object) -> Subject:
        spec = ResNetSpec.from_dict(
            {"name": "small", "block": "basic", "depths": [2, 2], "widths": [4, 8],
             "stem": "3x3", "stem_width": 4, "stem_stride": 1, "stem_pool": "none",
             "image_size": 8, "classes": 3, "shortcut": "zero-pad"} | fields
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = randomise(ResNet(spec)).requires_grad_(False)
        return Subject(spec.name, net, Preprocessing.for_size(8), None, "random", None)

    return make


@pytest.fixture
def noise() -> Callable[..., Images]:
    """A function that makes labelled noise of 3 classes."""

    def make(n: int = 24, size: int = 8) -> Images:
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(n, 3, size, size, generator=generator)
        targets = torch.randint(0, 3, (n,), generator=generator)
        return Images(images, targets, "noise", "all")

    return make
