"""How well one class is told from the rest, at every threshold and at one that a user names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError, UsageError
from plusx.evaluate.intervals import Z95, Figure, Floats, effective_sizes, proportion
from plusx.evaluate.predictions import Predictions

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trade:
    """One rate at a promised other, for one class against the rest.

    Attributes:
        threshold: on the class's probability, met by the promised rate on these images.
        promised: ``specificity`` or ``sensitivity``, and at what it is held.
        value: the other one.
    """

    threshold: float
    promised: str
    held_at: float
    value: Figure


def auroc(score: Floats, positive: Bools, groups: Ints | None = None) -> Figure:
    """Area under the ROC curve with DeLong's interval on the logit scale.

    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44, by ranks as Sun & Xu 2014 (IEEE Signal
    Processing Letters 21). Images of one group move together, so their influences are summed by
    group. At a perfect score, whose variance shows as 0, a Wilson interval on the smaller class
    stands in.

    Raises:
        DataError: there are no positive or no negative images.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n:
        raise DataError("an ROC curve needs images of the class and images of others")
    rank = _mid_ranks(score)
    above = (rank[positive] - _mid_ranks(score[positive])) / n
    below = 1 - (rank[~positive] - _mid_ranks(score[~positive])) / m
    value = float(above.mean())
    influence: Floats = np.empty(len(score))
    influence[positive] = (above - value) / m
    influence[~positive] = (below - value) / n
    if groups is not None:
        influence = np.bincount(groups, weights=influence).astype(np.float64)
    deviation = float(np.sqrt((influence**2).sum()))
    if deviation == 0 or value in (0.0, 1.0):
        return proportion(value, min(m, n))
    centre, half = np.log(value / (1 - value)), Z95 * deviation / (value * (1 - value))
    low, high = (1 / (1 + np.exp(-(centre + side * half))) for side in (-1, 1))
    return Figure(value, float(low), float(high))


def average_precision(score: Floats, positive: Bools, groups: Ints | None = None) -> Figure:
    """Area under precision against recall as scikit-learn sums it; logit interval on the number of
    positive images (Boyd, Eng & Page 2013, "Area under the precision-recall curve").

    Raises:
        DataError: there are no positive images.
    """
    from sklearn.metrics import average_precision_score

    if not positive.any():
        raise DataError("average precision needs images of the class")
    value = min(1.0, float(average_precision_score(positive, score)))
    one = np.zeros(int(positive.sum()), dtype=np.int64)
    own = None if groups is None else groups[positive]
    hits = score[positive] >= np.median(score)
    return proportion(value, float(effective_sizes(hits, one, 1, own)[0]))


def sensitivity_at(
    score: Floats, positive: Bools, specificity: float, groups: Ints | None = None
) -> Trade:
    """The share of positive images found where at least ``specificity`` of the others is passed.

    Raises:
        UsageError: ``specificity`` is not between 0 and 1.
        DataError: there are no positive or no negative images.
    """
    threshold = _threshold(score[~positive], specificity, "specificity")
    found = score[positive] > threshold
    own = None if groups is None else groups[positive]
    return Trade(threshold, "specificity", specificity, _share(found, own))


def specificity_at(
    score: Floats, positive: Bools, sensitivity: float, groups: Ints | None = None
) -> Trade:
    """The share of other images passed where at least ``sensitivity`` of the positive is found."""
    threshold = -_threshold(-score[positive], sensitivity, "sensitivity")
    passed = score[~positive] < threshold
    own = None if groups is None else groups[~positive]
    return Trade(threshold, "sensitivity", sensitivity, _share(passed, own))


def expected_cost(predictions: Predictions, costs: Floats) -> tuple[Figure, Ints]:
    """The mean cost of deciding for the cheapest class, and (N,) those decisions.

    Args:
        predictions: labelled; its probabilities should be calibrated.
        costs: (K, K), rows true, columns decided, in the user's units; usually 0 on the diagonal.

    Raises:
        UsageError: ``costs`` is not (K, K) finite numbers.
    """
    from plusx.evaluate.intervals import bootstrap_mean, group_numbers

    k = len(predictions.classes)
    if costs.shape != (k, k) or not np.isfinite(costs).all():
        raise UsageError(
            f"the cost matrix is {costs.shape}: give {k} rows (true) of {k} finite costs (decided)"
        )
    decided = (np.exp(predictions.log_probabilities) @ costs).argmin(axis=1).astype(np.int64)
    paid = costs[predictions.targets, decided].astype(np.float64)
    return bootstrap_mean(paid, groups=group_numbers(predictions.groups), seed=0), decided


def _threshold(others: Floats, rate: float, name: str) -> float:
    if not 0 < rate < 1:
        raise UsageError(f"{name} {rate!r} must lie between 0 and 1, for instance 0.95")
    if not len(others):
        raise DataError(f"no images to hold the {name} on")
    return float(np.sort(others)[int(np.ceil(rate * len(others) - 1e-9)) - 1])


def _share(success: Bools, groups: Ints | None) -> Figure:
    if not len(success):
        raise DataError("no images to count")
    one = np.zeros(len(success), dtype=np.int64)
    return proportion(float(success.mean()), float(effective_sizes(success, one, 1, groups)[0]))


def _mid_ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    ranks: Floats = rankdata(values)
    return ranks
