"""A teacher's answers beside the labels, on the very images that the pupil sees.

The same crop for both and long training is what makes distillation pay: Beyer et al. 2022 (arXiv
2106.05237), section 3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from plusx.data import Preprocessing
from plusx.engines import TorchEngine
from plusx.fit.criterion import shares
from plusx.fit.inputs import Source, Step, Wrapped


class Teacher:
    """Answers of a trained network to images that another one is shown.

    Args:
        engine: runs the network.
        own: the preprocessing that it was trained with.
        pupil: the one by which it gets the images; mean and std are exchanged, size and crop stay
            as the pupil sees them.
        columns: for each of the pupil's classes, which of its logits.
    """

    def __init__(
        self, engine: TorchEngine, own: Preprocessing, pupil: Preprocessing, columns: list[int]
    ) -> None:
        self._engine, self._columns = engine, columns
        mean, std = (torch.tensor([getattr(own, name), getattr(pupil, name)])
                     for name in ("mean", "std"))  # fmt: skip
        self._scale = (std[1] / std[0])[:, None, None]
        self._shift = ((mean[1] - mean[0]) / std[0])[:, None, None]

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) as the pupil sees them -> logits (N, K) float32 of its classes."""
        seen = images * self._scale + self._shift
        found = self._engine.run(seen.numpy()).logits
        return torch.from_numpy(found[:, self._columns])


class Taught(Wrapped):
    """A source whose shuffled epochs carry a teacher's answers; in order it stays as it is.

    Args:
        source: gives images as they are.
        classes: K.
        teacher: images -> logits (N, K).
    """

    def __init__(self, source: Source, classes: int, teacher: Teacher) -> None:
        super().__init__(source)
        self._classes, self._teacher = classes, teacher

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Source``; targets are (N, 2, K): labels, and the teacher's logits."""
        for inputs, targets, index in self._source.shuffled(epoch, start):
            wanted = shares(targets, self._classes)
            taught = self._teacher(inputs[0]) if len(index) else wanted
            yield inputs, torch.stack([wanted, taught], dim=1), index
