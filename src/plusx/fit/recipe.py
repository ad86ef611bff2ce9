"""How a fine-tuning or training run goes: plain numbers, resolved once and written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from plusx.errors import UsageError
from plusx.fit.schedule import Schedule, ScheduleName

Optimizer = Literal["adamw", "sgd", "lamb"]
Norm = Literal["train", "eval"]
Loss = Literal["auto", "softmax", "bce", "focal"]

SMALLEST_NORM_BATCH = 16
"""Below this many images per device and step, BatchNorm statistics are noise
(Wu & He 2018, arXiv 1803.08494, figure 1: the error rises from 16 images on downwards)."""


@dataclass(frozen=True)
class Recipe:
    """Every number of the loop.

    Attributes:
        epochs: at most; ``patience`` may end it earlier.
        batch_size: images per step.
        optimizer: ``adamw``, ``sgd`` or ``lamb``.
        lr: peak learning rate.
        weight_decay: on weights of convolutions and linear layers only, unless ``decay_norms``.
        warmup: fraction of all steps with a linearly rising rate.
        label_smoothing: 0 for none.
        patience: epochs without a better validation result before stopping; 0 never stops.
        norm: ``train`` or ``eval``, the mode of trainable BatchNorm.
        clip: largest norm of the gradient; 0 clips nothing.
        seed: of order, augmentation and initialisation.
        mixup: alpha of ``plusx.fit.mix.mixup``; 0 mixes nothing.
        cutmix: alpha of ``plusx.fit.mix.cutmix``; with both, each step takes one or the other.
        momentum: of SGD.
        nesterov: of SGD.
        decay_norms: decay biases and norms as well.
        layer_decay: each block's learning rate over that of the one after it.
        schedule: after the warm-up; see ``Schedule``.
        milestones, gamma, power: of the schedule.
        accumulate: parts in which a step's images are run; more need less memory.
        ema: decay of the weights' running average, which is then judged; 0 keeps none.
        loss: ``softmax``, ``bce`` (each class by itself), ``focal``, or ``auto`` by the task.
        target_threshold: of ``bce``: mixed targets above it become 1, others 0; None leaves them.
        focal: exponent of the focal loss.
        drop_path: rate at the last block of stochastic depth.
        gradual: epochs after which one more block learns, from the head on; 0: all from the first.
        repeats: times that an image of an epoch comes, each time as another view.
        balanced: draw every class equally often.
        max_seconds: of training; the schedule ends with it; 0 for as long as it takes.
        train_size: pixels of training views; None for those that the network sees later (FixRes:
            Touvron et al. 2019, arXiv 1906.06423, trains smaller).
        first_size: pixels at the first epoch, which grow to ``train_size`` (progressive resizing,
            in steps of 32 as in FFCV's ImageNet recipe); None begins there.
        temperature: of the distilling part of the loss, where there is a teacher.
        teacher_share: of that part in the loss.
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
    cutmix: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    decay_norms: bool = False
    layer_decay: float = 1.0
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    power: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    loss: Loss = "auto"
    target_threshold: float | None = None
    focal: float = 2.0
    drop_path: float = 0.0
    gradual: int = 0
    repeats: int = 1
    balanced: bool = False
    max_seconds: float = 0.0
    train_size: int | None = None
    first_size: int | None = None
    temperature: float = 2.0
    teacher_share: float = 0.7

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "optimizer": (self.optimizer in get_args(Optimizer), "adamw, sgd or lamb"),
            "lr": (0 < self.lr < math.inf, "above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "at least 0"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "at least 0 and below 1"),
            "patience": (self.patience >= 0, "at least 0"),
            "mixup": (0 <= self.mixup < math.inf, "at least 0"),
            "cutmix": (0 <= self.cutmix < math.inf, "at least 0"),
            "norm": (self.norm in get_args(Norm), "auto, train or eval"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and below 1"),
            "layer_decay": (0 < self.layer_decay <= 1, "above 0 and at most 1"),
            "clip": (0 <= self.clip < math.inf, "at least 0 (0: none)"),
            "accumulate": (1 <= self.accumulate <= self.batch_size,
                           f"between 1 and the {self.batch_size} images of a step"),
            "ema": (0 <= self.ema < 1, "at least 0 and below 1"),
            "loss": (self.loss in get_args(Loss), "auto, softmax, bce or focal"),
            "target_threshold": (self.target_threshold is None or 0 <= self.target_threshold < 1,
                                 "at least 0 and below 1"),
            "focal": (0 <= self.focal < math.inf, "at least 0"),
            "drop_path": (0 <= self.drop_path < 1, "at least 0 and below 1"),
            "gradual": (self.gradual >= 0, "at least 0"),
            "repeats": (self.repeats >= 1, "at least 1"),
            "train_size": (self.train_size is None or self.train_size >= 8, "at least 8"),
            "first_size": (self.first_size is None or self.first_size >= 8, "at least 8"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "teacher_share": (0 < self.teacher_share <= 1, "above 0 and at most 1"),
        }  # fmt: skip
        for name, (fine, wanted) in checks.items():
            if not fine:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name)!r} must be {wanted}"
                )
        _ = self._curve  # which complains

    @property
    def _curve(self) -> Schedule:
        return Schedule(self.schedule, self.warmup, tuple(self.milestones), self.gamma, self.power)

    def lr_at(self, step: int, steps: int, gone: float = 0.0) -> float:
        """Learning rate of step ``step`` of ``steps``: see ``Schedule``.

        Args:
            step: from 0.
            steps: of the training.
            gone: share of its time; where that is further on, the rate goes by it.
        """
        return self.lr * self._curve.factor(max(step, gone * steps), steps)

    def time_gone(self, seconds: float) -> float:
        """Share of ``max_seconds``; 0 where there is no limit."""
        return seconds / self.max_seconds if self.max_seconds else 0.0

    def size_at(self, epoch: int, own: int) -> int:
        """Pixels of training views in ``epoch``, from 1.

        Args:
            epoch: of ``epochs``.
            own: pixels that the network sees later.
        """
        last = self.train_size or own
        if self.first_size is None or self.first_size >= last:
            return last
        # The last third is of the last size, as in FFCV's 16 epochs (arXiv 2306.12517, appendix).
        done = min(1.0, (epoch - 1) / max(1, round(2 / 3 * self.epochs)))
        grown = self.first_size + (last - self.first_size) * done
        return last if done == 1.0 else min(last, round(grown / 32) * 32 or last)


def default_epochs(images: int, *, scratch: bool) -> int:
    """Epochs where none are asked for.

    Fine-tuning starts from a good place and needs few; a net from scratch needs to have seen some
    number of images, so that few images mean many epochs.
    """
    if scratch:
        return min(200, max(20, math.ceil(15_000 / images)))
    return min(12, max(4, math.ceil(40_000 / images)))


def default_lr(optimizer: str, batch_size: int, *, scratch: bool) -> float:
    """Peak learning rate where none is asked for; scaled with the batch, by its root for the
    others (LAMB's steps are shares of the weights: 5e-3 at 2,048 images as in arXiv 2110.00476)."""
    if optimizer == "sgd":
        return (0.1 if scratch else 0.01) * batch_size / 128
    if optimizer == "lamb":
        return (5e-3 if scratch else 1e-3) * math.sqrt(batch_size / 2048)
    return (1e-3 if scratch else 1e-4) * math.sqrt(batch_size / 32)
