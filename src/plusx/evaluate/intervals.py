"""95% intervals that stay honest at the edges: a perfect score on 20 images is not [1, 1].

Every proportion gets Wilson's score interval (Brown, Cai & DasGupta 2001, "Interval Estimation for
a Binomial Proportion", Statistical Science 16(2), section 3.1.1). A figure that is not a plain
proportion gets it with its *effective* number of images: the size of a simple random sample whose
proportion would vary as much as the figure does (Korn & Graubard 1998, Survey Methodology 24).
Images of one group (patient, video) are not independent; the number of images is then divided by
the design effect (Rao & Scott 1992, Biometrics 48, "A simple method for the analysis of clustered
binary data"), and few groups widen the interval as Student's t does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

Z95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution
_CELLS = 4_000_000  # random numbers drawn at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95% interval, ``low <= value <= high``; proportions are 0..1."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """``{"value": ..., "low": ..., "high": ...}``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(proportion: npt.ArrayLike, size: npt.ArrayLike) -> tuple[Any, Any]:
    """Wilson's 95% score interval of ``proportion`` seen on ``size`` images, elementwise.

    ``size`` need not be whole; at 0 the interval is [0, 1]. The interval holds ``proportion``.
    """
    p = np.asarray(proportion, dtype=np.float64)
    n = np.asarray(size, dtype=np.float64)
    centre = n * p + Z95**2 / 2
    half = Z95 * np.sqrt(n * p * (1 - p) + Z95**2 / 4)
    low, high = (centre - half) / (n + Z95**2), (centre + half) / (n + Z95**2)
    return np.clip(np.minimum(low, p), 0.0, 1.0), np.clip(np.maximum(high, p), 0.0, 1.0)


def proportion(value: float, size: float) -> Figure:
    """``value`` in 0..1 as a Figure with Wilson's interval for ``size`` (effective) images."""
    low, high = wilson(value, size)
    return Figure(float(value), float(low), float(high))


def effective_sizes(
    success: npt.NDArray[np.bool_], subset: Ints, count: int, groups: Ints | None
) -> Floats:
    """Effective number of images behind ``count`` proportions, each over a subset of the rows.

    Args:
        success: (M,) whether the row counts as a success.
        subset: (M,) which of the ``count`` proportions the row belongs to.
        count: number of proportions.
        groups: (M,) group of each row, or None where rows are independent.

    Returns:
        (count,) the rows of each subset, divided by the design effect where there are groups.
    """
    size = np.bincount(subset, minlength=count).astype(np.float64)
    if groups is None:
        return size
    hits = np.bincount(subset, weights=success, minlength=count)
    # Half a success and half a failure more: at a perfect score nothing tells how alike the images
    # of a group are, and the design effect becomes its largest: a group counts as one image.
    rate = (hits + 0.5) / (size + 1.0)
    return size / design_effects(success - rate[subset], subset, count, groups)


def design_effects(residuals: Floats, subset: Ints, count: int, groups: Ints) -> Floats:
    """How many times more a mean varies than if rows were independent; at least 1.

    The ratio of the between-group variance to the independent one, both from ``residuals`` (M,),
    with G / (G - 1) and Student's t on G - 1 degrees of freedom for G groups (as survey software
    does). A subset that is all one group says nothing about others: infinite. Where every group
    has one row, rows are the sample: 1.
    """
    cells, cell_of = np.unique(subset * (groups.max(initial=0) + 1) + groups, return_inverse=True)
    owner = np.zeros(len(cells), dtype=np.int64)
    owner[cell_of] = subset
    sums = np.bincount(cell_of, weights=residuals, minlength=len(cells))
    between = np.bincount(owner, weights=sums**2, minlength=count)
    within = np.bincount(subset, weights=residuals**2, minlength=count)
    rows = np.bincount(subset, minlength=count)
    number = np.bincount(owner, minlength=count).astype(np.float64)
    ratio = np.ones(count)
    np.divide(between, within, out=ratio, where=within > 0)
    few = np.full(count, np.inf)
    some = number > 1
    few[some] = number[some] / (number[some] - 1) * (_student(number[some] - 1) / Z95) ** 2
    effect: Floats = np.maximum(ratio, 1.0) * few
    effect[rows == number] = 1.0
    return effect


def bootstrap_mean(
    values: Floats, *, groups: Ints | None, seed: int, resamples: int = 1000
) -> Figure:
    """The mean of (N,) ``values`` with a bootstrap percentile interval, resampling whole groups.

    The percentiles are moved outwards for small samples (Hesterberg 2015, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69(4), section 4.3.1, "expanded").
    A long tail that the sample missed cannot be seen: losses as skewed as a log-normal with sigma
    1.5 are held 81-89 times in 100 at 20 to 500 images (exponential ones 91-95).
    """
    from scipy.special import ndtr

    if groups is None:
        sums: Floats = values
        sizes: Floats = np.ones(len(values))
    else:
        sums = np.bincount(groups, weights=values).astype(np.float64)
        sizes = np.bincount(groups).astype(np.float64)
        sums, sizes = sums[sizes > 0], sizes[sizes > 0]
    units = len(sums)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _CELLS // units)
    for start in range(0, resamples, step):
        rows = rng.integers(0, units, size=(min(step, resamples - start), units), dtype=np.int32)
        means[start : start + step] = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    value = float(values.mean())
    tail = 0.0
    if units > 1:
        tail = float(ndtr(-np.sqrt(units / (units - 1)) * _student(np.array([units - 1.0]))[0]))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Figure(value, min(float(low), value), max(float(high), value))


def group_numbers(groups: tuple[str, ...] | None) -> Ints | None:
    """(N,) int64 number of each row's group, or None where there are no groups."""
    if groups is None:
        return None
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in groups], dtype=np.int64)


def _student(freedom: Floats) -> Floats:
    """Two-sided 95% quantile of Student's t."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, 0.975), dtype=np.float64)
