"""The learning-rate range test: Smith 2017 (arXiv 1506.01186), section 3.3, with rates that rise by
a factor at each step, and fastai's smoothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from plusx.errors import Diverged
from plusx.fit.criterion import weight_of
from plusx.fit.inputs import Source
from plusx.fit.loop import Hardware, backward, update
from plusx.fit.optimizers import make_optimizer
from plusx.fit.recipe import Recipe
from plusx.fit.state import seed_step
from plusx.model.surgery import training_mode

LEAST, MOST = 1e-6, 10.0
"""Rates between which it looks."""
STEPS = 100
_SMOOTH = 0.9
_WINDOW = 6
"""Steps on either side between which a slope is taken."""
_EXPLODED = 4.0
"""Times the least smoothed loss above which it stops."""


@dataclass(frozen=True)
class RangeTest:
    """What was seen.

    Attributes:
        rates: of each step.
        losses: of each step.
        smooth: running averages of them, without the bias of their start.
        suggested: where the smoothed loss falls fastest, a tenth of the rate at which it is least
            where it hardly falls; at most a third of that, from where training soon diverges.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smooth: tuple[float, ...]
    suggested: float


def range_test(
    net: nn.Module,
    train: Source,
    *,
    recipe: Recipe,
    hardware: Hardware,
    criterion: nn.Module,
    tick: Callable[[int], None] = lambda n: None,
) -> RangeTest:
    """Train a copy of ``net`` for up to ``STEPS`` steps at rates that rise from ``LEAST`` to
    ``MOST``; ``net`` stays as it is.

    Args:
        net: takes what ``train`` gives; parameters with ``requires_grad`` are trained.
        train: images to learn from; as many epochs of it as are needed.
        recipe: all other numbers.
        hardware: device and precision.
        criterion: of the training.
        tick: called with the number of images after each step.

    Raises:
        Diverged: the loss is not finite from the first steps on.
    """
    net = copy.deepcopy(net).to(hardware.device).to(memory_format=torch.channels_last)
    criterion.to(hardware.device)
    optimizer = make_optimizer(net, replace(recipe, lr=LEAST))
    training_mode(net, norm_statistics=recipe.norm == "train")
    rates: list[float] = []
    losses: list[float] = []
    smooth: list[float] = []
    average, epoch = 0.0, 0
    while len(rates) < STEPS:
        epoch += 1
        for inputs, targets, index in train.shuffled(epoch):
            if not len(index):
                continue
            number = len(rates)
            rate = LEAST * (MOST / LEAST) ** (number / (STEPS - 1))
            seed_step(recipe.seed, epoch, number, 0)
            optimizer.zero_grad(set_to_none=True)
            loss = float(backward(
                net, (inputs, targets), criterion=criterion,
                whole=weight_of(criterion, targets), parts=recipe.accumulate, hardware=hardware,
            ))  # fmt: skip
            if not math.isfinite(loss):
                return _found(rates, losses, smooth)
            update(optimizer, rate, recipe.clip, hardware.processes)
            average = _SMOOTH * average + (1 - _SMOOTH) * loss
            rates.append(rate)
            losses.append(loss)
            smooth.append(average / (1 - _SMOOTH ** len(losses)))
            tick(len(targets))
            far = number > STEPS // 10 and smooth[-1] > _EXPLODED * min(smooth)
            if far or len(rates) == STEPS:
                return _found(rates, losses, smooth)
    return _found(rates, losses, smooth)


def _found(rates: list[float], losses: list[float], smooth: list[float]) -> RangeTest:
    if len(rates) < 3:
        raise Diverged(
            "--find-lr: the loss is not finite from the first steps on; look at the images with "
            "plusx scan"
        )
    # The averages of the first steps are of too few images; a slope is taken over a window.
    first = min(2 * _WINDOW, len(smooth) - 1)
    least = min(range(first, len(smooth)), key=smooth.__getitem__)
    places = range(_WINDOW, least - _WINDOW)
    falls = {i: smooth[i - _WINDOW] - smooth[i + _WINDOW] for i in places}
    steepest = max(falls, key=falls.__getitem__, default=None)
    tenth = rates[least] / 10
    suggested = tenth if steepest is None or falls[steepest] <= 0 else rates[steepest]
    return RangeTest(tuple(rates), tuple(losses), tuple(smooth), min(suggested, rates[least] / 3))
