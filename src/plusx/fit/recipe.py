"""How a fine-tuning or training run goes: plain numbers, resolved once and written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from plusx.errors import UsageError

Optimizer = Literal["adamw", "sgd"]
Norm = Literal["train", "eval"]

SMALLEST_NORM_BATCH = 16
"""Below this many images per device and step, BatchNorm statistics are noise
(Wu & He 2018, arXiv 1803.08494, figure 1: the error rises from 16 images on downwards)."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the loop.

    Attributes:
        epochs: at most; ``patience`` may end it earlier.
        batch_size: images per step.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9, Nesterov).
        lr: peak learning rate.
        weight_decay: on weights of convolutions and linear layers only.
        warmup: fraction of all steps with a linearly rising rate, before the cosine to zero.
        label_smoothing: 0 for none.
        patience: epochs without a better validation result before stopping; 0 never stops.
        norm: ``train`` or ``eval``, the mode of trainable BatchNorm.
        clip: largest norm of the gradient.
        seed: of order, augmentation and initialisation.
        mixup: alpha of ``plusx.fit.mix.mixup``; 0 mixes nothing.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer
    lr: float
    weight_decay: float
    warmup: float
    label_smoothing: float
    patience: int
    norm: Norm
    clip: float
    seed: int
    mixup: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "optimizer": (self.optimizer in ("adamw", "sgd"), "adamw or sgd"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "warmup": (0 <= self.warmup < 1, "at least 0 and below 1"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            "patience": (self.patience >= 0, "at least 0"),
            "mixup": (0 <= self.mixup < math.inf, "at least 0"),
            "norm": (self.norm in ("train", "eval"), "auto, train or eval"),
        }
        for name, (fine, wanted) in checks.items():
            if not fine:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)!r} must be {wanted}"
                )

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step ``step`` of ``steps``: linear warm-up, then a cosine to zero
        (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def default_epochs(images: int, *, scratch: bool) -> int:
    """Epochs where none are asked for.

    Fine-tuning starts from a good place and needs few; a net from scratch needs to have seen some
    number of images, so that few images mean many epochs.
    """
    if scratch:
        return min(200, max(20, math.ceil(15_000 / images)))
    return min(12, max(4, math.ceil(40_000 / images)))


def default_lr(optimizer: str, batch_size: int, *, scratch: bool) -> float:
    """Peak learning rate where none is asked for; scaled with the batch, by its root for AdamW."""
    if optimizer == "sgd":
        return (0.1 if scratch else 0.01) * batch_size / 128
    return (1e-3 if scratch else 1e-4) * math.sqrt(batch_size / 32)
