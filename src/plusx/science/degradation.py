"""Degradation: deeper plain nets have the higher *training* error, residual nets do not.

He et al. 2015 (arXiv 1512.03385), sections 1 and 4.2. The same nets (6n + 2 layers, option A) with
and without shortcuts, the same recipe, seeds paired: the nets of one seed see the same pixels in
the same steps, and a plain net starts from the weights of its residual twin.

The paper's argument that this is a failure of optimisation is a construction: a trained shallow
net, padded with layers that do nothing, is a deep net with the shallow one's error. It is built
here and evaluated: the bound that the deep plain net misses.

Departures: each channel's mean and deviation are taken off instead of each pixel's mean;
``laptop`` trains on fewer images for fewer steps, with smaller batches and a cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from plusx.errors import UsageError
from plusx.model import ResNet, ResNetSpec, variant
from plusx.model.blocks import BasicResidual
from plusx.science.cifar import SmallImages
from plusx.science.small_training import Course, Schedule, Watch, error_of, seeded, train

Kind = Literal["plain", "residual"]
Key = Mapping[str, Any]

PAPER_ERROR = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}
"""Test error of the residual nets in percent (table 6; 110 is the best of five runs)."""


@dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
        preset: its name.
        depths: layers, 6n + 2 each.
        seeds: of initialisation, order and augmentation.
        schedule: of every net (see ``schedule_of``).
        train_images: how many are trained on; None takes all.
        points: points of each curve.
        seen: training and test images of a point of the curve but the last.
    """

    preset: str
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    schedule: Schedule
    train_images: int | None = None
    points: int = 10
    seen: int = 1000

    def __post_init__(self) -> None:
        for depth in self.depths:
            variant(f"resnet{depth}_cifar_a")  # refuses what is not 6n + 2
        if not self.depths or not self.seeds:
            raise UsageError("--depths and --seeds must each name one or more")
        if len(set(self.depths)) < len(self.depths) or len(set(self.seeds)) < len(self.seeds):
            raise UsageError("--depths and --seeds must not name one twice")

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what a finished training depends on, and the preset's name."""
        return {
            "preset": self.preset, "depths": list(self.depths), "seeds": list(self.seeds),
            "schedule": self.schedule.to_dict(), "train_images": self.train_images,
            "points": self.points, "seen": self.seen,
        }  # fmt: skip


# Fixed before the seeds that are reported were run; the pilot's seed was 100.
LAPTOP = Plan(
    "laptop", (20, 56), (0, 1, 2),
    Schedule(iterations=2400, batch_size=64, lr=0.1, decay="cosine", warmup=50),
    train_images=10_000, seen=500,
)  # fmt: skip

PAPER = Plan(
    "paper", (20, 32, 44, 56, 110, 1202), (0, 1, 2, 3, 4),
    Schedule(iterations=64_000, batch_size=128, lr=0.1, decay="steps",
             milestones=(32_000, 48_000)),
    points=64, seen=5000,
)  # fmt: skip

PRESETS = {"laptop": LAPTOP, "paper": PAPER}


def plan_of(preset: str, **changes: Any) -> Plan:
    """A preset with some things changed: ``depths``, ``seeds``, ``iterations``, ``train_images``;
    None leaves one as it is. Milestones and warm-up keep their share of the iterations.

    Raises:
        UsageError: an unknown preset, or a value that cannot work.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset!r} is not one of {', '.join(PRESETS)}")
    plan, given = PRESETS[preset], {k: v for k, v in changes.items() if v is not None}
    for name in ("iterations", "train_images"):
        if given.get(name, 1) < 1:
            raise UsageError(f"{name.replace('_', ' ')} {given[name]} must be at least 1")
    if (iterations := given.pop("iterations", None)) is not None:
        share = iterations / plan.schedule.iterations
        given["schedule"] = replace(
            plan.schedule, iterations=iterations, warmup=round(plan.schedule.warmup * share),
            milestones=tuple(round(end * share) for end in plan.schedule.milestones),
        )  # fmt: skip
    return replace(plan, **given)


def spec_of(kind: Kind, depth: int, classes: int) -> ResNetSpec:
    """The net: ``resnet20_cifar_a`` or its plain twin."""
    name = f"resnet{depth}_cifar_a"
    return variant(f"plain_{name}" if kind == "plain" else name).replace(classes=classes)


def schedule_of(plan: Plan, depth: int) -> Schedule:
    """The paper warms up 110 layers (and more) at .01 until the error is below 80%, "about 400
    iterations"; here it is 400."""
    if plan.preset == "paper" and depth >= 110 and plan.schedule.warmup == 0:
        return replace(plan.schedule, warmup=400)
    return plan.schedule


def keys(plan: Plan) -> list[Key]:
    """Every training, seed by seed, so that whole pairs finish first."""
    return [
        {"kind": kind, "depth": depth, "seed": seed}
        for seed in plan.seeds for depth in plan.depths for kind in get_args(Kind)
    ]  # fmt: skip


def cost(plan: Plan, key: Key) -> int:
    """Of a training, in layers times images: what its time goes with."""
    schedule = schedule_of(plan, key["depth"])
    return int(schedule.iterations * schedule.batch_size * key["depth"])


def train_one(
    plan: Plan,
    data: SmallImages,
    key: Key,
    *,
    tick: Callable[[int], None] = lambda images: None,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> tuple[dict[str, Any], ResNet]:
    """One training, and the construction on what came out of it.

    Args:
        plan: see there.
        data: all images; the plan says how many are used.
        key: one of ``keys(plan)``.
        tick: gets the number of images trained on.
        checkpoint: see ``Course``.
        device: where.

    Returns:
        JSON values (``curve``, ``parameters``, ``padded``: depth -> errors of the net padded to
        it) and the net.
    """
    data = data.at_most(plan.train_images, None)
    spec, seed = spec_of(key["kind"], key["depth"], len(data.classes)), key["seed"]
    net = seeded(lambda: ResNet(spec), seed)
    assert isinstance(net, ResNet)
    net.to(device)
    schedule = schedule_of(plan, key["depth"])
    every = max(1, schedule.iterations // plan.points)
    course = Course(schedule, Watch(every, plan.seen), seed, tick, checkpoint)
    curve = train(net, data, course)
    padded = {}
    for depth in plan.depths:
        if depth > key["depth"] and not curve.diverged:
            deeper = pad(net, depth)
            padded[str(depth)] = [error_of(deeper, part, data) for part in (data.train, data.test)]
    parameters = sum(p.numel() for p in net.parameters())
    return {"curve": curve.to_dict(), "parameters": parameters, "padded": padded}, net


def pad(net: ResNet, depth: int) -> ResNet:
    """A net of that depth that computes what ``net`` does: layers are added that do nothing.

    Section 1: "the added layers are identity mapping, and the other layers are copied from the
    learned shallower model". In a residual net the branch of an added block is zero; in a plain
    one both convolutions copy their input. Either is exact in evaluation mode, since what enters
    a block has passed a ReLU and is never negative.

    Raises:
        UsageError: ``depth`` is less than the net has, or not 6n + 2.
    """
    deep = variant(f"resnet{depth}_cifar_a").depths
    own = net.spec.depths
    if any(d < o for d, o in zip(deep, own, strict=True)):
        raise UsageError(f"depth {depth} is less than {net.spec.name} has")
    with torch.random.fork_rng(devices=[]):
        padded = ResNet(net.spec.replace(depths=deep))
    state = net.state_dict()
    padded.load_state_dict(padded.state_dict() | state)
    for stage, there in zip(padded.stages, own, strict=True):
        for block in list(stage.children())[there:]:
            _do_nothing(block.residual, plain=net.spec.shortcut == "none")  # type: ignore[arg-type]
    return padded.to(next(net.parameters())).eval()


def _do_nothing(residual: BasicResidual, *, plain: bool) -> None:
    for conv, norm in ((residual.conv1, residual.norm1), (residual.conv2, residual.norm2)):
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.dirac_(conv.weight)
        nn.init.ones_(norm.weight)
        # variance and eps together are one: the norm is the identity
        nn.init.constant_(norm.running_var, 1 - norm.eps)  # type: ignore[arg-type]
    if not plain:
        residual.zero_last()
