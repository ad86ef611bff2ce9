"""What every engine gives for a batch of preprocessed images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """One batch's answers, on the CPU in float32.

    Attributes:
        logits: (N, K).
        features: (N, C), the pooled vector before the head.
    """

    logits: Tensor
    features: Tensor


class Engine(Protocol):
    """Runs one network in evaluation mode."""

    def run(self, images: Tensor) -> Outputs:
        """Preprocessed images (N, C, H, W) float32 -> their outputs."""
        ...
