"""Choosing among candidates and reporting the choice, honestly, on one set of images.

A figure computed on the images that chose the winner is too good. Cross-fitting avoids that and
still uses every image: what one half chooses is judged on the other half, and the halves swap
(Chernozhukov et al. 2018, "Double/debiased machine learning", Econometrics Journal 21, definition
3.1, for the idea of swapping the halves).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError, UsageError
from plusx.evaluate.intervals import group_numbers
from plusx.evaluate.predictions import Predictions

Ints = npt.NDArray[np.int64]
Score = Callable[[Predictions], tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What cross-fitting gives.

    Attributes:
        predictions: every image once, in the original order, each judged by the candidate that the
            *other* half chose; for reporting. Without features: the rows may come from different
            networks.
        chosen: the candidate that half 0 chose (its rows stand for half 1), and half 1's choice.
        best: the candidate chosen on all images: what ships.
        half: (N,) int64, 0 or 1: the half of each image.
    """

    predictions: Predictions
    chosen: tuple[int, int]
    best: int
    half: Ints


def top1_then_nll(predictions: Predictions) -> tuple[float, ...]:
    """The default score, larger is better: top1, then lower nll; for task multi lower nll alone."""
    if predictions.task == "multi":
        signs = np.where(predictions.targets, -1.0, 1.0)
        return (-float(np.logaddexp(0.0, signs * predictions.logits).mean()),)
    right = float((predictions.predicted == predictions.targets).mean())
    rows = np.arange(len(predictions))
    return right, float(predictions.log_probabilities[rows, predictions.targets].mean())


def cross_fit(
    candidates: Sequence[Predictions], *, seed: int = 0, score: Score = top1_then_nll
) -> CrossFit:
    """Choose among candidates' predictions of the same images, and judge the choice unseen.

    Args:
        candidates: at least one (the probe, epoch 1, epoch 2, ...), all of the same images, classes
            and targets in the same order. Of equally good ones the earlier is chosen.
        seed: of the halves.
        score: predictions -> tuple, larger is better, compared from the left.

    Raises:
        UsageError: no candidates, or they are not of the same images, classes and targets.
        DataError: an image is unlabelled, a class has just one image, or there are fewer than two
            images or groups.
    """
    _check_same(candidates)
    first = candidates[0]
    half = halves(first, seed=seed)
    rows = [np.flatnonzero(half == side) for side in (0, 1)]
    chosen = (_choose(candidates, rows[0], score), _choose(candidates, rows[1], score))
    logits = np.empty_like(first.logits)
    logits[rows[1]] = candidates[chosen[0]].logits[rows[1]]
    logits[rows[0]] = candidates[chosen[1]].logits[rows[0]]
    pooled = Predictions(
        logits=logits,
        targets=first.targets,
        paths=first.paths,
        classes=first.classes,
        task=first.task,
        groups=first.groups,
    )
    best = _choose(candidates, np.arange(len(first), dtype=np.int64), score)
    return CrossFit(pooled, chosen, best, half)


def halves(predictions: Predictions, *, seed: int) -> Ints:
    """(N,) int64 of 0 and 1: two halves, classes spread evenly, groups kept together.

    Raises:
        DataError: an image is unlabelled, a class has just one image, or there are fewer than two
            images or groups.
    """
    membership = _membership(predictions)
    groups = group_numbers(predictions.groups)
    units = np.arange(len(predictions), dtype=np.int64) if groups is None else groups
    number = int(units.max(initial=-1)) + 1
    if number < 2:
        kind = "images" if groups is None else "groups"
        raise DataError(f"{number} {kind} cannot make two halves: at least 2 {kind} are needed")
    rng = np.random.default_rng(seed)
    if groups is None and predictions.task == "single":
        return _dealt(predictions.targets, rng)
    return _balanced(membership, units, number, rng)[units]


def _membership(predictions: Predictions) -> npt.NDArray[np.float64]:
    """(N, K) 1 where the image is of the class; checks that each class can stand in both halves."""
    k = len(predictions.classes)
    if predictions.task == "multi":
        return predictions.targets.astype(np.float64)
    if (predictions.targets < 0).any():
        first = predictions.paths[int(np.argmin(predictions.targets))]
        raise DataError(f"{first}: has no label; choose among candidates on labelled images only")
    support = np.bincount(predictions.targets, minlength=k)
    if (support == 1).any():
        name = predictions.classes[int(np.argmax(support == 1))]
        raise DataError(
            f"class {name!r} has 1 image here, and each half needs one of its own: add images of "
            "it, or report on a separate test split"
        )
    return np.asarray(np.eye(k)[predictions.targets])


def _dealt(targets: Ints, rng: np.random.Generator) -> Ints:
    """Shuffled, sorted by class and dealt in turn: halves differ by at most one per class."""
    shuffled = rng.permutation(len(targets))
    order = shuffled[np.argsort(targets[shuffled], kind="stable")]
    half = np.empty(len(targets), dtype=np.int64)
    half[order] = (np.arange(len(targets)) + rng.integers(2)) % 2
    return half


def _balanced(
    membership: npt.NDArray[np.float64], units: Ints, number: int, rng: np.random.Generator
) -> Ints:
    """(number,) half of each group: largest first, each to the half that lacks its classes more."""
    size = np.bincount(units, minlength=number)
    totals = np.maximum(membership.sum(axis=0), 1.0)
    shuffled = rng.permutation(number)
    order = shuffled[np.argsort(-size[shuffled], kind="stable")]
    rows = np.split(np.argsort(units, kind="stable"), np.cumsum(size)[:-1])
    filled = np.zeros((2, membership.shape[1]))
    images = np.zeros(2)
    half = np.empty(number, dtype=np.int64)
    for group in order:
        share = membership[rows[group]].sum(axis=0)
        lead = float(((filled[0] - filled[1]) * share / totals).sum())
        side = int(lead > 0) if lead else int(images[0] > images[1])
        half[group] = side
        filled[side] += share
        images[side] += size[group]
    return half


def _choose(candidates: Sequence[Predictions], rows: Ints, score: Score) -> int:
    scores = [score(candidate.take(rows)) for candidate in candidates]
    return scores.index(max(scores))


def _check_same(candidates: Sequence[Predictions]) -> None:
    if not candidates:
        raise UsageError("candidates is empty: give at least one to choose from")
    first = candidates[0]
    for number, other in enumerate(candidates):
        for field in ("paths", "classes", "task", "groups"):
            if getattr(other, field) != getattr(first, field):
                raise UsageError(
                    f"candidates[{number}].{field} differs from candidates[0].{field}: all "
                    "candidates must be of the same images and classes, in the same order"
                )
        if not np.array_equal(other.targets, first.targets):
            raise UsageError(
                f"candidates[{number}].targets differ from candidates[0].targets: all candidates "
                "must be of the same images and classes, in the same order"
            )
