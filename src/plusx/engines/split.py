"""A frozen network in two parts: the trunk, run once for each image and view, and the blocks after
it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from plusx.engines.protocol import Outputs


class SplitEngine(Protocol):
    """Runs both parts in evaluation mode.

    Attributes:
        device: that ``trunk`` leaves its tensors on.
        dtype: of the activations.
    """

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    def trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 -> activation (N, C', H', W') in ``dtype``, and the features (N, P)
        that are pooled before the split, float32; P is often 0."""
        ...

    def top(self, activation: Tensor, pooled: Tensor) -> Outputs:
        """What ``trunk`` gave -> outputs."""
        ...
