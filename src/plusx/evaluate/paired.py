"""Two classifiers on the same images: is one better, or is it noise?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure, bootstrap_mean, group_numbers
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

    McNemar's test is the exact binomial on the images where just one is right (Fagerland et al.
    2013, BMC Medical Research Methodology 13:91).

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
    from scipy.stats import binomtest

    right_a, right_b = a.predicted == a.targets, b.predicted == b.targets
    gain = right_a.astype(np.float64) - right_b
    groups = group_numbers(a.groups)
    only_a, only_b = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    differ = len(only_a) + len(only_b)
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
        p=float(binomtest(len(only_a), differ, 0.5).pvalue) if differ else 1.0,
        per_class=per_class,
        rows_only_a=only_a,
        rows_only_b=only_b,
    )
