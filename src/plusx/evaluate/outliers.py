"""Images unlike all others: far from their nearest neighbours in feature space.

Ramaswamy, Rastogi and Shim 2000, Efficient algorithms for mining outliers from large data sets;
on features of a network: Sun et al. 2022, arXiv 2204.06507.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plusx.errors import UsageError

Ints = NDArray[np.int64]

NEIGHBOURS = 10
FEWEST_IMAGES = 3 * NEIGHBOURS
"""With fewer images, every one is unlike most others."""

MOST_COMPARED = 10_000
"""Neighbours are sought among a sample of this many, so that time grows with n, not its square."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each image lies from others.

    Attributes:
        distance: (n,) mean cosine distance to the nearest `NEIGHBOURS`, 0..2.
        typical: the median of that.
        far: positions of those that are far out, the farthest first.
    """

    distance: NDArray[np.float64]
    typical: float
    far: Ints


def find_outliers(features: NDArray[np.floating], *, seed: int = 0) -> Outliers:
    """Distances to nearest neighbours; far out is above the upper quartile by three times the
    distance between the quartiles (Tukey 1977), on logarithms: distances spread to one side.

    Args:
        features: (n, d), n at least `FEWEST_IMAGES`; may be memory-mapped.
        seed: of the sample among which neighbours are sought where n is large.

    Raises:
        UsageError: fewer images.
    """
    count = len(features)
    if features.ndim != 2 or count < FEWEST_IMAGES:
        raise UsageError(f"features {features.shape}: (n, d) with n at least {FEWEST_IMAGES}")
    compared = np.arange(count)
    if count > MOST_COMPARED:
        compared = np.sort(np.random.default_rng(seed).choice(count, MOST_COMPARED, replace=False))
    among = _unit(features[compared])
    most = NEIGHBOURS + 1  # itself among them
    itself = np.zeros(count, bool)
    itself[compared] = True
    distance = np.empty(count)
    for first in range(0, count, 1024):
        rows = slice(first, min(count, first + 1024))
        cosine = _unit(features[rows]) @ among.T
        cosine = np.sort(np.partition(cosine, -most, axis=1)[:, -most:], axis=1)
        distances = 1 - cosine.astype(np.float64).clip(-1, 1)  # the farthest first
        own = itself[rows]
        distance[rows] = np.where(own, distances[:, :-1].mean(1), distances[:, 1:].mean(1))
    log = np.log(np.maximum(distance, 1e-9))
    low, middle, high = np.quantile(log, (0.25, 0.5, 0.75))
    order = np.argsort(-distance, kind="stable").astype(np.int64)
    far = order[log[order] > high + 3 * (high - low)]
    return Outliers(distance, float(np.exp(middle)), far)


def _unit(features: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = np.asarray(features, np.float32)
    length: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(length, np.float32(1e-12))
    return unit
