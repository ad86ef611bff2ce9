"""Which kind of images does worse: slices, each against the rest, corrected for looking at many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.evaluate.intervals import Figure, effective_sizes, group_numbers, proportion
from plusx.evaluate.predictions import Predictions

FEWEST = 10
"""Images below which a slice is not judged."""

MOST_VALUES = 20
"""Different values of a column above which it makes no slices (names, for instance)."""

QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


@dataclass(frozen=True)
class Slice:
    """Images alike in one way.

    Attributes:
        column, value: what they share.
        n: how many.
        top1: theirs.
        rest: top1 of all others.
        p: that the slice is no worse than the rest, corrected for the number of slices (Holm).
    """

    column: str
    value: str
    n: int
    top1: Figure
    rest: float
    p: float

    @property
    def worse(self) -> bool:
        """Whether it does significantly worse than the rest, at 5% over all slices together."""
        return self.p < 0.05

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "column": self.column,
            "value": self.value,
            "n": self.n,
            "top1": self.top1.to_json(),
            "rest": self.rest,
            "p": self.p,
            "worse": self.worse,
        }


def slices(
    predictions: Predictions, columns: Mapping[str, Sequence[str] | npt.NDArray[np.floating]]
) -> list[Slice]:
    """Every slice with enough images, worst first.

    Args:
        predictions: labelled, one class an image.
        columns: name -> N values; text makes a slice a value, numbers four quarters.
    """
    right = predictions.predicted == predictions.targets
    groups = group_numbers(predictions.groups)
    found: list[tuple[str, str, npt.NDArray[np.bool_]]] = []
    for name, values in columns.items():
        found += [(name, value, mask) for value, mask in _masks(values)
                  if mask.sum() >= FEWEST and (~mask).sum() >= FEWEST]  # fmt: skip
    raw = np.array([_p_worse(right, mask, groups) for _, _, mask in found])
    adjusted = holm(raw)
    made = []
    for (name, value, mask), p in zip(found, adjusted, strict=True):
        size = _effective(right[mask], None if groups is None else groups[mask])
        top1 = proportion(float(right[mask].mean()), size)
        made.append(Slice(name, value, int(mask.sum()), top1, float(right[~mask].mean()), float(p)))
    return sorted(made, key=lambda one: (one.p, one.top1.value - one.rest))


def _masks(
    values: Sequence[str] | npt.NDArray[np.floating],
) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.floating):
        known = np.isfinite(values)
        if not known.any():
            return []
        edges = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75]))
        if len(edges) < 3:  # many equal values: quarters would be arbitrary
            return []
        quarter = np.searchsorted(edges, values, side="left")
        return [(name, known & (quarter == i)) for i, name in enumerate(QUARTERS)]
    text = np.array([str(value) for value in values], dtype=object)
    names = sorted(set(text.tolist()) - {""})
    if len(names) > MOST_VALUES:
        return []
    return [(name, np.asarray(text == name)) for name in names]


def _p_worse(
    right: npt.NDArray[np.bool_],
    mask: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.int64] | None,
) -> float:
    """One-sided p of a score test of two proportions, on the effective numbers of images."""
    from scipy.special import ndtr

    inside, outside = right[mask], right[~mask]
    m = _effective(inside, None if groups is None else groups[mask])
    n = _effective(outside, None if groups is None else groups[~mask])
    if not m or not n:
        return 1.0
    share = (m * inside.mean() + n * outside.mean() + 0.5) / (m + n + 1)
    spread = np.sqrt(share * (1 - share) * (1 / m + 1 / n))
    # Half an image towards no difference: a count moves in steps.
    gap = outside.mean() - inside.mean() - 0.5 * (1 / m + 1 / n)
    return float(ndtr(-gap / spread))


def _effective(right: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64] | None) -> float:
    one = np.zeros(len(right), dtype=np.int64)
    return float(effective_sizes(right, one, 1, groups)[0])


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Holm 1979: p values corrected for their number."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
