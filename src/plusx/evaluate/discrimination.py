"""How well one class is told from the rest, at every threshold and at one that a user names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from plusx.errors import DataError, UsageError
from plusx.evaluate.areas import WHY_NONE, Area, Bools, areas
from plusx.evaluate.intervals import (
    Figure,
    Floats,
    Ints,
    bootstrap_mean,
    effective_sizes,
    group_numbers,
    proportion,
)
from plusx.evaluate.predictions import Predictions

_SPOTS = (np.arange(200) + 0.5) / 200


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
    """Area under the ROC curve with its interval (see ``areas``).

    Raises:
        DataError: there are too few positive or too few other images.
    """
    return _areas(score, positive, groups)[0].figure


def average_precision(score: Floats, positive: Bools, groups: Ints | None = None) -> Figure:
    """Area under precision against recall as scikit-learn sums it, with its interval.

    Raises:
        DataError: there are too few positive or too few other images.
    """
    return _areas(score, positive, groups)[1].figure


def _areas(score: Floats, positive: Bools, groups: Ints | None) -> tuple[Area, Area]:
    found = areas(score, positive, groups)
    if found is None:
        raise DataError(WHY_NONE)
    return found


def sensitivity_at(
    score: Floats, positive: Bools, specificity: float, groups: Ints | None = None
) -> Trade:
    """The share of positive images found where at least ``specificity`` of the others is passed.

    The interval knows that the threshold was found on these images too: it could as well have been
    another order statistic of the others (by its beta distribution), and the share with it.

    Raises:
        UsageError: ``specificity`` is not between 0 and 1.
        DataError: there are no positive images, or too few others to hold it on.
    """
    return _trade(score, positive, specificity, "specificity", groups)


def specificity_at(
    score: Floats, positive: Bools, sensitivity: float, groups: Ints | None = None
) -> Trade:
    """The share of other images passed where at least ``sensitivity`` of the positive is found;
    otherwise as ``sensitivity_at``."""
    trade = _trade(-score, ~positive, sensitivity, "sensitivity", groups)
    return replace(trade, threshold=-trade.threshold)


def _trade(score: Floats, wanted: Bools, rate: float, held: str, groups: Ints | None) -> Trade:
    """The share of ``wanted`` above the threshold that holds ``rate`` of the others below it."""
    from scipy.special import betaincinv

    if not 0 < rate < 1:
        raise UsageError(f"{held} {rate!r} must lie between 0 and 1, for instance 0.95")
    others, inside = np.sort(score[~wanted]), np.sort(score[wanted])
    if not len(inside):
        raise DataError("no images to count")
    if len(others) < (least := fewest(rate)):
        raise DataError(
            f"{held} {rate:g} needs at least {least} images to hold it on, not {len(others)}"
        )
    threshold = float(others[int(np.ceil(rate * len(others) - 1e-9)) - 1])
    value = _above(inside, np.array([threshold]))[0]
    one = np.zeros(len(score), dtype=np.int64)
    high = score > threshold
    size, base = (
        float(
            effective_sizes(high[side], one[side], 1, None if groups is None else groups[side])[0]
        )
        for side in (wanted, ~wanted)
    )
    if size <= 0 or base <= 0:
        return Trade(threshold, held, rate, proportion(value, 0.0))
    spots = betaincinv(rate * base, (1 - rate) * base + 1, _SPOTS)
    place = np.clip(np.ceil(spots * len(others)).astype(np.int64) - 1, 0, len(others) - 1)
    moved = float(_above(inside, others[place]).var())
    share = (value * len(inside) + 0.5) / (len(inside) + 1)
    size = 1 / (1 / size + moved / (share * (1 - share)))
    return Trade(threshold, held, rate, proportion(value, size))


def fewest(rate: float) -> int:
    """Images on which ``rate`` can be held at all: below that no image may lie beyond it."""
    return int(np.ceil(1 / (1 - rate) - 1e-9))


def _above(ordered: Floats, thresholds: Floats) -> Floats:
    below = np.searchsorted(ordered, thresholds, side="right")
    shares: Floats = 1 - below / len(ordered)
    return shares


def expected_cost(predictions: Predictions, costs: Floats) -> tuple[Figure, Ints]:
    """The mean cost of deciding for the cheapest class, and (N,) those decisions.

    Args:
        predictions: labelled; its probabilities should be calibrated.
        costs: (K, K), rows true, columns decided, in the user's units; usually 0 on the diagonal.

    Raises:
        UsageError: ``costs`` is not (K, K) finite numbers.
    """
    k = len(predictions.classes)
    if costs.shape != (k, k) or not np.isfinite(costs).all():
        raise UsageError(
            f"the cost matrix is {costs.shape}: give {k} rows (true) of {k} finite costs (decided)"
        )
    decided = (np.exp(predictions.log_probabilities) @ costs).argmin(axis=1).astype(np.int64)
    paid = costs[predictions.targets, decided].astype(np.float64)
    return bootstrap_mean(paid, groups=group_numbers(predictions.groups), seed=0), decided
