"""Tuning a slimmed network so that it sees and answers as its parent does.

Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531, section 2): the loss is the
cross-entropy with the labels and, at a raised temperature, the divergence from what the parent
answers. With few classes and images answers say little, so the pupil's features are held to the
parent's as well (Wang et al. 2023, arXiv 2202.07861, who tune nets without some of their blocks on
tiny sets this way). What the frozen trunk gives, and what the parent sees and answers, is computed
once for each view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.data import epoch_order
from plusx.errors import Diverged
from plusx.fit.criterion import Distilling, shares
from plusx.fit.loop import Hardware, copy_state, forward
from plusx.fit.optimizers import make_optimizer
from plusx.fit.recipe import Recipe
from plusx.fit.trunk import Rows, ScratchActivations
from plusx.model.surgery import Top, training_mode

SOFTNESS = 2.0
"""Temperature of both nets' answers in the distilling part; Hinton et al. used 2 to 20, the lower
ones for small pupils."""

SHARE = 0.7
"""Of the distilling part in the loss; the labels have the rest."""

HINT = 4.0
"""Weight of the features' squared distance, in units of their variance over images."""

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Lessons:
    """What is learnt from.

    Attributes:
        store: activations at the split; view v of image i is row v * n + i, and the images that
            choose follow.
        targets: (n,) int64.
        taught: (V, n, K) float32, the parent's logits of every view.
        hints: (V, n, D) float32, the parent's features of every view.
        held: (m,) int64 targets of the images that choose.
    """

    store: ScratchActivations
    targets: Tensor
    taught: Tensor
    hints: Tensor
    held: Tensor

    def shuffled(self, epoch: int, recipe: Recipe) -> Iterator[tuple[tuple[Tensor, ...], Rows]]:
        """One epoch: what the net takes, and the rows; epoch e shows view (e + i) mod V of i."""
        n, views = len(self.targets), len(self.taught)
        order = epoch_order(n, seed=recipe.seed, epoch=epoch, rank=0, world_size=1)
        rows = (epoch + order) % views * n + order
        for start in range(0, max(1, n // recipe.batch_size) * recipe.batch_size,
                           recipe.batch_size):  # fmt: skip
            part = rows[start : start + recipe.batch_size]
            yield self.store.read(part), part

    def answers(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Of such rows: labels and the parent's logits (N, 2, K), as ``Distilling`` takes them, and
        the parent's features (N, D)."""
        taught = self.taught.flatten(0, 1)[rows]
        labels = shares(self.targets[rows % len(self.targets)], taught.shape[1])
        return torch.stack([labels, taught], dim=1), self.hints.flatten(0, 1)[rows]

    @torch.inference_mode()
    def judged(self, net: Top, hardware: Hardware) -> Tensor:
        """Logits (m, K) float32 of the images that choose, on the CPU."""
        net.eval()
        first, count = self.taught.shape[0] * self.taught.shape[1], len(self.held)
        found = []
        for start in range(first, first + count, _BATCH):
            rows = np.arange(start, min(start + _BATCH, first + count))
            found.append(forward(net, self.store.read(rows), hardware).float().cpu())
        return torch.cat(found)


def distil(
    net: Top,
    lessons: Lessons,
    *,
    recipe: Recipe,
    hardware: Hardware,
    tick: Callable[[int], None] = lambda n: None,
) -> list[tuple[float, float]]:
    """Tune what is trainable in ``net``; afterwards it holds its best epoch.

    Args:
        net: behind the frozen trunk; parameters with ``requires_grad`` are trained.
        lessons: what it learns from, and the images that choose the epoch.
        recipe: all numbers; of ``patience`` and ``label_smoothing`` nothing is used.
        hardware: device and precision.
        tick: called with the number of images after each step.

    Returns:
        Top-1 and negated nll on the images that choose, before the first epoch and after each; the
        best is the largest.

    Raises:
        Diverged: the loss is not finite.
    """
    net.to(hardware.device).to(memory_format=torch.channels_last)
    telling, criterion = _Telling(net), _criterion()
    spread = float(lessons.hints.flatten(0, 1).var(0).mean()) + 1e-12
    optimizer = make_optimizer(net, recipe)
    parameters = [p for p in net.parameters() if p.requires_grad]
    scores = [_score(lessons.judged(net, hardware), lessons.held)]
    best = copy_state(net)
    per_epoch = max(1, len(lessons.targets) // recipe.batch_size)
    for epoch in range(1, recipe.epochs + 1):
        training_mode(net, norm_statistics=recipe.norm == "train")
        torch.manual_seed((recipe.seed + epoch) % 2**63)  # of dropout
        steps = enumerate(lessons.shuffled(epoch, recipe), start=(epoch - 1) * per_epoch)
        for number, (inputs, rows) in steps:
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(number, recipe.epochs * per_epoch)
            answers, hints = (x.to(hardware.device) for x in lessons.answers(rows))
            told = forward(telling, inputs, hardware)
            logits, features = told[:, : answers.shape[2]], told[:, answers.shape[2] :]
            loss = criterion(logits, answers) + HINT * F.mse_loss(features, hints) / spread
            if not torch.isfinite(loss):
                raise Diverged(f"tuning: the loss became {loss.item()}; try a smaller --lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimizer.step()
            tick(len(rows))
        scores.append(_score(lessons.judged(net, hardware), lessons.held))
        if scores[-1] > max(scores[:-1]):
            best = copy_state(net)
    net.load_state_dict(best)
    return scores


class _Telling(nn.Module):
    """What the top gives, in one tensor: logits and features (N, K + D) float32."""

    def __init__(self, top: Top) -> None:
        super().__init__()
        self.top = top

    def forward(self, activation: Tensor, pooled: Tensor) -> Tensor:
        features = self.top.features(activation, pooled)
        return torch.cat([self.top.head(features).float(), features.float()], dim=1)


def _criterion() -> Distilling:
    return Distilling(nn.CrossEntropyLoss(), "single", temperature=SOFTNESS, share=SHARE)


def _score(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    right = float((logits.argmax(1) == targets).double().mean())
    return right, -float(F.cross_entropy(logits.double(), targets))
