"""How wide a map of gradients is: the paper's size, a fitted Gaussian, and intervals of both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

TAIL = 0.0455
"""One minus the mass of a Gaussian within two standard deviations."""
RESAMPLES = 200
_SIGMAS = 400


@dataclass(frozen=True)
class Widths:
    """Of R maps, in pixels.

    Attributes:
        size: (R,) the square root of the number of pixels above ``TAIL`` of the greatest.
        sigma: (R,) of the round Gaussian about the centre that fits best in least squares.
        fit: (R,) share of the map's variance that it explains.
        half: (R,) side of the centred square that holds half of the map's sum.
    """

    size: Floats
    sigma: Floats
    fit: Floats
    half: Floats


def magnitude(energy: Array) -> Array:
    """(N, H, W) squared gradients -> (H, W) their root mean square."""
    found: Array = np.sqrt(energy.mean(axis=0))
    return found


def widths(maps: Array, centre: tuple[float, float]) -> Widths:
    """Measure maps (R, H, W) about a pixel (row, column)."""
    values = maps.reshape(len(maps), -1).astype(np.float64)
    size = np.sqrt((values > TAIL * values.max(axis=1, keepdims=True)).sum(axis=1))
    rows, columns = np.indices(maps.shape[1:], dtype=np.float64)
    rows, columns = rows - centre[0], columns - centre[1]
    sigma, fit = _gaussians(values, np.hypot(rows, columns).ravel())
    aside = np.maximum(np.abs(rows), np.abs(columns)).ravel()
    order = np.argsort(aside, kind="stable")
    held = np.cumsum(values[:, order], axis=1)
    middle = (held < held[:, -1:] / 2).sum(axis=1)
    return Widths(size, sigma, fit, 2 * aside[order][middle] + 1)


def resampled(energy: Array, *, seed: int = 0) -> Array:
    """(RESAMPLES, H, W) magnitudes over images that are drawn anew."""
    n = len(energy)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    mean = drawn.astype(np.float32) @ energy.reshape(n, -1) / n
    found: Array = np.sqrt(mean).reshape(RESAMPLES, *energy.shape[1:])
    return found


def _gaussians(values: Floats, radius: Floats) -> tuple[Floats, Floats]:
    """Width and explained share of each row of (R, P) over pixels at that distance.

    Pixels as far from the centre (to a quarter of a pixel) are taken together; of every width on
    a fine scale the best height is known, and a parabola through the best three finds the width.
    """
    ring = np.round(4 * radius).astype(np.int64)
    order = np.argsort(ring, kind="stable")
    _, starts, counts = np.unique(ring[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(values[:, order], starts, axis=1)
    away = np.add.reduceat(radius[order], starts) / counts
    # from where only the central pixel has weight to flat over the image
    logs = np.linspace(np.log(0.2), np.log(4 * radius.max() + 1), _SIGMAS)
    shape = np.exp(-0.5 * (away / np.exp(logs)[:, None]) ** 2)
    gain = (sums @ shape.T) ** 2 / (shape**2 @ counts)
    best = np.clip(gain.argmax(axis=1), 1, _SIGMAS - 2)
    at = np.arange(len(values))
    left, top, right = (gain[at, best + step] for step in (-1, 0, 1))
    bend = left - 2 * top + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
    sigma = np.exp(logs[best] + np.clip(shift, -1, 1) * (logs[1] - logs[0]))
    squares = (values**2).sum(axis=1)
    variance = squares - values.sum(axis=1) ** 2 / values.shape[1]
    explained = 1 - (squares - top) / np.where(variance > 0, variance, 1.0)
    return sigma, np.where(variance > 0, explained, 0.0)
