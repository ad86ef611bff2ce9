"""The answer for one image, as people and programs get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from plusx.data.records import Task


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image.

    Attributes:
        path: the image file.
        classes: K names.
        probabilities: (K,) float32; they sum to 1 (task single), or each class's own (task multi).
        marks: (K,) bool, which classes the image has by the model's thresholds (task multi); None
            for task single.
        called: index of the class to answer, where it is not the most probable one because another
            is favoured; else None.
        sure: whether the answer is as probable as the model's promise needs.
        unknown: whether nothing like the image was trained on.
        unknown_score: how far it is from all training images, 0..2; None where the model has no
            such score.
        set: the classes that it may be, with the coverage that the model promises, perhaps none;
            None where the model promises none.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    marks: npt.NDArray[np.bool_] | None = None
    called: int | None = None
    sure: bool = True
    unknown: bool = False
    unknown_score: float | None = None
    set: tuple[str, ...] | None = None

    @property
    def decision(self) -> Literal["answer", "unsure", "unknown"]:
        """Whether to take ``label`` for an answer."""
        return "unknown" if self.unknown else "answer" if self.sure else "unsure"

    @property
    def task(self) -> Task:
        """``single`` or ``multi``."""
        return "single" if self.marks is None else "multi"

    @property
    def labels(self) -> tuple[str, ...]:
        """The image's classes: ``label`` (single), or all that reach their threshold, which may be
        none (multi)."""
        if self.marks is None:
            return (self.label,)
        return tuple(self.classes[i] for i in np.flatnonzero(self.marks))

    @property
    def label(self) -> str:
        """The most probable class (or one that is favoured), whether or not it is an answer."""
        return self.classes[self._index]

    @property
    def probability(self) -> float:
        """Its probability, 0..1."""
        return float(self.probabilities[self._index])

    @property
    def _index(self) -> int:
        return int(self.probabilities.argmax()) if self.called is None else self.called

    def top(self, n: int) -> list[tuple[str, float]]:
        """The ``n`` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def __repr__(self) -> str:
        if self.marks is not None:
            return f"Prediction({self.path!r}: {list(self.labels)!r})"
        but = "" if self.decision == "answer" else f" {self.decision}"
        return f"Prediction({self.path!r}: {self.label!r} {self.probability:.3f}{but})"
