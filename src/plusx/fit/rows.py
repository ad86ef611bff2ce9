"""The images that a linear head is fitted on: checked, weighed, sampled and dealt into folds.

Targets are (n,) class numbers, or (n, K) bool where an image may have several classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plusx.data.stratify import deal_evenly
from plusx.errors import UsageError
from plusx.fit.softmax import Floats, Ints, Marks


def check(
    features: Floats, targets: Marks, classes: int, groups: Sequence[object] | None,
    class_weights: Floats | None,
) -> Ints:  # fmt: skip
    """Refuse what cannot work; return the group (n,) of each image, numbered."""
    count = len(targets)
    if features.ndim != 2 or len(features) != count or not features.size:
        raise UsageError(f"features of shape {features.shape} do not fit {count} targets: (n, d)")
    several = targets.ndim == 2
    if several and (targets.shape != (count, classes) or targets.dtype != np.bool_):
        raise UsageError(f"targets {targets.shape} {targets.dtype} must be (n, {classes}) bool")
    if several and not (targets.any(0) & ~targets.all(0)).all():
        raise UsageError("targets: all images agree on a class; it needs images with and without")
    if several:
        pass
    elif classes < 2 or count == 0 or targets.min() < 0 or targets.max() >= classes:
        raise UsageError(f"targets must lie in 0..classes-1 with classes={classes} at least 2; "
                         "leave unlabelled images out")  # fmt: skip
    if len(np.unique(targets)) < 2:
        raise UsageError("targets name one class only; a head needs images of two or more")
    if class_weights is not None and (
        np.shape(class_weights) != (classes,) or not (np.asarray(class_weights) > 0).all()
    ):
        raise UsageError(f"class_weights must be {classes} numbers above 0, one per class")
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise UsageError(f"groups has {len(groups)} entries for {count} images")
    numbered = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    if numbered.max() == 0:
        raise UsageError("groups: all images are of one group, so none can be held out")
    return numbered.astype(np.int64)


def costs(targets: Marks, class_weights: Floats | None) -> Floats:
    """(n, 1) or (n, K): the weight of each loss, 1 on average, so that a penalty means the same."""
    if class_weights is None:
        return np.ones((len(targets), 1 if targets.ndim == 1 else targets.shape[1]))
    weights = np.asarray(class_weights, np.float64)
    cost: NDArray[np.float64]
    cost = weights[targets][:, None] if targets.ndim == 1 else np.where(targets, weights, 1.0)
    return np.asarray(cost / cost.mean())


def masked(cost: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Costs (n, 1 or K) for the images that each of B problems keeps (n, B)."""
    return cost[:, :, None] * kept[:, None, :]


def sample(targets: Marks, most: int, random: np.random.Generator) -> Ints:
    """Sorted positions of at most about ``most`` images, classes in proportion, each kept."""
    if len(targets) <= most:
        return np.arange(len(targets))
    share = most / len(targets)
    if targets.ndim == 2:
        order = random.permutation(len(targets))
        first = [order[targets[order, k] == side][:2] for k in range(targets.shape[1])
                 for side in (True, False)]  # fmt: skip
        return np.unique(np.concatenate([order[:most], *first]))
    kept = []
    for label in np.unique(targets):
        members = random.permutation(np.flatnonzero(targets == label))
        kept.append(members[: max(2, math.floor(share * len(members)))])
    return np.sort(np.concatenate(kept))


def deal_folds(targets: Marks, groups: Ints, folds: int, random: np.random.Generator) -> Ints:
    """(n,): a fold for each image; groups stay whole, classes and sizes as even as that allows.

    Targets (n, K) are dealt by iterative stratification. Else:
    Groups come large to small, then by class, then at random; each goes to the fold with the
    fewest of its classes so far, then to the smallest fold.
    """
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    sizes = np.array([len(each) for each in members])
    shuffled = random.permutation(len(members))
    fold = np.empty(len(targets), np.int64)
    if targets.ndim == 2:
        counts_of = [Counter(np.nonzero(targets[members[g]])[1].tolist()) for g in shuffled]
        parts = deal_evenly(counts_of, sizes[shuffled].tolist(), folds, targets.shape[1])
        for g, part in zip(shuffled, parts, strict=True):
            fold[members[g]] = part
        return fold
    counts = np.zeros((folds, int(targets.max()) + 1))
    first = np.array([targets[each[0]] for each in members])
    for which in shuffled[np.lexsort((first[shuffled], -sizes[shuffled]))]:
        labels = targets[members[which]]
        crowd = counts[:, labels].sum(1)
        best = int(np.lexsort((random.random(folds), counts.sum(1), crowd))[0])
        fold[members[which]] = best
        np.add.at(counts[best], labels, 1)
    return fold
