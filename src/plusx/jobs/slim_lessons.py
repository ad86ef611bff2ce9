"""What the tuning of a slimmed network learns from: activations at the split, and the parent's
answers. The blocks before the first removed one run once for parent and child."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plusx.data import BadImage
from plusx.errors import DataError, UsageError
from plusx.fit.distil import Lessons
from plusx.fit.inputs import Step, StreamedImages
from plusx.fit.line import Line, Trace
from plusx.fit.rows import sample
from plusx.fit.takeover import Refit, take_over
from plusx.fit.trunk import ActivationShape, Rows, ScratchActivations
from plusx.jobs.slim_setup import Plan
from plusx.jobs.talk import Talk
from plusx.runtime import forward_batch

FITTED = 512
"""Images, views of one counted apart, on which blocks take over what the removed ones did."""

FEWEST_FITTED = 32
"""Fewer give too few equations."""


@dataclass(frozen=True, eq=False)
class ParentAnswers:
    """What the parent gives, float32: logits ``taught`` (V, n, K) and features ``hints`` (V, n, D)
    of the training images' views, logits ``held`` (m, K) of the images that choose."""

    taught: Tensor
    hints: Tensor
    held: Tensor


@dataclass(frozen=True, eq=False)
class Pair:
    """Parent and child, both ready to run.

    Attributes:
        parent, child: as lines.
        gone: blocks that the child lacks, in the parent's numbering.
    """

    parent: Line
    child: Line
    gone: Collection[int]

    @property
    def shared(self) -> int:
        """The first blocks that are the same in both: the one in front of the first that is gone
        has taken over from it."""
        return max(0, min(self.gone) - 1)

    def place(self, number: int) -> int:
        """The child's number of the parent's block ``number``."""
        return number - sum(one < number for one in self.gone)


def split_at(line: Line, gone: Collection[int]) -> int:
    """The block, in the parent's numbering, from which on the child is tuned.

    From the first removed block on, for what is behind it sees other maps than before; but all of
    the last stage at least, and at most the last two: the stages before them take nearly half of
    the time, and hold few of the weights.
    """
    first_of = {stage: line.stage_of.index(stage) for stage in line.stage_of}
    last = line.stage_of[-1]
    split = min(max(min(gone), first_of[max(0, last - 1)]), first_of[last])
    while split in gone:
        split += 1
    return split


def gather_lessons(
    plan: Plan,
    pair: Pair,
    split: int,
    *,
    folder: Path,
    known: ParentAnswers | None,
    talk: Talk,
) -> tuple[Lessons, ParentAnswers]:
    """Run every view up to the split, once.

    Args:
        plan: whose images.
        pair: parent and child.
        split: see ``split_at``.
        folder: takes the activations.
        known: the parent's answers, where an earlier call gave them: its own blocks behind the
            first removed one then stay idle.
        talk: where progress is said.

    Raises:
        DataError: an image cannot be read any more.
        UsageError: the activations of one view don't fit into ``--cache-gib`` or on the disk.
    """
    views, n, m = plan.views, len(plan.train), len(plan.chooses)
    shape = _shape(plan, pair, split)
    views = _fitting(plan, shape, views, folder, talk) if known is None else len(known.taught)
    store = ScratchActivations(folder, views * n + m, shape)
    classes, wide = len(plan.parent.classes), plan.parent.spec.feature_channels
    answers = known or ParentAnswers(
        torch.zeros(views, n, classes), torch.zeros(views, n, wide), torch.zeros(m, classes)
    )
    with talk.phase("running the trunk", views * n + m) as tick:
        for view in range(views + 1):
            choosing = view == views
            rows = plan.chooses if choosing else plan.train
            for (images,), _, index in _images(plan, rows, 0 if choosing else view):
                activation, pooled, told = _run(pair, images, split, teach=known is None)
                store.write(view * n + index, activation, pooled)
                if told is not None:
                    at = torch.from_numpy(index)
                    (answers.held if choosing else answers.taught[view])[at] = told[0]
                    if not choosing:
                        answers.hints[view][at] = told[1]
                tick(len(index), "")
    targets = torch.from_numpy(plan.targets(plan.train))
    held = torch.from_numpy(plan.targets(plan.chooses))
    return Lessons(store, targets, answers.taught, answers.hints, held), answers


@torch.inference_mode()
def fit_what_stays(plan: Plan, pair: Pair, folder: Path, talk: Talk) -> dict[int, Refit]:
    """Let the child's blocks take over what the removed ones did: see ``take_over``, which this
    gives training images, and as many views of each as make ``FITTED`` images.

    Raises:
        DataError: an image cannot be read any more.
        UsageError: too few maps fit into ``--cache-gib`` or on the disk.
    """
    folder.mkdir()
    size, channels = plan.setup.preprocessing.size, plan.setup.preprocessing.channels
    parent, first = pair.parent, pair.shared
    trace = Trace()
    blank = parent.stem(torch.zeros(1, channels, size, size))
    map_bytes = 2 * max(  # of parent and child
        x.numel() * x.element_size()
        for n in (first, first + 1)
        for x in [parent.walk(blank, 0, n, trace=trace)]
    )
    count = min(FITTED, int(_allowed(plan, folder) / (2 * map_bytes)))  # old and new, at most
    if count < min(FEWEST_FITTED, FITTED):
        raise UsageError(
            f"--cache-gib {plan.options.cache_gib:g}: there is room for the maps of {count} images "
            f"and {FEWEST_FITTED} are needed; give {2 * FEWEST_FITTED * map_bytes / 2**30:.2g}"
        )
    random = np.random.default_rng(plan.options.seed)
    some = plan.train[random.permutation(sample(plan.targets(plan.train), count, random))]
    batches, at = [], 0
    while at < count:
        view, start = divmod(at, len(some))
        rows = some[start : start + count - at]
        batches.append((rows, view))
        at += len(rows)

    def images() -> Iterator[Tensor]:
        for rows, view in batches:
            for (part,), _, _ in _images(plan, rows, view):
                yield part

    blocks = len(parent.blocks) - first - len(pair.gone)
    with talk.phase(f"fitting {blocks} blocks", count * blocks) as tick:
        return take_over(parent, pair.child, pair.gone, images(), count=count, folder=folder,
                         tick=lambda n: tick(n, ""))  # fmt: skip


@torch.inference_mode()
def _run(
    pair: Pair, images: Tensor, split: int, *, teach: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """Activation and pooled features of the child at the split; logits and features of the parent,
    float32 on the CPU."""
    parent, shared = pair.parent, min(pair.shared, split)
    trace = Trace()
    x = parent.walk(parent.stem(images), 0, shared, trace=trace)
    own, told = Trace(pooled=dict(trace.pooled)), None
    if teach:
        parent.walk(x, shared, len(parent.blocks), trace=trace)
        told = parent.logits(trace).cpu(), parent.features(trace).float().cpu()
    x = pair.child.walk(x, shared, pair.place(split), trace=own)
    return x, pair.child.pooled(own, x), told


def _images(plan: Plan, rows: Rows, view: int) -> Iterator[Step]:
    def refuse(bad: Sequence[BadImage]) -> None:
        raise DataError(f"{bad[0].path}: cannot be read any more: {bad[0].reason}")

    setup = plan.setup
    images = StreamedImages(
        plan.samples(rows),
        setup.preprocessing,
        targets=plan.targets(rows),
        augmentation=setup.augmentation,
        feed=replace(setup.feed, batch_size=forward_batch(setup.hardware.device)),
        on_bad=refuse,
    )
    return images.view(view) if view else images.ordered()


def _shape(plan: Plan, pair: Pair, split: int) -> ActivationShape:
    size = plan.setup.preprocessing.size
    blank = torch.zeros(1, plan.setup.preprocessing.channels, size, size)
    activation, pooled, _ = _run(pair, blank, split, teach=False)
    channels, height, width = activation.shape[1:]
    return ActivationShape((channels, height, width), pooled.shape[1], activation.dtype)


def _allowed(plan: Plan, folder: Path) -> float:
    """Bytes that may lie below ``folder``. A full disk kills a process that writes through a memory
    map, so some of it is left free."""
    return min(plan.options.cache_gib * 2**30, 0.9 * shutil.disk_usage(folder).free)


def _fitting(plan: Plan, shape: ActivationShape, views: int, folder: Path, talk: Talk) -> int:
    """Views that fit; fewer than wanted are said."""
    allowed = _allowed(plan, folder)
    n, m = len(plan.train), len(plan.chooses)
    room = math.floor((allowed / shape.row_bytes - m) / n)
    if room < 1:
        gib = shape.row_bytes * (n + m) / 2**30
        raise UsageError(
            f"--cache-gib {plan.options.cache_gib:g}: the activations of {n} training images take "
            f"{gib:.2g} GiB, and {allowed / 2**30:.2g} GiB may be used; give more, or fewer "
            "--tune-images or --images"
        )
    if room < views:
        talk.note(f"--cache-gib and the disk have room for {room} of {views} views of an image")
    return min(room, views)
