"""Lesions: what a trained net answers with blocks removed, or in another order.

Veit, Wilber & Belongie 2016 (arXiv 1605.06431), section 4: a residual net is hardly hurt by the
loss of one block, its error rises smoothly with the number lost and with the disorder of what is
left, while VGG falls to chance.

Departures from the paper: several blocks are removed, and blocks swapped, among those that keep
the shape only (the others are listed on their own); of a VGG, a convolution with its norm and
activation is removed and its pool kept; intervals are over images, which the paper has none of.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.errors import UsageError
from plusx.model.surgery import fold_batchnorm
from plusx.runtime import fast_dtype, forward_batch
from plusx.science.lesion_plans import (
    GONE,
    Line,
    Plan,
    kendall_tau,
    right_answers,
    shuffled,
    steps,
    without,
)
from plusx.science.result import Result, Row
from plusx.science.subject import Images, Subject, subset

PIECE = 500
"""Images of one piece of work."""
RESAMPLES = 1000


@dataclass(frozen=True)
class Lesions:
    """Which lesions.

    Attributes:
        most: up to so many blocks are removed at once.
        swaps: up to so many swaps of two blocks.
        draws: random lesions of each size.
        draw_images: they are run on so many images, or few more; they differ from one another by
            far more than the images make out.
        seed: of the draws and of the intervals.

    Raises:
        UsageError: a number below 0, or no draws.
    """

    most: int = 20
    swaps: int = 20
    draws: int = 5
    draw_images: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("most", 0), ("swaps", 0), ("draws", 1), ("draw_images", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)} must be at least {least}")


@dataclass(frozen=True, eq=False)
class Lesioned:
    """One net's answers.

    Attributes:
        subject, images: of what.
        line: its blocks.
        plans: kind -> the plans of it: ``whole``, ``one``, ``several``, ``swapped``.
        right: kind -> (plans, N) whether each image is answered rightly.
    """

    subject: Subject
    images: Images
    line: Line
    plans: dict[str, list[Plan]]
    right: dict[str, npt.NDArray[np.bool_]]


def lesions(
    subject: Subject,
    images: Images,
    *,
    which: Lesions | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Lesioned:
    """Run every lesion of one net over the images.

    Args:
        subject: its net stays as it is; a copy with its norms folded is run, in the fastest
            precision with float32's range.
        images: labelled.
        which: lesions.
        tick: called with the number of images done.

    Raises:
        UsageError: the net has no block that can be removed.
    """
    which = which or Lesions()
    found = []
    for at in starts(images):
        found.append(piece(subject, images, which=which, at=at))
        tick(min(PIECE, len(images) - at))
    return collect(subject, images, found, which=which)


def starts(images: Images) -> range:
    """Where the pieces of work begin."""
    return range(0, len(images), PIECE)


def piece(subject: Subject, images: Images, *, which: Lesions, at: int) -> str:
    """The answers to the images from ``at`` on, as text."""
    dtype = fast_dtype(torch.device("cpu"))
    folded = fold_batchnorm(subject.model).to(dtype)
    folded.to(memory_format=torch.channels_last)
    line, here = Line(folded), slice(at, at + PIECE)
    plans = list(chain.from_iterable(_kinds(plan(line, which), which, at).values()))
    found = _answers(line, plans, images.images[here], images.targets[here])
    return base64.b64encode(np.packbits(found).tobytes()).decode()


def collect(subject: Subject, images: Images, values: Sequence[str], *, which: Lesions) -> Lesioned:
    """What the pieces say together.

    Args:
        subject, images, which: as the pieces had them.
        values: of ``piece`` at each of ``starts``.
    """
    line = Line(subject.model)
    plans = plan(line, which)
    parts: dict[str, list[npt.NDArray[np.bool_]]] = {kind: [] for kind in plans}
    for at, text in zip(starts(images), values, strict=True):
        n = min(PIECE, len(images) - at)
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8)).astype(np.bool_)
        for kind, some in _kinds(plans, which, at).items():
            parts[kind].append(bits[: len(some) * n].reshape(len(some), n))
            bits = bits[len(some) * n :]
    right = {kind: np.concatenate(found, axis=1) for kind, found in parts.items()}
    return Lesioned(subject, images, line, plans, right)


def _kinds(plans: dict[str, list[Plan]], which: Lesions, at: int) -> dict[str, list[Plan]]:
    """Those that the images from ``at`` on are run through."""
    few = ("whole", "one")
    return plans if at < which.draw_images else {kind: plans[kind] for kind in few}


def plan(line: Line, which: Lesions) -> dict[str, list[Plan]]:
    """All plans by kind; the same for the same seed."""
    random = np.random.default_rng(which.seed)
    keep = [place.number for place in line.places if place.common]
    several = [
        without(line, random.permutation(keep)[:k].tolist())
        for k in range(2, min(which.most, len(keep)) + 1)
        for _ in range(which.draws)
    ]
    swapped = [
        shuffled(line, swaps, random)
        for swaps in range(1, which.swaps + 1)
        for _ in range(which.draws)
    ]
    return {
        "whole": [line.whole],
        "one": [without(line, [place.number]) for place in line.places if place.removable],
        "several": several,
        "swapped": [one for one in swapped if one != line.whole],
    }


def cost(line: Line, which: Lesions, n: int) -> int:
    """How much is run for ``n`` images, in images through the whole net."""
    passes = 0
    plans = plan(line, which)
    for at in range(0, n, PIECE):
        run = list(chain.from_iterable(_kinds(plans, which, at).values()))
        passes += steps(run) * min(PIECE, n - at)
    return -(-passes // len(line.blocks))


def speed(subject: Subject, images: Images) -> float:
    """Images a second through the whole net, measured on its first ones."""
    some, best = subset(images, 128), 0.0
    for _ in range(2):  # the first pass also prepares
        began = time.perf_counter()
        piece(subject, some, which=Lesions(most=0, swaps=0), at=0)
        spent = time.perf_counter() - began
        passes = cost(Line(subject.model), Lesions(most=0, swaps=0), len(some))
        best = max(best, passes / spent)
    return best


def summary(found: Sequence[Lesioned], which: Lesions | None = None) -> Result:
    """Tables and finding of one or several nets that were lesioned alike."""
    which = which or Lesions()
    blocks, several, swapped, sentences = [], [], [], []
    for one in found:
        rows, sentence = _blocks(one, which.seed)
        blocks += rows
        several += _several(one)
        swapped += _swapped(one)
        sentences.append(sentence + _smoothness(one))
    subjects = [{**one.subject.settings(), **one.images.settings()} for one in found]
    notes = [note for one in found for note in one.subject.notes]
    return Result(
        study="lesion",
        finding=" ".join(sentences),
        settings={"subjects": subjects, **asdict(which), "resamples": RESAMPLES},
        tables={"blocks": blocks, "several": several, "swapped": swapped},
        notes=[
            *dict.fromkeys(notes),
            "Several blocks are removed, and blocks swapped, among those that keep the shape.",
        ],
    )


def _blocks(one: Lesioned, seed: int) -> tuple[list[Row], str]:
    """A row a block, and what removing one costs in the median."""
    n = len(one.images)
    right = np.concatenate([one.right["whole"], one.right["one"]]).astype(np.float32)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    shares = drawn.astype(np.float32) @ right.T / n
    costs = shares[:, :1] - shares[:, 1:]
    top1 = right.mean(axis=1)
    cost = top1[0] - top1[1:]
    low, high = np.percentile(costs, [2.5, 97.5], axis=0)
    places = [place for place in one.line.places if place.removable]
    rows: list[Row] = [
        {
            "net": one.subject.name, "block": place.number, "stage": place.stage,
            "position": place.position, "changes_shape": not place.common,
            "parameters": place.parameters, "error": round(float(1 - top1[1 + at]), 6),
            "cost": round(float(cost[at]), 6), "cost_low": round(float(low[at]), 6),
            "cost_high": round(float(high[at]), 6),
        }
        for at, place in enumerate(places)
    ]  # fmt: skip
    common = np.array([place.common for place in places])
    if not common.any():
        return rows, (
            f"{one.subject.name} (error {1 - top1[0]:.1%} on {n:,} images) has no block that keeps "
            "the shape; every one of its blocks changes it."
        )
    middle = np.median(costs[:, common], axis=1)
    worst = int(np.argmax(np.where(common, cost, -np.inf)))
    sentence = (
        f"{one.subject.name}, {1 - top1[0]:.1%} error on {n:,} images: removing one of its "
        f"{common.sum()} blocks that keep the shape costs {100 * np.median(cost[common]):.1f} "
        f"points in the median (95% interval over images {100 * np.percentile(middle, 2.5):.1f} "
        f"to {100 * np.percentile(middle, 97.5):.1f}), at most {100 * cost[worst]:.1f} "
        f"(block {places[worst].number}), and leaves {np.median(top1[1:][common]):.1%} right in "
        f"the median, where guessing gives {1 / one.subject.model.spec.classes:.1%}"
    )
    if not common.all():
        others = cost[~common]
        sentence += (
            f"; the {len(others)} that change the shape cost {100 * others.min():.1f} to "
            f"{100 * others.max():.1f}"
        )
    return rows, sentence + "."


def _several(one: Lesioned) -> list[Row]:
    return [
        {"net": one.subject.name, "removed": plan.count(GONE),
         "error": round(float(1 - right.mean()), 6)}
        for plan, right in zip(one.plans["several"], one.right["several"], strict=True)
    ]  # fmt: skip


def _swapped(one: Lesioned) -> list[Row]:
    return [
        {"net": one.subject.name, "kendall_tau": round(kendall_tau(plan), 6),
         "error": round(float(1 - right.mean()), 6)}
        for plan, right in zip(one.plans["swapped"], one.right["swapped"], strict=True)
    ]  # fmt: skip


def _smoothness(one: Lesioned) -> str:
    """How the error goes with the number removed and with the disorder, by rank correlation."""
    from scipy.stats import spearmanr

    said = ""
    for kind, how, of in (
        ("several", "the number of blocks removed", [p.count(GONE) for p in one.plans["several"]]),
        ("swapped", "disorder", [-kendall_tau(p) for p in one.plans["swapped"]]),
    ):
        error = 1 - one.right[kind].mean(axis=1) if of else np.zeros(0)
        if len(set(of)) > 2 and len(set(error.tolist())) > 2:
            rank = float(spearmanr(of, error).statistic)
            said += (
                f" Its error and {how} have a rank correlation of {rank:.2f} over {len(of)} draws "
                f"(error {error.min():.1%} to {error.max():.1%})."
            )
    return said


def _answers(
    line: Line, plans: Sequence[Plan], images: Tensor, targets: Tensor
) -> npt.NDArray[np.bool_]:
    """(plans, N), a few images at a time."""
    dtype = next(iter(line.blocks[0].parameters())).dtype
    size = 8 * forward_batch(images.device)
    parts = [
        right_answers(
            line,
            plans,
            few.to(dtype=dtype, memory_format=torch.channels_last),
            targets[at * size : (at + 1) * size],
        )
        for at, few in enumerate(torch.split(images, size))
    ]
    return np.concatenate(parts, axis=1)
