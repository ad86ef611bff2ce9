"""Which blocks a residual network misses least: greedy removal, judged from kept activations.

Residual networks behave like ensembles of shorter ones, so that a block taken out costs little
(Veit et al. 2016, arXiv 1605.06431, sections 3 and 4.1). What comes before a removed block is the
same with it and without it: of each batch the input of every block is kept, and only the blocks
behind the removed one run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plusx.fit.loop import Hardware
from plusx.model.classifier import Classifier, average
from plusx.model.surgery import blocks, droppable, fold_batchnorm

Batch = tuple[Tensor, Tensor]
"""Preprocessed images (N, C, H, W) float32 and targets (N,) int64."""


@dataclass(frozen=True)
class Score:
    """Of some images: mean negative log-likelihood in nats, and the share that is right."""

    nll: float
    top1: float


@dataclass(frozen=True)
class Removal:
    """One step: ``block`` goes after those of all steps before it; ``score`` is what is left."""

    block: int
    score: Score


@dataclass(frozen=True)
class Ranking:
    """Blocks in the order in which they go.

    Attributes:
        whole: score of the network as it is.
        alone: block -> score without it and with all others.
        steps: cheapest first, each given those before it.
        block_ms: block -> what a batch of ``batch`` images spends in it.
        images: that judged.
        batch: images of the timing.
    """

    whole: Score
    alone: Mapping[int, Score]
    steps: tuple[Removal, ...]
    block_ms: Mapping[int, float]
    images: int
    batch: int

    def gone(self, count: int) -> list[int]:
        """The first ``count`` blocks to go, sorted."""
        return sorted(step.block for step in self.steps[:count])


@dataclass
class Trace:
    """One batch's way: each block's input, and the features pooled at the stages' ends."""

    inputs: dict[int, Tensor] = field(default_factory=dict)
    pooled: dict[int, Tensor] = field(default_factory=dict)


class Line:
    """A network in evaluation mode, folded, that any of its blocks can be left out of.

    Args:
        model: stays as it is.
        hardware: where and in which precision; pooling and head run in float32.
    """

    def __init__(self, model: Classifier, hardware: Hardware) -> None:
        folded = fold_batchnorm(model).to(device=hardware.device, dtype=hardware.dtype)
        folded = folded.to(memory_format=torch.channels_last)
        folded.head.float()
        self.hardware = hardware
        self._stem, self._norm, self._head = folded.stem, folded.norm, folded.head
        self._used = folded.spec.feature_stages
        self.blocks = blocks(folded)
        depths = [len(cast("nn.Sequential", stage)) for stage in folded.stages]
        self.stage_of = [s for s, depth in enumerate(depths) for _ in range(depth)]

    def stem(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> what the first block takes."""
        where, dtype = self.hardware.device, self.hardware.dtype
        x: Tensor = self._stem(images.to(where, dtype, memory_format=torch.channels_last))
        return x

    def walk(
        self,
        x: Tensor,
        first: int,
        until: int,
        *,
        gone: Iterable[int] = (),
        trace: Trace,
        keep: bool = False,
    ) -> Tensor:
        """Run blocks ``first`` to ``until`` (not included) but those ``gone``.

        Args:
            x: the input of block ``first``.
            first, until: counted from 0 over all stages.
            gone: left out.
            trace: takes the pooled features, with ``keep`` each block's input, too.
        """
        left_out = set(gone)
        for number in range(first, until):
            if keep:
                trace.inputs[number] = x
            if number not in left_out:
                x = self.blocks[number](x)
            stage, last = self.stage_of[number], self.stage_of[-1]
            if number + 1 == len(self.blocks) or self.stage_of[number + 1] != stage:
                trace.pooled[stage] = average(self._norm(x) if stage == last else x)
        return x

    def pooled(self, trace: Trace, x: Tensor) -> Tensor:
        """(N, P) float32: what a way gave so far of the features, P often 0."""
        used = [trace.pooled[s] for s in sorted(trace.pooled) if s > self.stage_of[-1] - self._used]
        return torch.cat([average(x[:, :0]), *used], dim=1)

    def features(self, trace: Trace) -> Tensor:
        """(N, D) of a way that was walked to its end."""
        used = sorted(trace.pooled)[-self._used :]
        return torch.cat([trace.pooled[stage] for stage in used], dim=1)

    def logits(self, trace: Trace) -> Tensor:
        """(N, K) float32 of a way that was walked to its end."""
        found: Tensor = self._head(self.features(trace))
        return found.float()

    def through(self, images: Tensor, *, gone: Iterable[int] = ()) -> tuple[Tensor, Trace]:
        """All of it: logits (N, K), and the way with every block's input."""
        trace = Trace()
        self.walk(self.stem(images), 0, len(self.blocks), gone=gone, trace=trace, keep=True)
        return self.logits(trace), trace

    def without(self, trace: Trace, number: int, gone: Iterable[int]) -> Tensor:
        """Logits (N, K) of a way without block ``number`` as well; only what is behind it runs."""
        pooled = {s: p for s, p in trace.pooled.items() if s < self.stage_of[number]}
        way = Trace(pooled=pooled)
        x = trace.inputs[number]
        self.walk(x, number, len(self.blocks), gone={*gone, number}, trace=way)
        return self.logits(way)


def removable(model: Classifier) -> list[int]:
    """Numbers, from 0, of the blocks that can go: they keep the shape, bypass the residual by an
    identity, and are not alone in their stage. A plain block cannot: what is behind it has learned
    on nothing but its output."""
    all_blocks = blocks(model)
    return [n for n in droppable(model) if getattr(all_blocks[n], "shortcut", None) is not None]


@torch.inference_mode()
def rank_blocks(
    line: Line,
    batches: Sequence[Batch],
    candidates: Sequence[int],
    *,
    rounds: int | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Ranking:
    """Greedy: the block whose loss costs least a millisecond goes, and what is left is ranked anew.

    The cost is the rise of the mean negative log-likelihood, which is smooth where top-1 moves in
    steps; it is divided by the time that the block takes here, for a block of one stage can take
    more time than that of another. A removal that lowers the likelihood's loss comes first.

    Args:
        line: the network.
        batches: images that choose; gone through once a round.
        candidates: see ``removable``.
        rounds: blocks to rank; by default all that can go together.
        tick: called with the number of images after each batch.
    """
    block_ms, timed = _block_ms(line, batches[0][0], candidates)
    gone: list[int] = []
    steps: list[Removal] = []
    whole, alone = Score(0.0, 0.0), dict[int, Score]()
    while rounds is None or len(steps) < rounds:
        options = [n for n in candidates if n not in gone and _company(line, n, gone)]
        if not options:
            break
        now, without = _judge(line, batches, gone, options, tick)
        if not steps:
            whole, alone = now, without
        costs = {n: _price(score.nll - now.nll, block_ms[n]) for n, score in without.items()}
        cheapest = min(options, key=lambda n: costs[n])
        gone.append(cheapest)
        steps.append(Removal(cheapest, without[cheapest]))
    images = sum(len(targets) for _, targets in batches)
    return Ranking(whole, alone, tuple(steps), block_ms, images, timed)


@torch.inference_mode()
def score_without(line: Line, batches: Iterable[Batch], gone: Iterable[int]) -> Score:
    """Of the network without those blocks."""
    sums, left_out = _Sums(), set(gone)
    for images, targets in batches:
        trace = Trace()
        line.walk(line.stem(images), 0, len(line.blocks), gone=left_out, trace=trace)
        sums.add(line.logits(trace), targets)
    return sums.score()


class _Sums:
    def __init__(self) -> None:
        self.nll, self.right, self.images = 0.0, 0, 0

    def add(self, logits: Tensor, targets: Tensor) -> None:
        targets = targets.to(logits.device)
        self.nll += float(F.cross_entropy(logits.double(), targets, reduction="sum"))
        self.right += int((logits.argmax(1) == targets).sum())
        self.images += len(targets)

    def score(self) -> Score:
        return Score(self.nll / self.images, self.right / self.images)


def _judge(
    line: Line,
    batches: Sequence[Batch],
    gone: Sequence[int],
    options: Sequence[int],
    tick: Callable[[int], None],
) -> tuple[Score, dict[int, Score]]:
    now, sums = _Sums(), {n: _Sums() for n in options}
    for images, targets in batches:
        logits, trace = line.through(images, gone=gone)
        now.add(logits, targets)
        for number, one in sums.items():
            one.add(line.without(trace, number, gone), targets)
        tick(len(targets))
    return now.score(), {number: one.score() for number, one in sums.items()}


def _company(line: Line, number: int, gone: Sequence[int]) -> bool:
    """Whether its stage would keep a block."""
    stage = line.stage_of[number]
    return sum(s == stage and n not in gone for n, s in enumerate(line.stage_of)) > 1


def _price(rise: float, ms: float) -> float:
    return rise / ms if rise > 0 else rise * ms


def _block_ms(
    line: Line, images: Tensor, candidates: Sequence[int], *, most: int = 8, turns: int = 5
) -> tuple[dict[int, float], int]:
    """Median over turns in which all blocks are timed one after the other."""
    images = images[:most]
    _, trace = line.through(images)
    taken: dict[int, list[float]] = {n: [] for n in candidates}
    for _ in range(turns + 1):
        for number in candidates:
            started = time.perf_counter()
            line.blocks[number](trace.inputs[number])
            if line.hardware.device.type == "cuda":
                torch.cuda.synchronize(line.hardware.device)
            taken[number].append(1000 * (time.perf_counter() - started))
    return {n: float(np.median(all_ms[1:])) for n, all_ms in taken.items()}, len(images)
