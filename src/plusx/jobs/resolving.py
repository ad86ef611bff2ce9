"""From what was asked for to the numbers of a training, said where they surprise."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from plusx.data import AnyAugmentation, Augmentation, Preprocessing, StrongAugmentation
from plusx.data.records import Targets
from plusx.errors import UsageError
from plusx.fit.recipe import SMALLEST_NORM_BATCH, Norm, Recipe, default_epochs, default_lr
from plusx.fit.schedule import warmup_fraction
from plusx.jobs.options import TrainOptions
from plusx.jobs.talk import Talk

T = TypeVar("T")

HEAVIEST = 100.0
"""Most times that the images of a rare class count with ``--class-weights balanced``."""

UNEVEN = 2.0
"""Largest over smallest class above which ``--class-weights auto`` weighs the classes."""


def resolve_recipe(options: TrainOptions, images: int, unfreeze: int | None, talk: Talk) -> Recipe:
    """Every number of the loop.

    Args:
        options: as asked for.
        images: to learn from.
        unfreeze: last blocks to train, or None for the whole network.
        talk: where what was decided is said.
    """
    scratch = options.from_scratch
    batch = min(options.batch_size, images)
    steps = max(1, images // batch)
    epochs = options.epochs or default_epochs(images, scratch=scratch)
    if options.iterations is not None:
        epochs = max(1, round(options.iterations / steps))
        talk.note(f"--iterations {options.iterations}: {epochs} epochs of {steps} steps")
    if batch < options.batch_size and options.recipe is not None:
        talk.note(f"--recipe {options.recipe} takes {options.batch_size} images a step, and there "
                  f"are {images}: the rate that it states is for its own size")  # fmt: skip
    warmup = warmup_fraction(options.warmup, epochs=epochs, steps=steps)
    if isinstance(options.warmup, str) and warmup > 0.5:
        talk.note(f"--warmup {options.warmup!r} is more than half of {epochs} epochs: half of them")
        warmup = 0.5
    return Recipe(
        epochs=epochs,
        batch_size=batch,
        optimizer=options.optimizer,  # type: ignore[arg-type]
        lr=_given(options.lr, default_lr(options.optimizer, batch, scratch=scratch)),
        weight_decay=options.weight_decay,
        warmup=warmup,
        # The probe's head is as sure as it should be; smoothing would only make it less so.
        label_smoothing=_given(options.label_smoothing, 0.1 if scratch else 0.0),
        patience=_given(options.patience, max(4, epochs // 4)),
        norm=resolve_norm(options.norm, batch // options.accumulate, unfreeze, talk),
        seed=options.seed,
        milestones=options.steps_at,
        max_seconds=options.max_seconds,
        loss=options.loss,  # type: ignore[arg-type]
        schedule=options.schedule,  # type: ignore[arg-type]
        **{name: getattr(options, name) for name in _AS_ASKED},
    )


_AS_ASKED = (
    "accumulate", "balanced", "clip", "cutmix", "decay_norms", "drop_path", "ema", "first_size",
    "focal", "gamma", "gradual", "layer_decay", "mixup", "momentum", "nesterov", "power", "repeats",
    "target_threshold", "teacher_share", "temperature", "train_size",
)  # fmt: skip
"""Options that are numbers of the loop as they are."""


def resolve_augmentation(
    options: TrainOptions, images: int, preprocessing: Preprocessing
) -> AnyAugmentation:
    """What a training view may look like.

    Args:
        options: as asked for.
        images: to learn from.
        preprocessing: of the network.
    """
    light = Augmentation.light(images, size=preprocessing.size, channels=preprocessing.channels)
    if options.crop is not None:
        light = replace(light, scale=(options.crop, 1.0), ratio=(3 / 4, 4 / 3))
    jitter = options.jitter
    if jitter is None and (options.pad or options.policy != "none"):
        jitter = 0.0
    if jitter is not None:
        grey = preprocessing.channels in (1, 3)
        colour = preprocessing.channels == 3
        light = replace(
            light,
            brightness=jitter * grey,
            contrast=jitter * grey,
            saturation=jitter * colour,
        )
    light = replace(light, hflip=options.hflip, vflip=options.vflip)
    if not (options.pad or options.erase or options.policy != "none"):
        return light
    return StrongAugmentation(
        light, pad=options.pad, policy=options.made_policy, erase=options.erase
    )


def class_weights(options: TrainOptions, targets: Targets, talk: Talk) -> Tensor | None:
    """(K,) weights that make every class count alike, where they are wanted.

    Targets (n, K) get them only with ``balanced``: then a class's images count as much as those
    without it (at most ``HEAVIEST`` times). ``auto`` leaves them: a class's threshold makes up for
    its rarity, and its probabilities stay what they are.
    """
    if targets.ndim == 2:
        if options.class_weights != "balanced":
            return None
        with_it = targets.sum(axis=0)
        talk.note("every class's images count as much as those without it (--class-weights)")
        return torch.from_numpy(((len(targets) - with_it) / with_it).clip(max=HEAVIEST)).float()
    counts = np.bincount(targets)
    ratio = counts.max() / counts.min()
    if options.class_weights == "none" or (options.class_weights == "auto" and ratio < UNEVEN):
        return None
    talk.note(
        f"the largest class has {ratio:.1f} times the images of the smallest: classes are weighted "
        "to count alike (--class-weights none to leave it)"
    )
    return torch.from_numpy(counts.sum() / (len(counts) * counts)).float()


def resolve_norm(asked: str, batch: int, unfreeze: int | None, talk: Talk) -> Norm:
    """The mode of trainable BatchNorm at ``batch`` images a step; a surprising one is said.

    ``auto`` trains the statistics where the whole network learns from enough images. Behind a
    frozen trunk they stay: what it gives does not change, and on a few hundred images new
    statistics cost 3 (ants and bees) to 16 points (EuroSAT) of top-1 with ResNet-18.
    """
    if unfreeze == 0:  # nothing but the head learns
        return "eval"
    few = batch < SMALLEST_NORM_BATCH
    if asked == "auto":
        if few:
            talk.note(
                f"{batch} images a step are too few for BatchNorm statistics (fewer than "
                f"{SMALLEST_NORM_BATCH}): its running statistics stay as they are "
                "(--norm train to overrule)"
            )
        return "eval" if few or unfreeze is not None else "train"
    if asked == "train" and batch == 1:
        raise UsageError("--norm train: one image a step has no statistics; give 2 or more")
    if asked == "train" and few:
        talk.note(f"BatchNorm statistics from {batch} images a step are noise; asked for by --norm")
    return "train" if asked == "train" else "eval"


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
