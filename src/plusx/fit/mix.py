"""Pairs of images of a step, mixed: inputs and labels (Zhang et al. 2018, arXiv 1710.09412).

It works on whatever a network takes: images, or activations and features at the split (there it is
"manifold mixup" at one layer: Verma et al. 2019, arXiv 1806.05236).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from plusx.fit.inputs import Inputs, Source, Step


def mixup(
    inputs: Inputs, targets: Tensor, *, alpha: float, rng: np.random.Generator
) -> tuple[Inputs, Tensor]:
    """Each image with another one of the step, in one share drawn from Beta(alpha, alpha).

    Args:
        inputs: (N, ...) each.
        targets: (N, K): 1 where an image has the class.
        alpha: above 0; the larger, the more even the shares.
        rng: decides share and pairs.

    Returns:
        The same shapes; targets float32, in 0..1.
    """
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(targets)))
    mixed = tuple(torch.lerp(x[other], x, share) for x in inputs)
    hard = targets.float()
    return mixed, torch.lerp(hard[other], hard, share)


class Mixed:
    """A source whose shuffled epochs are mixed; in order it stays as it is.

    Args:
        source: of the images.
        classes: K.
        alpha: see ``mixup``.
        seed: the mixing of a step depends on (seed, epoch, first image of the step) alone.
    """

    def __init__(self, source: Source, classes: int, *, alpha: float, seed: int) -> None:
        self._source, self._classes = source, classes
        self._alpha, self._seed = alpha, seed

    @property
    def images(self) -> int:
        """Number of images."""
        return self._source.images

    def shuffled(self, epoch: int) -> Iterator[Step]:
        """See ``Source``; targets are (N, K) float32."""
        for inputs, targets, index in self._source.shuffled(epoch):
            if targets.ndim == 1:
                targets = F.one_hot(targets, self._classes)
            # the last number keeps these draws apart from those of order and views
            rng = np.random.Generator(
                np.random.PCG64([self._seed % 2**64, epoch, int(index[0]), 0x313])
            )
            yield *mixup(inputs, targets, alpha=self._alpha, rng=rng), index

    def ordered(self) -> Iterator[Step]:
        """See ``Source``."""
        return self._source.ordered()
