"""How sure a classifier says it is, against how often it is right; and one number that mends it.

One temperature divides the logits (Guo et al. 2017, "On Calibration of Modern Neural Networks",
arXiv 1706.04599, section 4.2): the order of the classes, and so every answer, stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.decide import log_softmax
from plusx.errors import DataError
from plusx.evaluate.intervals import Figure, Floats, bootstrap_mean, group_numbers
from plusx.evaluate.predictions import Predictions
from plusx.evaluate.selection import halves

FEWEST = 20
"""Images below which no temperature is fitted: it would be luck."""

IMAGINED = 10.0
"""Weight, in images, of the prior: images that are right just as often as the network says."""

_SHARPEST, _FLATTEST = 0.05, 20.0
_BINS = 15
_DRAWS = 1000


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in bins of equally many images.

    Attributes:
        confidence: (B,) mean of the largest probability.
        accuracy: (B,) share that was right.
        images: (B,) int64.
    """

    confidence: Floats
    accuracy: Floats
    images: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Calibration:
    """What a temperature does on images that did not fit it.

    Attributes:
        temperature: fitted on all the images: what ships. 1 where it would not help.
        before, after: figures ``nll``, ``brier`` and ``ece`` without and with a temperature that
            the other half of the images fitted.
        curves: reliability before and after.
        why: why the temperature is 1, where it was not fitted; else empty.
    """

    temperature: float
    before: dict[str, Figure]
    after: dict[str, Figure]
    curves: tuple[Reliability, Reliability]
    why: str = ""


def fit_temperature(logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]) -> float:
    """The temperature of least cross-entropy on (N, K) logits; softmax(logits / T).

    The loss is convex in 1 / T, so bisection on its slope finds the one optimum. A perfect score
    would ask for T = 0: a prior worth ``IMAGINED`` images that are right as often as they claim
    to be keeps few images from saying much, and the loss convex.
    """
    z = logits.astype(np.float64)
    own = z[np.arange(len(z)), targets]
    claimed = (np.exp(log_softmax(logits)) * z).sum(axis=1)
    share = IMAGINED / (IMAGINED + len(z))
    wanted = float(((1 - share) * own + share * claimed).mean())

    def slope(beta: float) -> float:
        p = np.exp(log_softmax(beta * z))
        return float((p * z).sum(axis=1).mean()) - wanted

    low, high = 1 / _FLATTEST, 1 / _SHARPEST
    if slope(low) >= 0:
        return _FLATTEST
    if slope(high) <= 0:
        return _SHARPEST
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / float(np.sqrt(low * high))


def calibrate(predictions: Predictions, *, seed: int = 0) -> Calibration:
    """Fit a temperature, and judge it on images that did not fit it (each half judges the other's).

    Where the judged temperatures do not lower the NLL, the one that ships is 1: calibration never
    makes it worse on the images at hand.

    Raises:
        DataError: fewer than ``FEWEST`` images, or an image is unlabelled.
    """
    n = len(predictions)
    if n < FEWEST:
        raise DataError(f"{n} images are too few to fit a temperature ({FEWEST} are needed)")
    logits, targets = predictions.logits, predictions.targets
    half = halves(predictions, seed=seed)
    cooled = logits.copy()
    for side in (0, 1):
        other = half != side
        cooled[half == side] /= fit_temperature(logits[other], targets[other])
    before = Predictions(logits, targets, predictions.paths, predictions.classes,
                         groups=predictions.groups)  # fmt: skip
    after = Predictions(cooled, targets, predictions.paths, predictions.classes,
                        groups=predictions.groups)  # fmt: skip
    figures = [calibration_figures(each, seed=seed) for each in (before, after)]
    temperature, why = fit_temperature(logits, targets), ""
    if figures[1]["nll"].value >= figures[0]["nll"].value:
        temperature, why, after = 1.0, "no temperature lowered the cross-entropy", before
        figures[1] = figures[0]
    return Calibration(
        temperature, figures[0], figures[1], (reliability(before), reliability(after)), why
    )


def calibration_figures(predictions: Predictions, *, seed: int = 0) -> dict[str, Figure]:
    """``nll`` (nats), ``brier`` (sum over classes, 0..2) and ``ece`` with 95% intervals."""
    n = len(predictions)
    groups = group_numbers(predictions.groups)
    probabilities = np.exp(predictions.log_probabilities)
    truth = np.zeros_like(probabilities)
    truth[np.arange(n), predictions.targets] = 1.0
    losses = -predictions.log_probabilities[np.arange(n), predictions.targets]
    squares = ((probabilities - truth) ** 2).sum(axis=1)
    return {
        "nll": bootstrap_mean(losses, groups=groups, seed=seed),
        "brier": bootstrap_mean(squares, groups=groups, seed=seed),
        "ece": _ece(predictions, groups, seed),
    }


def reliability(predictions: Predictions) -> Reliability:
    """Bins of equally many images by confidence; at most 15, and 10 images or more in each."""
    sure, right = _sure_and_right(predictions)
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, _bins(len(order)))
    return Reliability(
        np.array([sure[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
        np.array([len(part) for part in parts], dtype=np.int64),
    )


def expected_calibration_error(sure: Floats, right: Floats) -> float:
    """Mean distance of confidence from accuracy over bins of equal mass, less its bias, 0 or more.

    A perfectly calibrated net shows a distance too, since accuracy in a bin is a count. How much
    is estimated from the normal approximation and taken off (Kumar, Liang & Ma 2019, "Verified
    Uncertainty Calibration", arXiv 1909.10155, section 5; here for the mean absolute distance).

    Args:
        sure: (N,) the largest probability.
        right: (N,) 1 where the answer was right, else 0.
    """
    parts = np.array_split(np.argsort(sure, kind="stable"), _bins(len(sure)))
    gap = np.array([sure[part].mean() - right[part].mean() for part in parts])
    share = np.array([len(part) for part in parts]) / len(sure)
    rate = np.array([right[part].mean() for part in parts])
    spread = np.sqrt(rate * (1 - rate) / np.array([len(part) for part in parts]))
    plugin = float((share * np.abs(gap)).sum())
    again = float((share * _folded_mean(gap, spread)).sum())
    return max(0.0, 2 * plugin - again)


def _folded_mean(mean: Floats, spread: Floats) -> Floats:
    """E|X| of a normal X, elementwise."""
    from scipy.special import ndtr

    safe = np.where(spread > 0, spread, 1.0)
    z = mean / safe
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    value: Floats = np.where(
        spread > 0, 2 * safe * density + mean * (2 * ndtr(z) - 1), np.abs(mean)
    )
    return value


def _ece(predictions: Predictions, groups: npt.NDArray[np.int64] | None, seed: int) -> Figure:
    sure, right = _sure_and_right(predictions)
    value = expected_calibration_error(sure, right)
    draws = resampled(
        lambda rows: expected_calibration_error(sure[rows], right[rows]),
        len(sure), groups=groups, seed=seed, resamples=200,
    )  # fmt: skip
    # Of the resamples the spread is used, not the place: a resample is noisier than the sample,
    # and a distance can only grow by noise.
    low, high = np.quantile(draws - draws.mean(), [0.025, 0.975])
    return Figure(value, max(0.0, value + float(low)), min(1.0, value + float(high)))


def resampled(
    figure: Callable[[npt.NDArray[np.int64]], float],
    n: int,
    *,
    groups: npt.NDArray[np.int64] | None,
    seed: int,
    resamples: int = _DRAWS,
) -> Floats:
    """(resamples,) values of ``figure(rows)`` on rows drawn with replacement, whole groups."""
    rng = np.random.default_rng(seed)
    members = None
    if groups is not None:
        order = np.argsort(groups, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    values = np.empty(resamples)
    for i in range(resamples):
        if members is None:
            rows = rng.integers(0, n, n)
        else:
            drawn = rng.integers(0, len(members), len(members))
            rows = np.concatenate([members[j] for j in drawn])
        values[i] = figure(rows)
    return values


def _sure_and_right(predictions: Predictions) -> tuple[Floats, Floats]:
    sure = np.exp(predictions.log_probabilities.max(axis=1))
    right = (predictions.predicted == predictions.targets).astype(np.float64)
    return sure, right


def _bins(n: int) -> int:
    return int(np.clip(n // 10, 1, _BINS))
