"""Cheap properties that give a class away: file size, border colour, camera and the like.

A network is glad of such a shortcut and learns it in place of the subject: then it fails on images
from elsewhere. Each property alone classifies held-out images (naive Bayes on its bins, classes
counting alike). What it reaches is compared with what it reaches when the labels are shuffled.
See Geirhos et al. 2020, Shortcut learning in deep neural networks, arXiv 2004.07780.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Values = NDArray[Any]

MOST_IMAGES = 4_000
"""More are a sample of that many, every class in it: a property that tells classes apart shows."""

FEWEST_IMAGES = 10
"""Of a class; classes with fewer take no part."""

SKILL = 0.1
"""Least share of the way from chance to always right that counts as *well* above chance."""

FOLDS, SHUFFLES = 5, 40
ALPHA = 0.01
"""Chance of naming any property where none matters, all properties of a data set together."""

_BINS, _CATEGORIES = 16, 30


@dataclass(frozen=True)
class Shortcut:
    """How well one property predicts the class.

    Attributes:
        name: of the property.
        balanced_accuracy: mean recall of the classes on held-out images, 0..1.
        chance: one over the number of classes.
        limit: what shuffled labels stay below; None where the figure is not well above chance.
        found: whether it is above both.
        images: that it was measured on.
        clearest: the class that is recognised best by the property.
        clearest_recall: the share of its images that are recognised.
    """

    name: str
    balanced_accuracy: float
    chance: float
    limit: float | None
    found: bool
    images: int
    clearest: int
    clearest_recall: float


def find_shortcuts(
    properties: Mapping[str, Values],
    targets: Ints,
    *,
    groups: Sequence[object] | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """Try every property that varies as a classifier, the best one first.

    Args:
        properties: name -> (n,) or (n, d) floats, NaN where unknown; or (n,) texts or integers,
            each a category of its own. That a value is unknown is a value too.
        targets: (n,) class numbers, -1 for images that take no part.
        groups: of each image; a group lies in one fold, and is shuffled as one.
        seed: of the sample, the folds and the shuffles.

    Returns:
        One entry a property; empty where fewer than two classes have `FEWEST_IMAGES`.
    """
    random = np.random.default_rng(seed)
    rows = _sample(targets, random)
    classes, labels = np.unique(targets[rows], return_inverse=True)
    if len(classes) < 2:
        return ()
    units = rows if groups is None else np.unique([str(groups[i]) for i in rows],
                                                  return_inverse=True)[1]  # fmt: skip
    unit = np.unique(units, return_inverse=True)[1]
    fold = deal(labels, unit, FOLDS, random)
    tested = []
    varying = {name: bins for name, values in properties.items()
               if (bins := _bins(np.asarray(values)[rows])).max(initial=0) > 0}  # fmt: skip
    for name, bins in varying.items():
        recalls = _recalls(bins, labels, fold, len(classes))
        score, chance = float(recalls.mean()), 1 / len(classes)
        limit = None
        if score >= chance + SKILL * (1 - chance):
            limit = _limit(bins, (labels, unit, fold), len(classes), len(varying), random)
        best = int(recalls.argmax())
        tested.append(Shortcut(name, score, chance, limit, limit is not None and score > limit,
                               len(rows), int(classes[best]), float(recalls[best])))  # fmt: skip
    return tuple(sorted(tested, key=lambda one: -one.balanced_accuracy))


def _sample(targets: Ints, random: np.random.Generator) -> Ints:
    """Sorted positions of at most about `MOST_IMAGES` images of the classes that are large enough;
    small classes are thinned out last."""
    counts = np.bincount(targets[targets >= 0])
    large = np.flatnonzero(counts >= FEWEST_IMAGES)
    if not len(large):
        return np.empty(0, np.int64)
    # the largest number a class that, with small classes whole, gives no more than the most
    sizes = np.sort(counts[large])
    rest = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shares = (MOST_IMAGES - rest) // np.arange(len(sizes), 0, -1)
    most = max(FEWEST_IMAGES, int(shares[np.argmax(shares <= sizes)]) if sizes.sum() > MOST_IMAGES
               else int(sizes[-1]))  # fmt: skip
    kept = [random.permutation(np.flatnonzero(targets == label))[:most] for label in large]
    return np.sort(np.concatenate(kept)).astype(np.int64)


def deal(labels: Ints, unit: Ints, folds: int, random: np.random.Generator) -> Ints:
    """(n,): a fold for each image; units whole, the classes of their first images in turn.

    Args:
        labels: (n,) class numbers.
        unit: (n,) what must stay together, in 0..u-1, each of them there.
        folds: how many.
        random: the order within a class.
    """
    first = np.unique(unit, return_index=True)[1]
    order = np.lexsort((random.random(len(first)), labels[first]))
    dealt = np.empty(len(first), np.int64)
    dealt[order] = np.arange(len(first)) % folds
    return dealt[unit]


def _bins(values: Values) -> Ints:
    """(n, d): bin of each value; unknown ones have a bin of their own."""
    if values.dtype.kind in "USiu":
        _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
        order = np.argsort(np.argsort(-counts, kind="stable"))
        return np.minimum(order[number], _CATEGORIES)[:, None].astype(np.int64)
    columns = values.reshape(len(values), -1).astype(np.float64)
    wanted = int(np.clip(np.sqrt(len(columns)) / 2, 4, _BINS))
    bins = np.zeros(columns.shape, np.int64)
    for j, column in enumerate(columns.T):
        known = np.isfinite(column)
        if known.any():
            edges = np.unique(np.quantile(column[known], np.arange(1, wanted) / wanted))
            # the least value is no edge, so that one that never varies has one bin
            edges = edges[edges > column[known].min()]
            bins[known, j] = 1 + np.searchsorted(edges, column[known], side="right")
    lowest: Ints = bins.min(axis=0)
    return bins - lowest


def _recalls(bins: Ints, labels: Ints, fold: Ints, classes: int) -> NDArray[np.float64]:
    """(K,): the share of each class that is recognised by a rule made on the other folds."""
    size = int(bins.max()) + 1
    evidence = np.zeros((len(labels), classes))
    for column in bins.T:
        index = (fold * classes + labels) * size + column
        counts = np.bincount(index, minlength=FOLDS * classes * size)
        counts = counts.reshape(FOLDS, classes, size)
        others = counts.sum(axis=0) - counts + 0.5  # half an image in every bin: none is impossible
        share = np.log(others / others.sum(axis=2, keepdims=True))
        evidence += share.transpose(0, 2, 1)[fold, column]
    right = evidence.argmax(axis=1) == labels
    return np.bincount(labels, right, minlength=classes) / np.bincount(labels, minlength=classes)


def _limit(
    bins: Ints,
    dealt: tuple[Ints, Ints, Ints],
    classes: int,
    tests: int,
    random: np.random.Generator,
) -> float:
    """What shuffled labels stay below, but for `ALPHA` over all ``tests``: their mean and spread
    over `SHUFFLES`, and Student's t for that few."""
    from scipy.special import stdtrit

    labels, unit, fold = dealt
    first = np.unique(unit, return_index=True)[1]
    reached = []
    for _ in range(SHUFFLES):
        shuffled = random.permutation(labels[first])[unit]
        if len(np.unique(shuffled)) < classes:  # a class whose images are all of a few groups
            continue
        reached.append(_recalls(bins, shuffled, fold, classes).mean())
    if len(reached) < 2:
        return 1.0
    far = stdtrit(len(reached) - 1, 1 - ALPHA / tests)
    return float(np.mean(reached) + far * np.std(reached, ddof=1) * np.sqrt(1 + 1 / len(reached)))
