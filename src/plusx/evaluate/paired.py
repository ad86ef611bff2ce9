"""Two classifiers on the same images: is one better, or is it noise?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure, bootstrap_mean, group_numbers, proportion
from plusx.evaluate.predictions import Predictions


@dataclass(frozen=True)
class Paired:
    """A against B.

    Attributes:
        n: images that both were asked about.
        difference: top1 of A less top1 of B, with the interval of a paired bootstrap (by group).
        only_a, only_b: images that just one of them got right.
        p: McNemar's exact two-sided test that neither is better (images as independent).
        per_class: class -> the same difference on its images; None without images.
        rows_only_a, rows_only_b: (M,) rows of those images.
    """

    n: int
    difference: Figure
    only_a: int
    only_b: int
    p: float
    per_class: dict[str, Figure | None]
    rows_only_a: npt.NDArray[np.int64]
    rows_only_b: npt.NDArray[np.int64]

    @property
    def settled(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.difference.low > 0 or self.difference.high < 0


def compare(a: Predictions, b: Predictions, *, seed: int = 0) -> Paired:
    """Compare two sets of predictions of the same images, classes and targets, in the same order.

    Raises:
        UsageError: they are not of the same images, classes and targets.
    """
    for field in ("paths", "classes", "task"):
        if getattr(a, field) != getattr(b, field):
            raise UsageError(f"both must be of the same {field}, in the same order")
    if not np.array_equal(a.targets, b.targets):
        raise UsageError("both must have the same targets")
    if a.task != "single":
        raise UsageError("task 'multi' has no one answer an image to compare")
    right_a, right_b = a.predicted == a.targets, b.predicted == b.targets
    gain = right_a.astype(np.float64) - right_b
    groups = group_numbers(a.groups)
    only_a, only_b = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    per_class: dict[str, Figure | None] = {}
    for k, name in enumerate(a.classes):
        rows = np.flatnonzero(a.targets == k)
        own = None if groups is None else groups[rows]
        per_class[name] = bootstrap_mean(gain[rows], groups=own, seed=seed) if len(rows) else None
    return Paired(
        n=len(a),
        difference=bootstrap_mean(gain, groups=groups, seed=seed),
        only_a=len(only_a),
        only_b=len(only_b),
        p=mcnemar(len(only_a), len(only_b)),
        per_class=per_class,
        rows_only_a=only_a,
        rows_only_b=only_b,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided test: the binomial on the images where just one is right
    (Fagerland et al. 2013, BMC Medical Research Methodology 13:91)."""
    from scipy.stats import binomtest

    differ = only_a + only_b
    return float(binomtest(only_a, differ, 0.5).pvalue) if differ else 1.0


def gain_over_seeds(
    gains: npt.NDArray[np.float64],
    *,
    groups: npt.NDArray[np.int64] | None = None,
    comparisons: int = 1,
) -> Figure:
    """Mean difference of two kinds of trainings, each repeated on the same images, with a 95%
    interval for other images *and* other seeds.

    The variance is that of the mean over images (over groups where there are some) plus that of
    the mean over seeds; both hold the part that is of image and seed together, so their sum is a
    little too large. Student's t has the degrees of freedom of such a sum (Satterthwaite 1946,
    Biometrics Bulletin 2(6)). Two images more, one for either side, keep the interval from
    shrinking to nothing where nearly all images agree (Bonett & Price 2012, Journal of Educational
    and Behavioral Statistics 37(4), for one pair of classifiers). With one seed the interval knows
    nothing of other seeds.

    Args:
        gains: (S, N) what one training has more than the other, -1 to 1, by seed and image.
        groups: (N,) of the images.
        comparisons: of so many intervals all hold together 95 times in 100 (Bonferroni).
    """
    from scipy.special import stdtrit

    by_image = np.concatenate([gains.mean(axis=0), [1.0, -1.0]])
    first = groups.max() + 1 if groups is not None else gains.shape[1]
    units = np.arange(gains.shape[1]) if groups is None else groups
    variance = _variances(by_image, gains.mean(axis=1), np.append(units, [first, first + 1]))
    whole = sum(part for part, _ in variance)
    freedom = whole**2 / sum(part**2 / max(1, units - 1) for part, units in variance)
    half = float(stdtrit(freedom, 1 - 0.025 / comparisons)) * np.sqrt(whole)
    value, centre = float(gains.mean()), float(by_image.mean())
    low, high = min(value, centre - half), max(value, centre + half)
    return Figure(value, max(-1.0, float(low)), min(1.0, float(high)))


def share_over_seeds(
    right: npt.NDArray[np.float64], *, groups: npt.NDArray[np.int64] | None = None
) -> Figure:
    """Mean share of right answers of trainings repeated on the same images: Wilson's interval with
    as many images as would vary alike, at most those (or groups) that there are.

    Args:
        right: (S, N) 0 to 1, by seed and image.
        groups: (N,) of the images.
    """
    units = np.arange(right.shape[1]) if groups is None else groups
    parts = _variances(right.mean(axis=0), right.mean(axis=1), units)
    most, value = float(parts[0][1]), float(right.mean())
    whole, alone = sum(part for part, _ in parts), value * (1 - value)
    return proportion(value, min(most, alone / whole) if whole > 0 and alone > 0 else most)


def _variances(
    by_image: npt.NDArray[np.float64],
    by_seed: npt.NDArray[np.float64],
    units: npt.NDArray[np.int64],
) -> list[tuple[float, int]]:
    """Variance of the mean over images and of that over seeds, each with its number of units."""
    _, place = np.unique(units, return_inverse=True)
    count = int(place.max()) + 1
    sums = np.bincount(place, weights=by_image - by_image.mean(), minlength=count)
    images = float((sums**2).sum()) / len(by_image) ** 2 * count / max(1, count - 1)
    seeds = float(by_seed.var(ddof=1)) / len(by_seed) if len(by_seed) > 1 else 0.0
    return [(images, count), (seeds, len(by_seed))]
