"""From which probability on an image has a class, chosen on labelled predictions (task multi)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from plusx.decide import USUAL, Decision
from plusx.errors import DataError
from plusx.evaluate.predictions import Predictions
from plusx.evaluate.selection import halves

FEWEST = 5
"""Images with a class, and images without it, that its own threshold needs; with fewer the best
one would be luck, and the class keeps ``USUAL``."""

NEARLY = 0.95
"""Share of the highest F1 that a threshold may have and still count as good as the best."""


def best_thresholds(predictions: Predictions) -> Decision:
    """For each class a threshold whose F1 on these images is (nearly) the highest.

    Of those with at least ``NEARLY`` the highest F1 it is the one nearest to half that F1, where
    the best threshold of calibrated probabilities lies (Lipton, Elkan & Naryanaswamy 2014, "Optimal
    Thresholding of Classifiers to Maximize F1 Measure", theorem 1). The highest by itself is a
    matter of single images: chosen on 77 mosaics of satellite tiles (8 classes, 30 draws), macro F1
    on the others was .626 with 0.5 everywhere, .651 with the highest, .660 with this rule.
    Thresholds lie half way between two images' probabilities. The images that chose them are too
    good a test of them.
    """
    marks, probabilities = predictions.targets, predictions.probabilities.astype(np.float64)
    return Decision(tuple(_best(marks[:, k], probabilities[:, k]) for k in range(marks.shape[1])))


def few(predictions: Predictions) -> tuple[str, ...]:
    """The classes that have too few images for a threshold of their own."""
    count = predictions.targets.sum(axis=0)
    short = np.minimum(count, len(predictions) - count) < FEWEST
    return tuple(
        name for name, is_short in zip(predictions.classes, short, strict=True) if is_short
    )


def decided(predictions: Predictions, decision: Decision) -> Predictions:
    """The same with the classes that ``decision`` gives each image."""
    return replace(predictions, called=decision.marks(predictions.probabilities))


def cross_decided(predictions: Predictions, *, seed: int) -> Predictions | None:
    """Each half decided by the thresholds that are best on the other; None where there are no
    halves."""
    try:
        side = halves(predictions, seed=seed)
    except DataError:
        return None
    called = np.zeros(predictions.targets.shape, dtype=np.bool_)
    for half in (0, 1):
        here = side == half
        decision = best_thresholds(predictions.take(~here))
        called[here] = decision.marks(predictions.take(here).probabilities)
    return replace(predictions, called=called)


def _best(truth: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float64]) -> float:
    positives = int(truth.sum())
    if min(positives, len(truth) - positives) < FEWEST:
        return USUAL
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    found = np.cumsum(truth[order])
    f1 = 2 * found / (np.arange(1, len(truth) + 1) + positives)
    below = np.append(ranked[1:], 0.0)
    possible = np.flatnonzero(ranked > below)  # equal probabilities cannot be told apart
    if not len(possible):
        return USUAL
    cuts = (ranked + below)[possible] / 2
    highest = f1[possible].max()
    good = cuts[f1[possible] >= NEARLY * highest]
    return float(good[np.abs(good - highest / 2).argmin()])
