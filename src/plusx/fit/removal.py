"""Which blocks a residual network misses least: greedy removal.

Residual networks behave like ensembles of shorter ones, so that a block taken out costs little
(Veit et al. 2016, arXiv 1605.06431, sections 3 and 4.1). What it costs is judged on what is left
when the others have taken over what they can (``takeover``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from plusx.fit.line import Line, Trace
from plusx.model.classifier import Classifier
from plusx.model.surgery import blocks, droppable

Batch = tuple[Tensor, Tensor]
"""Preprocessed images (N, C, H, W) float32 and targets (N,) int64."""


@dataclass(frozen=True)
class Score:
    """Of some images: mean negative log-likelihood in nats, and the share that is right."""

    nll: float
    top1: float


@dataclass(frozen=True)
class Removal:
    """What is left when ``block`` goes, after those that went before it.

    Attributes:
        block: counted from 0.
        score: of what is left.
        far: squared distance of its features from the whole network's, in units of their variance.
    """

    block: int
    score: Score
    far: float


@dataclass(frozen=True)
class Ranking:
    """Blocks in the order in which they go.

    Attributes:
        whole: score of the network as it is.
        alone: block -> what is left without it and with all others.
        steps: cheapest first, each given those before it.
        block_ms: block -> what a batch of ``batch`` images spends in it.
        images: that judged.
        batch: images of the timing.
    """

    whole: Score
    alone: Mapping[int, Removal]
    steps: tuple[Removal, ...]
    block_ms: Mapping[int, float]
    images: int
    batch: int

    def gone(self, count: int) -> list[int]:
        """The first ``count`` blocks to go, sorted."""
        return sorted(step.block for step in self.steps[:count])


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
    without: Callable[[Sequence[int]], Line],
    *,
    rounds: int | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Ranking:
    """Greedy: the block that costs least a millisecond goes, and what is left is ranked anew.

    The cost is how much further the features come from the network's own; it is divided by the time
    that the block takes here, for a block of one stage can take more time than that of another. A
    block that was too dear in an earlier round is judged anew only when the others have become as
    dear (Minoux 1978): what a removal costs seldom falls when others went before it.

    Args:
        line: the network.
        batches: images that choose; gone through once a block that is judged.
        candidates: see ``removable``.
        without: gives what is left without such blocks.
        rounds: blocks to rank; by default all that can go together.
        tick: called with the blocks that a round has done with.
    """
    block_ms, timed = _block_ms(line, batches[0][0], candidates)
    known = [(targets, *_seen(line, images)) for images, targets in batches]
    whole = _Sums()
    for targets, logits, _ in known:
        whole.add(logits, targets)

    def judged(gone: Sequence[int]) -> Removal:
        child, sums = without(gone), _Sums()
        for (images, targets), (_, _, features) in zip(batches, known, strict=True):
            logits, own = _seen(child, images)
            sums.add(logits, targets)
            sums.compare(own, features)
        return Removal(gone[-1], sums.score(), sums.far())

    alone = {number: judged([number]) for number in candidates}
    steps = _greedy(alone, judged, block_ms, line.stage_of, rounds, tick)
    images = sum(len(targets) for _, targets in batches)
    return Ranking(whole.score(), alone, tuple(steps), block_ms, images, timed)


def _greedy(
    alone: Mapping[int, Removal],
    judged: Callable[[Sequence[int]], Removal],
    block_ms: Mapping[int, float],
    stage_of: Sequence[int],
    rounds: int | None,
    tick: Callable[[int], None],
) -> list[Removal]:
    """The cheapest a millisecond first; ``judged`` gets the blocks that are gone, the last to go at
    the end."""
    price = {number: left.far / block_ms[number] for number, left in alone.items()}
    gone: list[int] = []
    steps: list[Removal] = []
    while rounds is None or len(steps) < rounds:
        options = [n for n in alone if n not in gone and _company(stage_of, n, gone)]
        if not options:
            break
        fresh = {} if steps else dict(alone)
        far = steps[-1].far if steps else 0.0
        while (cheapest := min(options, key=lambda n: price[n])) not in fresh:
            fresh[cheapest] = judged([*gone, cheapest])
            price[cheapest] = (fresh[cheapest].far - far) / block_ms[cheapest]
        gone.append(cheapest)
        steps.append(fresh[cheapest])
        tick(1)
    return steps


@torch.inference_mode()
def score_without(line: Line, batches: Iterable[Batch], gone: Iterable[int]) -> Score:
    """Of the network without those blocks."""
    sums, left_out = _Sums(), set(gone)
    for images, targets in batches:
        sums.add(_seen(line, images, left_out)[0], targets)
    return sums.score()


def _seen(line: Line, images: Tensor, gone: Iterable[int] = ()) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and features (N, D), float32."""
    trace = Trace()
    line.walk(line.stem(images), 0, len(line.blocks), gone=gone, trace=trace)
    return line.logits(trace), line.features(trace).float()


class _Sums:
    """Over images: what ``Score`` and ``Removal`` are made of."""

    def __init__(self) -> None:
        self.nll, self.right, self.images = 0.0, 0, 0
        self.apart, self.spread = 0.0, 0.0

    def add(self, logits: Tensor, targets: Tensor) -> None:
        targets = targets.to(logits.device)
        self.nll += float(F.cross_entropy(logits.double(), targets, reduction="sum"))
        self.right += int((logits.argmax(1) == targets).sum())
        self.images += len(targets)

    def compare(self, features: Tensor, whole: Tensor) -> None:
        self.apart += float((features - whole).double().square().sum())
        self.spread += float((whole - whole.mean(0)).double().square().sum())

    def score(self) -> Score:
        return Score(self.nll / self.images, self.right / self.images)

    def far(self) -> float:
        return self.apart / max(self.spread, 1e-12)


def _company(stage_of: Sequence[int], number: int, gone: Sequence[int]) -> bool:
    """Whether its stage would keep a block."""
    stage = stage_of[number]
    return sum(s == stage and n not in gone for n, s in enumerate(stage_of)) > 1


def _block_ms(
    line: Line, images: Tensor, candidates: Sequence[int], *, most: int = 8, turns: int = 5
) -> tuple[dict[int, float], int]:
    """Median over turns in which all blocks are timed one after the other, and over the blocks of a
    stage: those that keep the shape are alike."""
    images = images[:most]
    trace = line.through(images)
    taken: dict[int, list[float]] = {line.stage_of[n]: [] for n in candidates}
    for turn in range(turns + 1):
        for number in candidates:
            started = time.perf_counter()
            line.blocks[number](trace.inputs[number])
            if line.hardware.device.type == "cuda":
                torch.cuda.synchronize(line.hardware.device)
            if turn:  # the first warms up
                taken[line.stage_of[number]].append(1000 * (time.perf_counter() - started))
    return {n: float(np.median(taken[line.stage_of[n]])) for n in candidates}, len(images)
