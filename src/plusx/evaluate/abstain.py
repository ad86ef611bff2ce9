"""When to answer and when to be silent: coverage against risk, and thresholds that keep a promise.

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification", JMLR 11, for
risk and coverage; Geifman & El-Yaniv 2017 (arXiv 1705.08500) for a threshold with a guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError, UsageError
from plusx.evaluate.intervals import Floats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RiskCoverage:
    """Answering only the surest share of images.

    Attributes:
        coverage: (N,) share answered, rising.
        risk: (N,) share of those answered that is wrong.
        area: under the curve, the mean risk; lower is better.
    """

    coverage: Floats
    risk: Floats
    area: float


def risk_coverage(sure: Floats, right: Bools) -> RiskCoverage:
    """The curve of answering the surest images first; equally sure ones count alike."""
    if not len(sure):
        raise DataError("no images: there is no curve of risk against coverage")
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum(~right[order])
    answered = np.arange(1, len(order) + 1)
    # All images of one sureness are answered together or not at all.
    last = np.append(np.flatnonzero(np.diff(sure[order])), len(order) - 1)
    place = last[np.searchsorted(last, np.arange(len(order)))]
    risk = wrong[place] / answered[place]
    return RiskCoverage(answered[place] / len(order), risk, float(risk.mean()))


def threshold_for_precision(sure: Floats, right: Bools, precision: float) -> float:
    """The least sureness at which the share of right answers is ``precision`` or more, kept.

    Of the images above a threshold that merely reaches the precision here, a new sample would miss
    it half the time. So the lower limit of Wilson's one-sided 90% interval must reach it, tried
    from the surest down (a fixed sequence needs no correction for the number of thresholds;
    Angelopoulos et al. 2021, "Learn then Test", arXiv 2110.01052, section 3.2).

    Raises:
        UsageError: ``precision`` is not between 0 and 1.
        DataError: no threshold keeps it on these images.
    """
    if not 0 < precision < 1:
        raise UsageError(f"precision {precision!r} must lie between 0 and 1, for instance 0.95")
    curve = risk_coverage(sure, right)
    levels = np.sort(sure)[::-1]
    n = np.round(curve.coverage * len(sure))
    good = lower_limit(1 - curve.risk, n) >= precision
    needed = precision * 1.2816**2 / (1 - precision)  # a perfect score on fewer says too little
    tried = n >= needed
    if not (good & tried).any():
        raise DataError(
            f"no sureness gives a precision of {precision:.1%} on these {len(sure)} images with "
            "enough of them to promise it; ask for less, or calibrate on more images"
        )
    bad = np.flatnonzero(tried & ~good)
    first = int(np.argmax(good & tried))
    after = bad[bad > first]
    last = int(after[0]) - 1 if len(after) else len(levels) - 1
    return float(levels[last])


def lower_limit(share: Floats, n: Floats) -> Floats:
    """One-sided 90% lower limit of a proportion, Wilson's."""
    z = 1.2815515655446004
    centre = n * share + z**2 / 2
    half = z * np.sqrt(n * share * (1 - share) + z**2 / 4)
    limit: Floats = (centre - half) / (n + z**2)
    return limit


def threshold_for_coverage(sure: Floats, coverage: float) -> float:
    """The sureness that the wanted share of images reaches."""
    if not 0 < coverage <= 1:
        raise UsageError(f"coverage {coverage!r} must lie in 0..1, for instance 0.9")
    return float(np.sort(sure)[::-1][max(0, int(np.ceil(coverage * len(sure))) - 1)])


def threshold_for_sensitivity(score: Floats, positive: Bools, sensitivity: float) -> float:
    """The score that at least the wanted share of positive images reaches.

    Raises:
        UsageError: ``sensitivity`` is not between 0 and 1.
        DataError: too few positive images to promise it.
    """
    if not 0 < sensitivity < 1:
        raise UsageError(f"sensitivity {sensitivity!r} must lie between 0 and 1")
    own = np.sort(score[positive])
    rank = int(np.floor((len(own) + 1) * (1 - sensitivity) + 1e-9))
    if rank < 1:
        raise DataError(
            f"{len(own)} images of the class are too few for a sensitivity of {sensitivity:.1%} "
            f"({int(np.ceil(1 / (1 - sensitivity) - 1e-9)) - 1} are needed)"
        )
    return float(own[rank - 1])
