"""How many blocks can go: rank, remove, tune, judge on the images that choose."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plusx.data import load_batches, plain_reader
from plusx.errors import DataError, UsageError
from plusx.evaluate.intervals import Figure
from plusx.evaluate.paired import compare
from plusx.evaluate.selection import figure_then_nll
from plusx.fit.distil import distil
from plusx.fit.line import Line
from plusx.fit.removal import Batch, Ranking, rank_blocks, removable
from plusx.fit.rows import sample
from plusx.fit.takeover import take_over, write_back
from plusx.fit.trunk import Rows
from plusx.jobs.slim_lessons import (
    Pair,
    ParentAnswers,
    fit_what_stays,
    gather_lessons,
    split_at,
)
from plusx.jobs.slim_setup import Plan
from plusx.jobs.talk import Talk
from plusx.model.classifier import Classifier
from plusx.model.surgery import drop_blocks, split_trunk, unfreeze_last_blocks
from plusx.runtime import forward_batch

Score = tuple[float, float]
"""Top-1 and negated nll."""

RANK_FITTED = 64
"""Training images on which, while blocks are ranked, those that stay take over."""


@dataclass(frozen=True)
class Tried:
    """Some number of blocks removed, and the rest tuned.

    Attributes:
        gone: the blocks, sorted.
        tuned: last blocks of what is left that were tuned.
        fitted: blocks whose last convolution took over what the removed ones did.
        before, after: top-1 and nll on the images that choose, before and after the tuning.
        change: top-1 of the tuned child less the parent's, there, with its paired interval.
        fits: whether no more is lost than allowed.
    """

    gone: tuple[int, ...]
    tuned: int
    fitted: int
    before: Score
    after: Score
    change: Figure
    fits: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What the search gave.

    Attributes:
        ranking: of all blocks that can go.
        tried: by number of blocks.
        parent: top-1 and nll of the parent on the images that choose.
        best: the largest number tried that fits; None where none does.
        child: it, tuned; None where none fits.
    """

    ranking: Ranking
    tried: dict[int, Tried]
    parent: Score
    best: Tried | None
    child: Classifier | None


def batches(plan: Plan, rows: Rows, talk: Talk) -> Iterator[Batch]:
    """Plain views with their targets, in the precision of the hardware."""
    samples, targets = plan.samples(rows), torch.from_numpy(plan.targets(rows))
    read = plain_reader(plan.setup.preprocessing)
    hardware = plan.setup.hardware
    size = 4 * forward_batch(hardware.device)
    for batch in load_batches(samples, read, batch_size=size, threads=plan.setup.threads):
        for item in batch.bad:
            talk.note(f"left out: {item.path}: {item.reason}")
        if len(batch.images):
            yield batch.images.to(hardware.dtype), targets[batch.index]


class Search:
    """Tries numbers of blocks, each once.

    Args:
        plan: who is slimmed, on which images.
        line: the parent, folded.
        folder: for activations; whoever made it removes it.
        talk: where progress is said.
    """

    def __init__(self, plan: Plan, line: Line, folder: Path, talk: Talk) -> None:
        self.plan, self.line, self.talk = plan, line, talk
        self._folder = folder
        self._fits: list[Tensor] = []
        self.parents: ParentAnswers | None = None
        self.tried: dict[int, Tried] = {}
        self.child: Classifier | None = None

    def run(self) -> Found:
        """Rank, then find the largest number of blocks that fits.

        Raises:
            UsageError: ``--blocks`` is more than can go.
        """
        ranking = self._rank()
        most, wanted = len(ranking.steps), self.plan.options.blocks
        if wanted is not None and wanted > most:
            raise UsageError(f"--blocks {wanted}: of {self.plan.parent.spec.name} {most} can go")
        if wanted is not None:
            self._try(ranking, wanted)
        elif self.plan.options.curve:
            for count in range(1, most + 1):
                self._try(ranking, count)
        else:
            self._halve(ranking, most)
        fitting = [count for count, one in self.tried.items() if one.fits]
        best = self.tried[max(fitting)] if fitting else None
        assert self.parents is not None  # something was tried
        held = replace(self.plan.unanswered(self.plan.chooses), logits=self.parents.held.numpy())
        return Found(
            ranking=ranking,
            tried=dict(sorted(self.tried.items())),
            parent=figure_then_nll(held),
            best=best,
            child=self.child,
        )

    def _rank(self) -> Ranking:
        plan = self.plan
        candidates = removable(plan.parent.model)
        shown = list(batches(plan, plan.ranks, self.talk))
        if not shown:
            raise DataError("none of the images that choose can be read")
        some = np.random.default_rng(plan.options.seed).permutation(
            sample(plan.targets(plan.train), RANK_FITTED, np.random.default_rng(plan.options.seed))
        )
        self._fits = [x for x, _ in batches(plan, plan.train[some], self.talk)]
        wanted = plan.options.blocks
        with self.talk.phase("ranking blocks", wanted or len(candidates)) as tick:
            return rank_blocks(self.line, shown, candidates, self.left_without, rounds=wanted,
                               tick=lambda n: tick(n, ""))  # fmt: skip

    def left_without(self, gone: Collection[int]) -> Line:
        """As the ranking sees it: what stays is fitted on few images, and not tuned."""
        line = Line(drop_blocks(self.plan.parent.model, gone), self.plan.setup.hardware)
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            count = sum(map(len, self._fits))
            take_over(self.line, line, gone, self._fits, count=count, folder=Path(work))
        return line

    def _halve(self, ranking: Ranking, most: int) -> None:
        """Between a number that fits (0 does) and one that does not, try the middle."""
        fits, too_many = 0, most + 1
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if self._try(ranking, middle).fits:
                fits = middle
            else:
                too_many = middle

    def _try(self, ranking: Ranking, count: int) -> Tried:
        plan, gone = self.plan, ranking.gone(count)
        child, fitted = self._without(gone)
        split = split_at(self.line, gone)
        tuned = sum(n not in gone for n in range(split, len(self.line.blocks)))
        unfreeze_last_blocks(child, tuned)
        net = split_trunk(child, tuned)[1]
        work = self._folder / "activations"
        work.mkdir()
        try:
            pair = Pair(self.line, Line(child, plan.setup.hardware), gone)
            lessons, self.parents = gather_lessons(
                plan, pair, split, folder=work, known=self.parents, talk=self.talk
            )
            steps = plan.setup.recipe.epochs * len(lessons.targets)
            with self.talk.phase(f"tuning without {said(count)}", steps) as tick:
                scores = distil(
                    net,
                    lessons,
                    recipe=plan.setup.recipe,
                    hardware=plan.setup.hardware,
                    tick=lambda n: tick(n, ""),
                )
            logits = lessons.judged(net, plan.setup.hardware)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        held = plan.unanswered(plan.chooses)
        parent = replace(held, logits=self.parents.held.numpy())
        change = compare(replace(held, logits=logits.numpy()), parent).difference
        fits = -100 * change.value <= plan.options.max_drop + 1e-9
        found = Tried(tuple(gone), tuned, fitted, scores[0], max(scores), change, fits)
        self.tried[count] = found
        if fits and count == max(n for n, one in self.tried.items() if one.fits):
            self.child = child.to("cpu").requires_grad_(True).eval()
        self.talk.say(
            f"without {said(count)}: {found.before[0]:.1%} before tuning, {found.after[0]:.1%} "
            f"after, the parent {figure_then_nll(parent)[0]:.1%} ({len(held)} images that choose)"
        )
        return found

    def _without(self, gone: Collection[int]) -> tuple[Classifier, int]:
        """The parent without these blocks, and how many of those that stay took over what they can
        of what the others did."""
        child = drop_blocks(self.plan.parent.model, gone)
        line = Line(child, self.plan.setup.hardware)
        work = self._folder / "maps"
        try:
            found = fit_what_stays(self.plan, Pair(self.line, line, gone), work, self.talk)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        write_back(child, found)
        return child, len(found)


def said(count: int) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{count} block{'' if count == 1 else 's'}"
