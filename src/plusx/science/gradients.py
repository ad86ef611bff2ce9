"""Gradients and activations by depth: shortcut x BatchNorm x initialisation.

He et al. 2015 (arXiv 1512.03385), section 4.1, say of plain nets with BatchNorm that neither
forward nor backward signals vanish; Glorot and Bengio 2010 and He et al. 2015 (arXiv 1502.01852)
give the growth of either in nets without norms, Yang et al. 2019 (arXiv 1902.08129) that of
gradients in plain nets with BatchNorm, which grow. Here all eight combinations are measured.

A net without BatchNorm is the net with every norm left out. Initialisation ``he`` draws normal
weights of variance 2 / fan out (arXiv 1502.01852), ``framework`` is torch's own: uniform, of
variance 1 / (3 fan in).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model import ResNet, variant
from plusx.model.classifier import Classifier
from plusx.model.surgery import blocks
from plusx.science.cifar import SmallImages
from plusx.science.over_seeds import Spread, spread
from plusx.science.small_training import Course, Schedule, Watch, seeded, train

Shortcut = Literal["residual", "plain"]
NormChoice = Literal["batch", "none"]
Init = Literal["he", "framework"]
Key = Mapping[str, Any]

LEVEL = 100.0
"""A gradient that changes by less than this factor between last and first block stays level."""


@dataclass(frozen=True)
class GradientPlan:
    """What is measured.

    Attributes:
        depths: layers of the CIFAR nets, 6n + 2 each.
        seeds: of initialisation and order.
        images: how many a measurement takes.
        steps: of training; 0 measures at initialisation alone.
        points: measurements along training, evenly spread.
        trained_depth: which of the depths is trained.
        lr: of that training, constant: the paper's warm-up rate, so that more nets survive.

    Raises:
        UsageError: a value that cannot work.
    """

    depths: tuple[int, ...] = (20, 56)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    images: int = 32
    steps: int = 60
    points: int = 3
    lr: float = 0.01

    def __post_init__(self) -> None:
        for depth in self.depths:
            variant(f"resnet{depth}_cifar_a")
        if not self.depths or not self.seeds:
            raise UsageError("--depths and --seeds must each name one or more")
        if self.images < 2 or self.steps < 0:
            raise UsageError(
                f"{self.images} images and {self.steps} steps: at least 2 and 0 are needed"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "depths": list(self.depths), "seeds": list(self.seeds), "images": self.images,
            "steps": self.steps, "points": self.points, "lr": self.lr,
        }  # fmt: skip


def keys(plan: GradientPlan) -> list[Key]:
    """Every net: depth by depth, all combinations, all seeds."""
    names = ("depth", "shortcut", "norm", "init", "seed")
    choices = (get_args(Shortcut), get_args(NormChoice), get_args(Init))
    every = itertools.product(plan.depths, *choices, plan.seeds)
    return [dict(zip(names, values, strict=True)) for values in every]


def make_net(key: Key, classes: int) -> ResNet:
    """The net of that key, in training mode."""

    def build() -> nn.Module:
        name = f"resnet{key['depth']}_cifar_a"
        spec = variant(name if key["shortcut"] == "residual" else f"plain_{name}")
        net = ResNet(spec.replace(classes=classes))
        if key["init"] == "framework":
            for module in net.modules():
                if isinstance(module, nn.Conv2d):
                    module.reset_parameters()
        if key["norm"] == "none":
            leave_out_norms(net)
        return net

    net = seeded(build, key["seed"])
    assert isinstance(net, ResNet)
    return net


def leave_out_norms(net: nn.Module) -> None:
    """Every BatchNorm becomes the identity, in place."""
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


@dataclass(frozen=True)
class Norms:
    """Of every block, first to last; each a list of floats.

    Attributes:
        activation: root mean square of the block's output.
        gradient: Euclidean norm of one image's loss gradient with respect to the block's output,
            mean over images.
        weights: Euclidean norm of the gradient of all the block's parameters, of the mean loss.
    """

    activation: list[float]
    gradient: list[float]
    weights: list[float]


def measure(net: Classifier, images: Tensor, targets: Tensor) -> Norms:
    """One forward and backward pass; the net's mode decides on its norms' statistics.

    Args:
        net: its parameters' gradients are cleared.
        images: (N, C, H, W), normalised, of the net's dtype.
        targets: (N,) int64.

    Raises:
        UsageError: the net has no blocks.
    """
    units = blocks(net)
    if not units:
        raise UsageError(f"{net.spec.name} has no blocks to measure")
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    hooks = [unit.register_forward_hook(keep) for unit in units]
    try:
        net.zero_grad()
        functional.cross_entropy(net(images), targets, reduction="sum").backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    gradients = []
    for output in outputs:
        assert output.grad is not None
        gradients.append(float(output.grad.flatten(1).norm(dim=1).mean()))
    weights = [
        math.hypot(*(float(p.grad.norm()) for p in unit.parameters() if p.grad is not None))
        / len(images)
        for unit in units
    ]
    net.zero_grad()
    return Norms([float(o.detach().square().mean().sqrt()) for o in outputs], gradients, weights)


def measure_one(
    plan: GradientPlan, data: SmallImages, key: Key, *, tick: Callable[[int], None]
) -> list[dict[str, Any]]:
    """One net at initialisation (in float64) and along training: rows of ``step`` and norms.

    A training that diverges leaves fewer rows. Only the shallowest depth is trained.
    """
    part = data.train.take(plan.images)
    images, targets = data.normalise(part.images), part.targets
    net = make_net(key, len(data.classes))
    first = measure(net.double(), images.double(), targets)
    rows = [{"step": 0, **vars(first)}]
    tick(plan.images)
    if plan.steps == 0 or key["depth"] != min(plan.depths):
        return rows
    net = make_net(key, len(data.classes))
    each = max(1, plan.steps // plan.points)
    for point in range(1, plan.points + 1):
        # a constant rate: a training in several parts is one training but for the momentum
        schedule = Schedule(each, 32, plan.lr, decay="steps")
        seed = 1000 * key["seed"] + point
        curve = train(net, data, Course(schedule, Watch(each, 1, last=1), seed, tick))
        net.train()
        norms = measure(net, images, targets)
        if curve.diverged or not all(map(math.isfinite, norms.gradient)):
            break
        rows.append({"step": point * each, **vars(norms)})
    return rows


@dataclass(frozen=True)
class Trend:
    """How a norm goes with depth.

    Attributes:
        per_block: factor from one block to the next within a stage (least squares of its
            logarithm on the block's number, a level for each stage).
        whole: first block over last block.
    """

    per_block: float
    whole: float


def trend(values: Sequence[float], depths: Sequence[int], *, toward_input: bool) -> Trend:
    """Fit of ``log(value)``; a value that is zero or no number makes it NaN.

    Args:
        values: one a block.
        depths: blocks of each stage.
        toward_input: whether "next" is the block before (gradients) or after (activations).
    """
    with np.errstate(all="ignore"):
        log = np.log(np.asarray(values, dtype=np.float64))
    if not np.isfinite(log).all():
        return Trend(math.nan, math.nan)
    x, y = [], []
    start = 0
    for depth in depths:
        number = np.arange(depth, dtype=np.float64)
        x.append(number - number.mean())
        y.append(log[start : start + depth] - log[start : start + depth].mean())
        start += depth
    number, level = np.concatenate(x), np.concatenate(y)
    rising = float((number * level).sum() / max(1e-12, float((number**2).sum())))
    sign = -1.0 if toward_input else 1.0
    return Trend(math.exp(sign * rising), math.exp(sign * float(log[-1] - log[0])))


def verdict(whole: Spread) -> str:
    """``vanishes``, ``explodes`` or ``stays level``, from log10 of first over last block; where
    the interval over seeds reaches past the threshold, ``unclear``."""
    edge = math.log10(LEVEL)
    low = whole.low if math.isfinite(whole.low) else whole.mean
    high = whole.high if math.isfinite(whole.high) else whole.mean
    if math.isnan(whole.mean):
        return "no number"
    if high < -edge:
        return "vanishes"
    if low > edge:
        return "explodes"
    return "stays level" if -edge <= low and high <= edge else "unclear"


def stage_depths(depth: int) -> tuple[int, ...]:
    """Blocks of each stage of the CIFAR net."""
    return tuple(variant(f"resnet{depth}_cifar_a").depths)


def over_seeds(trends: Sequence[Trend]) -> tuple[Spread, Spread]:
    """Of ln(per_block) and of log10(whole)."""
    logs = [math.log(t.per_block) if t.per_block > 0 else math.nan for t in trends]
    return spread(logs), spread([math.log10(t.whole) if t.whole > 0 else math.nan for t in trends])
