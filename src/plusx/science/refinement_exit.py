"""Leaving a net early: from which block each image's answer stays right, and what a threshold on
the probes' confidence saves.

The threshold is chosen on one half of the images and judged on the other, and the other way round
(each probe's temperature likewise): the cheapest one that answers as many of the first half
rightly as the last probe does. The cost of leaving at a block is that of the net up to it and of
all probes asked on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from plusx.evaluate.calibration import fit_temperature
from plusx.science.refinement import Stop

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]
THRESHOLDS = 500
NEVER = float("inf")


@dataclass(frozen=True, eq=False)
class Half:
    """What a threshold chosen on the one half does on the other.

    Attributes:
        threshold: of the confidence; infinite where only the last probe may answer.
        held: (H,) the images of the other half.
        exits: (H,) at which stop each of them leaves.
    """

    threshold: float
    held: Ints
    exits: Ints


def settled(right: Right) -> Ints:
    """(stops, N) right answers -> (N,) the first stop from which an image's answer is right and
    stays so; the number of stops where its last answer is wrong."""
    stays = np.logical_and.accumulate(right[::-1], axis=0)[::-1]
    found: Ints = np.where(stays.any(axis=0), stays.argmax(axis=0), len(right)).astype(np.int64)
    return found


def costs(stops: Sequence[Stop], classes: int) -> Floats:
    """(stops,) multiply-adds of an image that leaves at each; the last is never left early, so
    that its cost counts the earlier probes as well."""
    probes = np.cumsum([stop.features * classes for stop in stops])
    found: Floats = np.array([stop.macs for stop in stops], np.float64) + probes
    return found


def full_cost(stops: Sequence[Stop], classes: int) -> float:
    """Multiply-adds of the net with one probe, the last."""
    return float(stops[-1].macs + stops[-1].features * classes)


def leave(sure: Floats, threshold: float) -> Ints:
    """(stops, N) confidences -> (N,) the first stop with at least ``threshold``, else the last."""
    enough = sure >= threshold
    enough[-1] = True
    found: Ints = enough.argmax(axis=0).astype(np.int64)
    return found


def share_right(right: Right, exits: Ints) -> float:
    """Of the images that leave there."""
    return float(right[exits, np.arange(len(exits))].mean())


def choose(sure: Floats, right: Right, cost: Floats) -> float:
    """The cheapest threshold that answers as many rightly as the last stop does."""
    grid = np.unique(np.quantile(sure, np.linspace(0, 1, THRESHOLDS)))
    best, least, wanted = NEVER, float(cost[-1]), right[-1].mean()
    for threshold in grid[::-1]:
        exits = leave(sure, float(threshold))
        spent = float(cost[exits].mean())
        if spent < least and share_right(right, exits) >= wanted:
            best, least = float(threshold), spent
    return best


def confidences(logits: npt.NDArray[np.float32], targets: Ints, fitted: Ints) -> Floats:
    """(stops, N, K) logits -> (stops, N) greatest probability, each stop's temperature fitted to
    the images ``fitted``."""
    found = []
    for one in logits:
        temperature = fit_temperature(one[fitted], targets[fitted])
        found.append(softmax(one.astype(np.float64) / temperature, axis=1).max(axis=1))
    return np.stack(found)


def cross_fitted(
    logits: npt.NDArray[np.float32],
    targets: Ints,
    cost: Floats,
    *,
    groups: Ints | None = None,
    seed: int = 0,
) -> tuple[Half, Half]:
    """Each half judged by the threshold of the other; groups stay whole.

    Args:
        logits: (stops, N, K).
        targets: (N,).
        cost: (stops,), see ``costs``.
        groups: (N,) numbers.
        seed: of the halves.
    """
    units = np.arange(len(targets)) if groups is None else groups
    order = np.random.default_rng(seed).permutation(np.unique(units))
    first = np.isin(units, order[: len(order) // 2])
    right = logits.argmax(axis=2) == targets
    return (
        _judged(logits, targets, right, cost, fitted=np.flatnonzero(first)),
        _judged(logits, targets, right, cost, fitted=np.flatnonzero(~first)),
    )


def _judged(
    logits: npt.NDArray[np.float32], targets: Ints, right: Right, cost: Floats, *, fitted: Ints
) -> Half:
    sure = confidences(logits, targets, fitted)
    threshold = choose(sure[:, fitted], right[:, fitted], cost)
    held = np.setdiff1d(np.arange(len(targets)), fitted)
    return Half(threshold, held, leave(sure[:, held], threshold))


def curve(
    logits: npt.NDArray[np.float32], targets: Ints, cost: Floats
) -> list[tuple[float, float, float]]:
    """(threshold, mean cost, share right) over a grid of thresholds, temperatures fitted to all
    images: how the two trade, for a figure; nothing is chosen by it."""
    right = logits.argmax(axis=2) == targets
    sure = confidences(logits, targets, np.arange(len(targets)))
    found = []
    for threshold in [*np.unique(np.quantile(sure, np.linspace(0, 1, 60))), NEVER]:
        exits = leave(sure, float(threshold))
        found.append((float(threshold), float(cost[exits].mean()), share_right(right, exits)))
    return found
