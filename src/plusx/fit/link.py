"""What turns logits into probabilities in a linear head, and how well it is known: softmax for one
class an image, a logistic function for each class by itself where an image may have several.

Shapes: logits (n, K, B) for n images, K classes and B problems solved at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass(frozen=True)
class Link(ABC):
    """One of the two.

    Attributes:
        targets: (n, K), 1 where the image has the class and 0 elsewhere.
    """

    targets: Tensor

    joint: tuple[int, ...] = (0,)
    """Axes of (n, K, B) over which one step length, and one end, is shared."""
    curvature: float = 0.25
    """Bounds the second derivative of a logit's loss."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """(n, K, B)."""

    @abstractmethod
    def nll(self, logits: Tensor) -> Tensor:
        """(n, 1 or K, B): the negative log likelihood of what is scored by itself, in nats."""

    @abstractmethod
    def right(self, logits: Tensor) -> Tensor:
        """(n, B): the share of an image's answers that is right."""

    @abstractmethod
    def slopes(self, logits: Tensor, along: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivative of the weighted log normaliser along a direction of logits
        (n, K, B), summed over the ``joint`` axes."""


@dataclass(frozen=True)
class Softmax(Link):
    """One class an image. The curvature is Böhning's bound."""

    joint: tuple[int, ...] = (0, 1)
    curvature: float = 0.5

    def probabilities(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        return torch.softmax(logits, 1)

    def nll(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        own = (self.targets[:, :, None] * logits).sum(1, keepdim=True)
        return torch.logsumexp(logits, 1, keepdim=True) - own

    def right(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        return (logits.argmax(1) == self.targets.argmax(1)[:, None]).double()

    def slopes(self, logits: Tensor, along: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Link``."""
        p = torch.softmax(logits, 1)
        mean = (p * along).sum(1)
        spread = (p * along * along).sum(1) - mean * mean
        return (weights[:, 0] * mean).sum(0).double(), (weights[:, 0] * spread).sum(0).double()


@dataclass(frozen=True)
class Logistic(Link):
    """Any number of classes an image: K regressions that share nothing but their inputs."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        return torch.sigmoid(logits)

    def nll(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        return softplus(logits) - self.targets[:, :, None] * logits

    def right(self, logits: Tensor) -> Tensor:
        """See ``Link``."""
        return ((logits > 0) == (self.targets[:, :, None] > 0)).double().mean(1)

    def slopes(self, logits: Tensor, along: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Link``."""
        p = torch.sigmoid(logits)
        pull = weights * p * along
        return pull.sum(0).double(), (pull * (1 - p) * along).sum(0).double()
