"""Areas under curves, one class against the rest, from one sort a class: cheap for 10,000 x 100.

Each area comes with what one image adds to it (its influence), so that the mean over classes gets
an interval that knows that the classes share their images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.evaluate.intervals import Figure, Floats, Ints, proportion

Bools = npt.NDArray[np.bool_]

FEWEST = 2
"""Images (groups, where there are some) of a class, and of all others, below which no area is
given: from one image nothing tells how much another would change it."""

WHY_NONE = f"an area needs at least {FEWEST} images (or groups) of the class and {FEWEST} of others"

_WEIGHT = 4.0
"""Images of the smaller side at which a model's variance counts half."""


@dataclass(frozen=True, eq=False)
class Area:
    """An area, and how much it varies.

    Attributes:
        value: 0..1.
        influence: (U,) what each image (or group) adds to it; sums to 0.
        variance: of the value.
        freedom: degrees of freedom of that variance.
        size: independent images behind it, where ``value`` is 0 or 1.
    """

    value: float
    influence: Floats
    variance: float
    freedom: float
    size: float

    @property
    def figure(self) -> Figure:
        """With its 95% interval on the logit scale, by Student's t; Wilson's at 0 and 1."""
        from scipy.special import expit, logit, stdtrit

        if not 0 < self.value < 1 or self.variance <= 0:
            return proportion(min(max(self.value, 0.0), 1.0), self.size)
        half = stdtrit(self.freedom, 0.975) * self.variance**0.5
        half /= self.value * (1 - self.value)
        centre = logit(self.value)
        low, high = float(expit(centre - half)), float(expit(centre + half))
        return Figure(self.value, min(low, self.value), max(high, self.value))


def log_odds(logits: npt.NDArray[np.floating]) -> Floats:
    """(N, K) logits -> (N, K) logarithm of p / (1 - p) of the softmax: it orders images as p does,
    and still tells those apart whose p rounds to 1."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    share = np.exp(wide)
    total = share.sum(axis=1, keepdims=True)
    rows, top = np.arange(len(wide)), wide.argmax(axis=1)
    odds: Floats = wide - np.log(np.maximum(total - share, 1e-300))
    share[rows, top] = 0.0  # beside the largest, 1 - p is summed: a difference would be rounded
    odds[rows, top] = -np.log(np.maximum(share.sum(axis=1), 1e-300))
    return odds


def areas(score: Floats, positive: Bools, groups: Ints | None = None) -> tuple[Area, Area] | None:
    """Areas under the ROC curve and under precision against recall (as scikit-learn sums it).

    The first varies as DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44) have it; with few
    images, whose influences seldom show the tails, up to the variance that Hanley & McNeil 1982
    (Radiology 143) derive from the area itself. The second by the delta method: precision at each
    positive image moves with the images above it. Images of one group are summed.

    Args:
        score: (N,) the higher, the more the class.
        positive: (N,) whether the image is of the class.
        groups: (N,) number of each image's group.

    Returns:
        Both, or None with fewer than ``FEWEST`` images (groups) on a side.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    sides = [m, n]
    if groups is not None:
        sides = [int((np.bincount(groups[side]) > 0).sum()) for side in (positive, ~positive)]
    if min(sides) < FEWEST:
        return None
    order = np.argsort(-score, kind="stable")
    sorted_score, hit = score[order], positive[order]
    last = np.flatnonzero(np.append(sorted_score[1:] != sorted_score[:-1], True))
    sizes = np.diff(np.append(-1, last))
    found = np.cumsum(hit)[last].astype(np.float64)  # positive images down to each score
    false = last + 1 - found
    here = np.diff(np.append(0.0, found))
    above = 1 - (false - (sizes - here) / 2) / n  # of the others, those below a positive image
    below = (found - here / 2) / m
    roc = float((here * above).sum() / m)
    precision = found / (found + false)
    average = min(1.0, float((here * precision).sum() / m))
    moved = here / (found + false) ** 2
    more, less = (np.cumsum((moved * x)[::-1])[::-1] for x in (false, found))
    per_score = [((above - roc) / m, (below - roc) / n),
                 ((precision - average + more) / m, -less / m)]  # fmt: skip
    made = []
    for ours, theirs in per_score:
        by_rank = np.where(hit, np.repeat(ours, sizes), np.repeat(theirs, sizes))
        influence = np.empty(len(score))
        influence[order] = by_rank
        made.append(influence)
    return _roc(roc, made[0], positive, groups, sides), _pr(average, made[1], groups, sides)


def _roc(
    value: float, influence: Floats, positive: Bools, groups: Ints | None, sides: Sequence[int]
) -> Area:
    least = min(sides)
    if groups is None:
        parts = [float((influence[side] ** 2).sum()) * k / (k - 1)
                 for side, k in zip((positive, ~positive), sides, strict=True)]  # fmt: skip
        variance = sum(parts)
        under = sum(part**2 / (k - 1) for part, k in zip(parts, sides, strict=True))
        freedom = variance**2 / under if under > 0 else least - 1.0  # Welch 1947
    else:
        influence = np.bincount(groups, weights=influence).astype(np.float64)
        variance, freedom = float((influence**2).sum()) * least / (least - 1), least - 1.0
    lacking = max(0.0, _hanley_mcneil(value, *sides) - variance)
    variance += lacking * _WEIGHT / (_WEIGHT + least)
    return Area(value, influence, variance, freedom, float(least))


def _pr(value: float, influence: Floats, groups: Ints | None, sides: Sequence[int]) -> Area:
    if groups is not None:
        influence = np.bincount(groups, weights=influence).astype(np.float64)
    m = sides[0]
    units = len(influence)
    variance = float((influence**2).sum()) * units / (units - 1)
    lacking = max(0.0, value * (1 - value) / m - variance)
    variance += lacking * 2 / (2 + m)  # at the edges the influences alone claim too much
    return Area(value, influence, variance, m - 1.0, float(m))


def _hanley_mcneil(area: float, m: int, n: int) -> float:
    one, other = area / (2 - area), 2 * area**2 / (1 + area)
    pairs = (m - 1) * (one - area**2) + (n - 1) * (other - area**2)
    return (area * (1 - area) + pairs) / (m * n)


def mean_area(found: Sequence[Area]) -> Figure | None:
    """The mean over classes; None of none.

    Classes share their images, whose influences are added before they are squared; what a class's
    variance has beyond its influences is added as independent.
    """
    if not found:
        return None
    k = len(found)
    together = np.zeros_like(found[0].influence)
    for one in found:
        together += one.influence
    beyond = [max(0.0, one.variance - float((one.influence**2).sum())) for one in found]
    variance = (float((together**2).sum()) + sum(beyond)) / k**2
    squares = sum(one.variance**2 / one.freedom for one in found)
    freedom = sum(one.variance for one in found) ** 2 / squares if squares > 0 else 1.0
    size = min(k**2 / sum(1 / one.size for one in found), float(len(together)))
    value = float(np.mean([one.value for one in found]))
    return Area(value, together / k, variance, freedom, size).figure
