"""The loss that the loop lessens, mean over the images of a step (and over classes)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from plusx.data.records import Task


class BinaryCrossEntropy(nn.Module):
    """Each class by itself, yes or no.

    Args:
        positive_weights: (K,) how many times a class's images count; None for once.
        label_smoothing: moves every target this far towards one half.
    """

    def __init__(self, positive_weights: Tensor | None, label_smoothing: float) -> None:
        super().__init__()
        self.positive_weights: Tensor | None
        self.register_buffer("positive_weights", positive_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, K), targets (N, K) bool -> mean in nats."""
        wanted = targets.float() * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.positive_weights)


def make_criterion(
    task: Task, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> nn.Module:
    """Softmax cross-entropy (``single``) or one binary cross-entropy a class (``multi``).

    Args:
        task: of the data.
        class_weights: (K,) weight of each class's images in the loss.
        label_smoothing: 0 for none.
    """
    if task == "single":
        return nn.CrossEntropyLoss(class_weights, label_smoothing=label_smoothing)
    return BinaryCrossEntropy(class_weights, label_smoothing)


def weight_of(criterion: nn.Module, targets: Tensor) -> float:
    """How much of a step's mean loss these targets are, in proportion: the number of images, or
    the sum of their weights where ``criterion`` divides by that."""
    weights = getattr(criterion, "weight", None)
    if isinstance(weights, Tensor) and targets.ndim == 1:
        return float(weights[targets.to(weights.device)].sum())
    return float(len(targets))
