"""Labels that are likely wrong: what a classifier that never saw an image says against its label.

Northcutt, Jiang and Chuang 2021, Confident learning: estimating uncertainty in dataset labels,
arXiv 1911.00068, as cleanlab does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plusx.decide import log_softmax
from plusx.errors import UsageError

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


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
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise UsageError(f"logits of shape {logits.shape} do not fit targets {targets.shape}")
    if not len(targets) or targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise UsageError(f"targets must lie in 0..{logits.shape[1] - 1}, one an image at least")
    probabilities = np.exp(log_softmax(logits)).astype(np.float64)
    suggested = probabilities.argmax(axis=1).astype(np.int64)
    # cleanlab wants classes that have images; the others' share is of no use to it
    present, labels = np.unique(targets, return_inverse=True)
    seen = probabilities[:, present]
    seen = np.maximum(seen, 1e-12) / np.maximum(seen, 1e-12).sum(axis=1, keepdims=True)
    quality = np.asarray(get_label_quality_scores(labels, seen), np.float64)
    likely = np.zeros(len(targets), bool)
    if len(present) > 1:
        likely = np.asarray(find_label_issues(labels, seen, n_jobs=1)) & (suggested != targets)
    ranking = np.argsort(quality, kind="stable").astype(np.int64)
    return LabelErrors(
        quality, suggested, probabilities.max(axis=1), ranking[likely[ranking]], ranking
    )
