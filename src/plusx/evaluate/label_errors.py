"""Labels that are likely wrong: what a classifier that never saw an image says against its label.

Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels,
arXiv 1911.00068, sections 3.1 and 3.2 (the off-diagonals of the confident joint). The figures are
those of cleanlab's ``find_label_issues(filter_by="confident_learning")`` and
``get_label_quality_scores``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plusx.decide import log_softmax
from plusx.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]

_TIE = 1e-6
"""Probabilities this close are the same."""


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """How well each label fits its image.

    Attributes:
        quality: (n,) the probability that the classifier gives the label, 0..1.
        suggested: (n,) the class that it thinks most probable.
        suggested_share: (n,) the probability of that.
        likely: positions of the likely errors, the likeliest first.
        ranking: all positions, the label that fits worst first.
    """

    quality: NDArray[np.float64]
    suggested: Ints
    suggested_share: NDArray[np.float64]
    likely: Ints
    ranking: Ints


def find_label_errors(logits: Floats, targets: Ints) -> LabelErrors:
    """Rank labels by how little a classifier believes them, and say which are likely wrong.

    Args:
        logits: (n, K), each row by a classifier that never saw that image or its group.
        targets: (n,) in 0..K-1.

    Raises:
        UsageError: the shapes do not fit, or a target is out of range.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise UsageError(f"logits of shape {logits.shape} do not fit targets {targets.shape}")
    if not len(targets) or targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise UsageError(f"targets must lie in 0..{logits.shape[1] - 1}, one an image at least")
    probabilities = np.exp(log_softmax(logits)).astype(np.float64)
    suggested = probabilities.argmax(axis=1).astype(np.int64)
    given = probabilities[np.arange(len(targets)), targets]
    best = probabilities.max(axis=1)
    likely = (_confidently(probabilities, targets) != targets) & (given < best - _TIE)
    ranking = np.argsort(given, kind="stable").astype(np.int64)
    return LabelErrors(given, suggested, best, ranking[likely[ranking]], ranking)


def _confidently(probabilities: NDArray[np.float64], targets: Ints) -> Ints:
    """(n,) the class to which an image confidently belongs: one that it has at least as surely as
    that class's own images have it on average, of several the most probable; else its label."""
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    own = probabilities[np.arange(len(targets)), targets]
    mean = np.bincount(targets, own, minlength=len(counts)) / np.maximum(counts, 1)
    known = np.where(counts > 0, probabilities, -1.0)
    enough = known >= np.maximum(mean, 2 * _TIE) - _TIE
    several = enough.sum(axis=1) > 1
    sure = np.where(several, known.argmax(axis=1), enough.argmax(axis=1))
    found: Ints = np.where(enough.any(axis=1), sure, targets)
    return found
