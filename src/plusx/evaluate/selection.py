"""Choosing among candidates, honestly, on one set of images: the score, and the halves.

A figure computed on the images that chose the winner is too good. Cross-fitting avoids that and
still uses every image: what one half chooses is judged on the other half, and the halves swap
(Chernozhukov et al. 2018, "Double/debiased machine learning", Econometrics Journal 21, definition
3.1, for the idea of swapping the halves).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError
from plusx.evaluate.intervals import group_numbers
from plusx.evaluate.multilabel import average_precisions
from plusx.evaluate.predictions import Predictions

Ints = npt.NDArray[np.int64]


def figure_then_nll(predictions: Predictions) -> tuple[float, float]:
    """The score that chooses, larger is better, compared from the left: top1, for task multi mean
    average precision (0 where no image has any class); then the lower nll, negated."""
    if predictions.task == "multi":
        signs = np.where(predictions.targets, -1.0, 1.0)
        nll = float(np.logaddexp(0.0, signs * predictions.logits).mean())
        found = average_precisions(predictions.targets, predictions.logits)
        there = found[~np.isnan(found)]
        return float(there.mean()) if len(there) else 0.0, -nll
    right = float((predictions.predicted == predictions.targets).mean())
    rows = np.arange(len(predictions))
    return right, float(predictions.log_probabilities[rows, predictions.targets].mean())


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
