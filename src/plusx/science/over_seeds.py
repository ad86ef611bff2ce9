"""What repeated trainings say: a mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Values of several seeds.

    Attributes:
        mean: of them.
        low, high: 95% interval of the mean (Student's t); NaN for a single seed.
        least, most: of them.
        n: how many.
    """

    mean: float
    low: float
    high: float
    least: float
    most: float
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean, interval and range; values that are no number are left out."""
    from scipy import stats

    found = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    n = len(found)
    if not n:
        return Spread(np.nan, np.nan, np.nan, np.nan, np.nan, 0)
    half = np.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / np.sqrt(n))
    mean = float(found.mean())
    return Spread(mean, mean - half, mean + half, float(found.min()), float(found.max()), n)


def points(found: Spread) -> str:
    """Fractions as points of percent: ``+5.2 points (95% interval +3.0 to +7.4, 3 seeds)``."""
    if not found.n:
        return "undefined (no seed gave a number)"
    if found.n == 1:
        return f"{100 * found.mean:+.1f} points (1 seed)"
    return (
        f"{100 * found.mean:+.1f} points (95% interval {100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}, {found.n} seeds)"
    )
