"""A running average of the weights, which is what is judged and shipped."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Average:
    """Exponential moving average of a network's parameters and buffers (BatchNorm's statistics
    included, as in torchvision's references; Polyak & Juditsky 1992).

    In its first steps it forgets faster, by (1 + t) / (10 + t) as TensorFlow's
    ``ExponentialMovingAverage`` does, so that a short training is not held at its start.

    Args:
        net: what is trained.
        decay: share that is kept at each step, below 1.

    Attributes:
        net: a copy that holds the average.
        updates: steps averaged so far.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the weights of ``net`` after a step; whole numbers are copied."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        ours = self.net.state_dict()
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                ours[name].lerp_(value, 1 - keep)
            else:
                ours[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Average and count."""
        return {"net": self.net.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self.net.load_state_dict(state["net"])
        self.updates = int(state["updates"])
