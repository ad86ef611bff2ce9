"""The loss that the loop lessens, mean over the images of a step (and over classes)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.data.records import Task
from plusx.errors import UsageError
from plusx.fit.recipe import Recipe


class BinaryCrossEntropy(nn.Module):
    """Each class by itself, yes or no.

    Args:
        positive_weights: (K,) how many times a class's images count; None for once.
        label_smoothing: moves every target this far towards one half.
        threshold: targets above it become 1, others 0, as ResNet strikes back has it for mixed
            images (arXiv 2110.00476, section 2.2; 0.2 in its code); None leaves them.
    """

    def __init__(
        self,
        positive_weights: Tensor | None,
        label_smoothing: float,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.positive_weights: Tensor | None
        self.register_buffer("positive_weights", positive_weights)
        self.label_smoothing, self.threshold = label_smoothing, threshold

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, K), targets (N, K), or (N,) of one class an image -> mean in nats."""
        wanted = shares(targets, logits.shape[1])
        if self.threshold is not None:
            wanted = (wanted > self.threshold).float()
        wanted = wanted * (1 - self.label_smoothing) + self.label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=self.positive_weights)


class Focal(nn.Module):
    """Cross-entropy that counts what is nearly right already less (Lin et al. 2017, arXiv
    1708.02002, section 3): each term times (1 - p)^gamma, p the probability of its target.

    Args:
        task: of the data: over classes with softmax, or each class by itself.
        gamma: 0 is the plain cross-entropy; the paper takes 2.
        class_weights: (K,) weight of each class's images, or None.
        label_smoothing: 0 for none.
    """

    def __init__(
        self, task: Task, gamma: float, class_weights: Tensor | None, label_smoothing: float
    ) -> None:
        super().__init__()
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights)
        self.task, self.gamma, self.label_smoothing = task, gamma, label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, K), targets (N, K), or (N,) of one class an image -> mean in nats; weights
        of classes enter as shares of the mean, as in torch's cross-entropy."""
        wanted, smooth = shares(targets, logits.shape[1]), self.label_smoothing
        weights = 1.0 if self.class_weights is None else self.class_weights
        if self.task == "single":
            log_p = F.log_softmax(logits, dim=1)
            wanted = wanted * (1 - smooth) + smooth / logits.shape[1]
            loss = -(wanted * weights * (1 - log_p.exp()) ** self.gamma * log_p).sum(1)
            if self.class_weights is None or targets.ndim == 2:
                return loss.mean()
            return loss.sum() / self.class_weights[targets].sum()
        wanted = wanted * (1 - smooth) + smooth / 2
        yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
        hard = wanted * weights * no.exp() ** self.gamma * yes
        return -(hard + (1 - wanted) * yes.exp() ** self.gamma * no).mean()


class Distilling(nn.Module):
    """The labels' loss and, at a raised temperature, the divergence from what a teacher answers
    (Hinton et al. 2015, arXiv 1503.02531, section 2).

    The divergence is scaled by the square of the temperature, so that its gradient stays of the
    size of the other's.

    Args:
        labels: loss on targets alone.
        task: softmax over classes, or each class by itself.
        temperature: of both answers.
        share: of the divergence in the loss; the labels have the rest.
    """

    def __init__(self, labels: nn.Module, task: Task, *, temperature: float, share: float) -> None:
        super().__init__()
        self.labels, self.task = labels, task
        self.temperature, self.share = temperature, share

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (N, K); targets (N, 2, K): labels, and the teacher's logits -> mean in nats."""
        wanted, taught = targets[:, 0], targets[:, 1] / self.temperature
        mine = logits / self.temperature
        if self.task == "single":
            pairs = F.log_softmax(mine, 1), F.log_softmax(taught, 1)
            soft = F.kl_div(*pairs, reduction="batchmean", log_target=True)
        else:
            own, right = mine, torch.sigmoid(taught)
            least = F.binary_cross_entropy_with_logits(taught, right, reduction="none")
            soft = F.binary_cross_entropy_with_logits(own, right, reduction="none") - least
            soft = soft.mean()
        loss: Tensor = self.labels(logits, wanted)
        return self.share * self.temperature**2 * soft + (1 - self.share) * loss


def shares(targets: Tensor, classes: int) -> Tensor:
    """(N,) classes, or (N, K) marks or shares -> (N, K) float32."""
    return (F.one_hot(targets, classes) if targets.ndim == 1 else targets).float()


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


def recipe_criterion(
    recipe: Recipe, task: Task, *, class_weights: Tensor | None = None, taught: bool = False
) -> nn.Module:
    """The recipe's loss.

    Args:
        recipe: names it.
        task: of the data.
        class_weights: (K,) weight of each class's images in the loss.
        taught: whether targets hold a teacher's answers as well; see ``Distilling``.

    Raises:
        UsageError: see ``check_loss``.
    """
    check_loss(recipe.loss, task)
    smoothing = recipe.label_smoothing
    found: nn.Module
    if recipe.loss == "focal":
        found = Focal(task, recipe.focal, class_weights, smoothing)
    elif recipe.loss == "bce":
        found = BinaryCrossEntropy(class_weights, smoothing, recipe.target_threshold)
    else:
        found = make_criterion(task, class_weights=class_weights, label_smoothing=smoothing)
    if not taught:
        return found
    return Distilling(found, task, temperature=recipe.temperature, share=recipe.teacher_share)


def check_loss(loss: str, task: Task, *, recipe: str | None = None) -> None:
    """Refuse a loss that another task than that of the data needs.

    Args:
        loss: see ``Recipe``.
        task: of the data.
        recipe: its name, where it is the one that asks for the loss.

    Raises:
        UsageError: softmax, and an image may have several labels.
    """
    if loss == "softmax" and task == "multi":
        named = f"--recipe {recipe}" if recipe else "--loss softmax"
        raise UsageError(
            f"{named} is for one class an image (its loss is the softmax cross-entropy), and these "
            "images have several labels each; give --loss bce, or a recipe without it "
            "(plusx recipes)"
        )


def weight_of(criterion: nn.Module, targets: Tensor) -> float:
    """How much of a step's mean loss these targets are, in proportion: the number of images, or
    the sum of their weights where ``criterion`` divides by that."""
    weights = getattr(criterion, "weight", getattr(criterion, "class_weights", None))
    if isinstance(weights, Tensor) and targets.ndim == 1:
        return float(weights[targets.to(weights.device)].sum())
    return float(len(targets))
