"""Accuracy against batch size: trainable BatchNorm, frozen BatchNorm, GroupNorm.

"BatchNorm needs at least 16 images a step" goes back to Wu and He 2018 (arXiv 1803.08494, figure
1): ResNet-50 on ImageNet, 32 to 2 images per GPU. Here it is measured on a small net and small
images, from scratch and in fine-tuning. All nets of one seed see the same number of images; the
learning rate goes with the batch size (Goyal et al. 2017, arXiv 1706.02677, section 2.1). What a
small batch costs for other reasons than its statistics is seen in GroupNorm, which has none.

``frozen`` keeps the statistics as they are and learns scale and shift. From scratch that leaves
them at mean 0 and variance 1: a net without norms. Fine-tuning starts from the same net trained on
every second class, at 64 images a step, and learns the other classes with a new head.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import nn

from plusx.errors import ArtifactError, UsageError
from plusx.fit.checkpoint import load_checkpoint, save_checkpoint
from plusx.model import ResNet, ResNetSpec
from plusx.model.surgery import replace_head, training_mode
from plusx.science.cifar import SmallImages
from plusx.science.over_seeds import Spread, points, spread
from plusx.science.result import Result, Row
from plusx.science.small_training import Course, Curve, Schedule, Watch, seeded, train

Mode = Literal["scratch", "fine-tune"]
NormChoice = Literal["batch", "frozen", "group"]
Key = Mapping[str, Any]

ADVICE = 16
"""Images a step that BatchNorm is said to need."""

WORTH = 0.02
"""Less accuracy than this is no loss that anyone would act on, nor one that few seeds can show."""

REFERENCE = 32
"""The batch size that ``lr`` is for."""


@dataclass(frozen=True)
class NormPlan:
    """What is trained.

    Attributes:
        batches: images a step.
        seeds: of initialisation, order and augmentation.
        images: that are trained on.
        epochs: of each training; those before fine-tuning have twice as many.
        lr: peak learning rate at 32 images a step.
        tested: test images at the end.
        modes: from scratch, fine-tuned, or both.

    Raises:
        UsageError: a value that cannot work.
    """

    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 2000
    epochs: int = 2
    lr: float = 0.05
    tested: int = 2000
    modes: tuple[Mode, ...] = ("scratch", "fine-tune")

    def __post_init__(self) -> None:
        if not self.batches or not self.seeds or min(self.batches, default=0) < 1:
            raise UsageError("--batches and --seeds must each name one or more, batches from 1 on")
        if self.images < max(self.batches) or self.epochs < 1:
            raise UsageError(
                f"--images {self.images} and --epochs {self.epochs} make no step of "
                f"{max(self.batches)} images"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def spec_of(norm: str, classes: int) -> ResNetSpec:
    """Three stages of one block at 16, 8 and 4 pixels; GroupNorm's 32 groups divide its widths."""
    return ResNetSpec(
        f"small_{norm}", "basic", (1, 1, 1), (32, 64, 128), stem="3x3", stem_width=32,
        stem_stride=2, stem_pool="none", classes=classes, image_size=32,
        norm="group" if norm == "group" else "batch",
    )  # fmt: skip


def start_keys(plan: NormPlan) -> list[Key]:
    """The trainings that fine-tuning starts from."""
    if "fine-tune" not in plan.modes:
        return []
    return [{"mode": "start", "norm": norm, "seed": seed}
            for seed in plan.seeds for norm in ("batch", "group")]  # fmt: skip


def keys(plan: NormPlan) -> list[Key]:
    """Every training that is compared, seed by seed."""
    names = ("seed", "mode", "norm", "batch")
    every = itertools.product(plan.seeds, plan.modes, get_args(NormChoice), plan.batches)
    return [dict(zip(names, values, strict=True)) for values in every]


def start_path(folder: Path, key: Key) -> Path:
    """Where the net lies that a fine-tuning starts from."""
    kind = "group" if key["norm"] == "group" else "batch"
    return folder / f"{kind}-seed{key['seed']}.pt"


def data_of(plan: NormPlan, data: SmallImages, mode: str) -> SmallImages:
    """The images of one mode: all classes, or every second one from the first (``start``) or the
    second (``fine-tune``)."""
    if mode != "scratch":
        offset = 0 if mode == "start" else 1
        data = data.only(range(offset, len(data.classes), 2))
    return data.at_most(plan.images, plan.tested)


def train_start(
    plan: NormPlan, data: SmallImages, key: Key, *, tick: Callable[[int], None], folder: Path
) -> float:
    """One net to fine-tune from, kept below ``folder``; its top-1 on its own classes."""
    own = data_of(plan, data, "start")
    net = seeded(partial(ResNet, spec_of(key["norm"], len(own.classes))), key["seed"])
    curve = _train(plan, net, own, Asked(64, 2 * plan.epochs, 0.1, key["seed"]), tick=tick)
    save_checkpoint(start_path(folder, key), net.state_dict())
    return 1 - curve.test_error[-1]


def train_one(
    plan: NormPlan, data: SmallImages, key: Key, *, tick: Callable[[int], None], folder: Path
) -> dict[str, Any]:
    """One training: ``top1`` at the end, ``wobble`` before it, ``diverged``.

    Raises:
        ArtifactError: the net to start from is missing or damaged.
    """
    own, norm, batch = data_of(plan, data, key["mode"]), key["norm"], key["batch"]
    spec = spec_of(norm, len(own.classes))
    net = seeded(partial(ResNet, spec), key["seed"])
    assert isinstance(net, ResNet)
    if key["mode"] == "fine-tune":
        state = load_checkpoint(start_path(folder, key))
        if state is None:
            raise ArtifactError(f"{start_path(folder, key)}: is missing; remove the pieces beside")
        net = ResNet(spec_of(norm, len(state["head.fc.bias"])))
        net.load_state_dict(state)
        seeded(lambda: _fresh_head(net, len(own.classes)), key["seed"])
    tuned = 0.2 if key["mode"] == "fine-tune" else 1.0
    lr = plan.lr * tuned * batch / REFERENCE
    asked = Asked(batch, plan.epochs, lr, key["seed"])
    prepare = partial(training_mode, norm_statistics=False) if norm == "frozen" else nn.Module.train
    curve = _train(plan, net, own, asked, tick=tick, prepare=prepare)
    tops = 1 - np.array(curve.test_error)
    late = tops[len(tops) // 2 :]
    return {
        "top1": float(tops[-1]),
        "train_error": curve.train_error[-1],
        "wobble": float(np.abs(np.diff(late)).mean()) if len(late) > 1 else math.nan,
        "diverged": curve.diverged,
        "curve": [float(top) for top in tops],
        "cpu_seconds": curve.cpu_seconds,
    }


@dataclass(frozen=True)
class Asked:
    """Batch size, epochs, peak learning rate and seed of one training."""

    batch: int
    epochs: int
    lr: float
    seed: int


def _train(
    plan: NormPlan,
    net: nn.Module,
    data: SmallImages,
    asked: Asked,
    *,
    tick: Callable[[int], None],
    prepare: Callable[[nn.Module], object] = nn.Module.train,
) -> Curve:
    steps = max(1, asked.epochs * (len(data.train) // asked.batch))
    schedule = Schedule(steps, asked.batch, asked.lr, warmup=steps // 20)
    watch = Watch(max(1, steps // 6), min(300, plan.tested))
    return train(net, data, Course(schedule, watch, asked.seed, tick, prepare=prepare))


def _fresh_head(net: ResNet, classes: int) -> nn.Module:
    replace_head(net, classes)
    return net


def result(plan: NormPlan, starts: Sequence[float], values: Sequence[Mapping[str, Any]]) -> Result:
    """Tables and finding, from what ``train_start`` and ``train_one`` gave."""
    rows: list[Row] = [
        {**key, **{n: v[n] for n in ("top1", "train_error", "wobble", "diverged", "cpu_seconds")}}
        for key, v in zip(keys(plan), values, strict=True)
    ]
    summary = _summary(plan, rows)
    return Result(
        "batchnorm", " ".join(_sentences(plan, mode, summary) for mode in plan.modes),
        plan.to_dict() | {"advice": ADVICE, "worth": WORTH},
        {
            "trainings": rows,
            "summary": summary,
            "starts": [{**key, "top1": top} for key, top in zip(start_keys(plan), starts,
                                                                strict=True)],
        },
        notes=[
            f"learning rate {plan.lr:g} x batch / {REFERENCE}, a fifth of it in fine-tuning; all "
            f"trainings see {plan.epochs} x at most {plan.images:,} images",
            "frozen: statistics as they are, scale and shift learn; from scratch that is a net "
            "without norms",
            "wobble: mean change of test top-1 between points of the second half of a training",
        ],
    )  # fmt: skip


def _summary(plan: NormPlan, rows: Sequence[Row]) -> list[Row]:
    """One row a mode, norm and batch size; ``less`` is the paired loss against the largest."""
    found: list[Row] = []
    largest = max(plan.batches)
    for mode, norm in itertools.product(plan.modes, get_args(NormChoice)):
        own = {(r["batch"], r["seed"]): r for r in rows if (r["mode"], r["norm"]) == (mode, norm)}
        for batch in plan.batches:
            tops = spread([own[batch, seed]["top1"] for seed in plan.seeds])
            less = spread([own[largest, seed]["top1"] - own[batch, seed]["top1"]
                           for seed in plan.seeds])  # fmt: skip
            deviation = np.std([own[batch, s]["top1"] for s in plan.seeds], ddof=1) if (
                len(plan.seeds) > 1) else math.nan  # fmt: skip
            found.append({
                "mode": mode, "norm": norm, "batch": batch, "seeds": len(plan.seeds),
                "top1": tops.mean, "top1_least": tops.least, "top1_most": tops.most,
                "deviation": float(deviation),
                "wobble": spread([own[batch, s]["wobble"] for s in plan.seeds]).mean,
                "less": less.mean, "less_low": less.low, "less_high": less.high,
                "diverged": sum(own[batch, s]["diverged"] for s in plan.seeds),
            })  # fmt: skip
    return found


def enough(plan: NormPlan, summary: Sequence[Row], mode: str, norm: str) -> int:
    """The smallest batch size from which on ``norm`` loses no more than ``WORTH`` in the mean
    against the largest."""
    least = max(plan.batches)
    for batch in sorted(plan.batches, reverse=True):
        row = _row(summary, mode, norm, batch)
        if not row["less"] <= WORTH:  # NaN is a loss, too
            break
        least = batch
    return least


def _row(summary: Sequence[Row], mode: str, norm: str, batch: int) -> Row:
    return next(r for r in summary if (r["mode"], r["norm"], r["batch"]) == (mode, norm, batch))


def _sentences(plan: NormPlan, mode: str, summary: Sequence[Row]) -> str:
    small, large, of = min(plan.batches), max(plan.batches), len(plan.seeds)
    said = []
    for norm, name in (("batch", "trainable BatchNorm"), ("frozen", "frozen BatchNorm"),
                       ("group", "GroupNorm")):  # fmt: skip
        row = _row(summary, mode, norm, small)
        change = Spread(-row["less"], -row["less_high"], -row["less_low"], 0.0, 0.0, of)
        top = 100 * _row(summary, mode, norm, large)["top1"]
        lost = sum(_row(summary, mode, norm, b)["diverged"] for b in plan.batches)
        said.append(
            f"{name} {top:.1f}% at {large} and {points(change)} at {small}"
            + (f" ({lost} trainings diverged)" if lost else "")
        )
    least = enough(plan, summary, mode, "batch")
    judged = "as the advice says" if least == ADVICE else (
        f"so the advice of {ADVICE} is {'more' if least < ADVICE else 'less'} than needed here"
    )  # fmt: skip
    if ADVICE not in plan.batches or large <= ADVICE:
        judged = f"the advice of {ADVICE} was not put to the test by these batch sizes"
    return (
        f"{mode.capitalize()}: top-1 is {'; '.join(said)}. Trainable BatchNorm stays within "
        f"{100 * WORTH:g} points of its best from {least} images a step on, {judged}."
    )
