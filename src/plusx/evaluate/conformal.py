"""Sets of classes that hold the right one as often as promised: split conformal prediction.

Vovk et al. 2005; the score is that of Sadinle, Lei & Wasserman 2019 ("Least ambiguous set-valued
classifiers with bounded error levels", JASA 114): one minus the probability of the class, which
gives the smallest sets on average. A set may be empty: nothing is probable enough.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError, UsageError

Floats = npt.NDArray[np.float64]


def class_thresholds(
    probabilities: Floats,
    targets: npt.NDArray[np.int64],
    *,
    coverage: float,
    per_class: bool = False,
) -> Floats:
    """(K,) the least probability at which a class enters the set.

    With exchangeable images the set of a new image holds its class with a probability of at least
    ``coverage`` and at most ``coverage + 1 / (n + 1)``.

    Args:
        probabilities: (N, K) of calibration images, which did nothing else.
        targets: (N,) their classes.
        coverage: wanted, between 0 and 1.
        per_class: promise the coverage within every class, which takes 1 / (1 - coverage) images
            of each.

    Raises:
        UsageError: ``coverage`` is not between 0 and 1.
        DataError: too few images (of a class) for that coverage.
    """
    if not 0 < coverage < 1:
        raise UsageError(f"coverage {coverage!r} must lie between 0 and 1, for instance 0.9")
    own = probabilities[np.arange(len(targets)), targets]
    classes = probabilities.shape[1]
    if not per_class:
        return np.full(classes, _quantile(own, coverage, "calibration"))
    return np.array([_quantile(own[targets == k], coverage, f"class {k}") for k in range(classes)])


def _quantile(own: Floats, coverage: float, whose: str) -> float:
    """The finite-sample quantile: the (n + 1)(1 - coverage)-th smallest, rounded down."""
    rank = int(np.floor((len(own) + 1) * (1 - coverage) + 1e-9))
    if rank < 1:
        raise DataError(
            f"{whose}: {len(own)} images are too few for sets of {coverage:.0%} coverage "
            f"({int(np.ceil(1 / (1 - coverage) - 1e-9)) - 1} are needed)"
        )
    return float(np.sort(own)[rank - 1])


def sets(probabilities: Floats, thresholds: Floats) -> npt.NDArray[np.bool_]:
    """(N, K) whether the class is in the image's set."""
    return np.asarray(probabilities >= thresholds)
