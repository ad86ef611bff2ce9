"""Images of a step mixed with one another: inputs and labels.

Mixup (Zhang et al. 2018, arXiv 1710.09412) works on whatever a network takes: images, or
activations and features at the split (there it is "manifold mixup" at one layer: Verma et al. 2019,
arXiv 1806.05236). Cutmix (Yun et al. 2019, arXiv 1905.04899) needs images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from plusx.errors import UsageError
from plusx.fit.criterion import shares
from plusx.fit.inputs import Inputs, Source, Step, Wrapped


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


def cutmix(
    images: Tensor, targets: Tensor, *, alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A rectangle of each image from another one of the step; its share of the area is drawn from
    Beta(alpha, alpha), its centre evenly, what lies outside is cut off, and labels go by the area
    that is left, as in the paper's code.

    Args:
        images: (N, C, H, W).
        targets: (N, K): 1 where an image has the class.
        alpha: above 0.
        rng: decides rectangle and pairs.

    Returns:
        The same shapes; targets float32, in 0..1.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - float(rng.beta(alpha, alpha)))
    other = torch.from_numpy(rng.permutation(len(targets)))
    top, bottom = _edges(height, side, rng)
    left, right = _edges(width, side, rng)
    mixed = images.clone(memory_format=torch.preserve_format)
    mixed[:, :, top:bottom, left:right] = images[other, :, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    hard = targets.float()
    return mixed, torch.lerp(hard[other], hard, kept)


def _edges(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    half, centre = int(length * share) // 2, int(rng.integers(length))
    return max(0, centre - half), min(length, centre + half)


class Mixed(Wrapped):
    """A source whose shuffled epochs are mixed; in order it stays as it is.

    Of several processes each mixes its own images of a step.

    Args:
        source: of the images.
        classes: K.
        alpha: of ``mixup``; 0 for none.
        cut: alpha of ``cutmix``; 0 for none. With both, each step draws one of them, evenly.
        seed: the mixing of a step depends on (seed, epoch, first image of the step) alone.
    """

    def __init__(
        self, source: Source, classes: int, *, alpha: float, cut: float = 0.0, seed: int
    ) -> None:
        super().__init__(source)
        self._classes, self._alpha, self._cut, self._seed = classes, alpha, cut, seed

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Source``; targets are (N, K) float32."""
        for inputs, targets, index in self._source.shuffled(epoch, start):
            marks = shares(targets, self._classes)
            if not len(index):  # none of the step's images can be read
                yield inputs, marks, index
                continue
            # the last number keeps these draws apart from those of order and views
            rng = np.random.Generator(
                np.random.PCG64([self._seed % 2**64, epoch, int(index[0]), 0x313])
            )
            yield *self._mix(inputs, marks, rng), index

    def _mix(
        self, inputs: Inputs, marks: Tensor, rng: np.random.Generator
    ) -> tuple[Inputs, Tensor]:
        cuts = self._cut > 0 and (not self._alpha or rng.random() < 0.5)
        if not cuts:
            return mixup(inputs, marks, alpha=self._alpha, rng=rng)
        if len(inputs) != 1:
            raise UsageError(
                "--cutmix cuts images, and a frozen trunk gives activations; give --unfreeze all, "
                "or --cutmix 0"
            )
        images, mixed = cutmix(inputs[0], marks, alpha=self._cut, rng=rng)
        return (images,), mixed
