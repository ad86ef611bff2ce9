"""From probabilities to a decision: frozen data that ships with a model, and applying it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError

USUAL = 0.5
"""The threshold where nothing better is known."""


@dataclass(frozen=True)
class Decision:
    """How probabilities become an answer.

    Attributes:
        thresholds: (K,) the probability from which on an image has a class (task ``multi``); None
            for ``USUAL`` everywhere.

    Raises:
        UsageError: a threshold is not between 0 and 1.
    """

    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for value in self.thresholds or ():
            if not 0 <= value <= 1:
                raise UsageError(f"threshold {value!r} must lie between 0 and 1")

    def marks(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """(N, K) which classes each image has, from the probability (N, K) of each."""
        thresholds = USUAL if self.thresholds is None else np.array(self.thresholds)
        return np.asarray(probabilities.astype(np.float64) >= thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not there is left out."""
        return {} if self.thresholds is None else {"thresholds": list(self.thresholds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], classes: int) -> Decision:
        """The reverse of :meth:`to_dict`, for a model of so many classes.

        Raises:
            UsageError: the values do not fit.
        """
        found = values.get("thresholds")
        if found is None:
            return cls()
        if not isinstance(found, list) or not all(isinstance(v, int | float) for v in found):
            raise UsageError(f"thresholds {found!r} must be a list of numbers")
        if len(found) != classes:
            raise UsageError(f"there are {len(found)} thresholds for {classes} classes")
        return cls(tuple(float(value) for value in found))
