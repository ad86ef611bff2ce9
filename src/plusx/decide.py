"""From logits to a decision: frozen data that ships with a model, and applying it. Numpy alone.

Task single: one temperature makes probabilities; then an image may be unknown (nothing like it was
trained on), unsure (no class is probable enough), or answered, and has a set of classes that holds
the right one as often as promised. Task multi: one threshold per class, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError

USUAL = 0.5
"""The threshold where nothing better is known."""

FARTHEST = 2.0
"""The largest score an image can have: opposite to all."""

_BLOCK = 1024

Floats = npt.NDArray[np.floating]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sets:
    """Sets of classes that hold the right one with a promised probability (split conformal).

    Attributes:
        coverage: promised, 0..1.
        thresholds: (K,) the probability from which on a class enters the set.
        per_class: whether it is promised within every class.
    """

    coverage: float
    thresholds: tuple[float, ...]
    per_class: bool = False

    def __post_init__(self) -> None:
        _check_share("coverage", self.coverage)
        for value in self.thresholds:
            _check_share("threshold", value)


@dataclass(frozen=True)
class Unknown:
    """Whether anything like an image was trained on, by its nearest training images.

    The score is 1 less the mean cosine to the ``neighbours`` nearest features (Sun et al. 2022,
    "Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv 2204.06507, which takes the
    k-th alone).

    Attributes:
        threshold: images with a larger score are unknown.
        false_reject: share of images of the known classes that it was set to call unknown.
        neighbours: k.
        bank: (M, D) float16, features of training images, each of length 1. No paths, no labels.
            None in an exported file, whose graph holds it and computes the score.
    """

    threshold: float
    false_reject: float
    neighbours: int
    bank: npt.NDArray[np.float16] | None = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_share("false_reject", self.false_reject)
        if not 0 <= self.threshold <= FARTHEST:
            raise UsageError(f"unknown threshold {self.threshold!r} must lie in 0..{FARTHEST:g}")
        if self.bank is None:
            return
        if self.bank.ndim != 2 or not np.isfinite(self.bank).all():
            raise UsageError(f"bank {self.bank.shape} must be finite features (M, D)")
        if not 1 <= self.neighbours <= len(self.bank):
            raise UsageError(f"neighbours {self.neighbours!r} must lie in 1..{len(self.bank)}")

    @cached_property
    def _wide(self) -> npt.NDArray[np.float32]:
        if self.bank is None:
            raise UsageError("the features of the unknown score are in the exported file's graph")
        return np.ascontiguousarray(self.bank.T, dtype=np.float32)

    def score(self, features: Floats) -> npt.NDArray[np.float32]:
        """(N,) float32 in 0..2 of features (N, D); ``FARTHEST`` where they are not finite.

        Raises:
            UsageError: D is another than the bank's, or there is no bank.
        """
        if features.shape[1] != len(self._wide):
            raise UsageError(
                f"features have {features.shape[1]} numbers, those of the bank {len(self._wide)}"
            )
        found = np.empty(len(features), np.float32)
        for start in range(0, len(features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            alike = normalised(features[rows]) @ self._wide
            found[rows] = 1 - np.partition(alike, -self.neighbours)[:, -self.neighbours :].mean(1)
        strange = ~np.isfinite(features).all(axis=1)
        return np.where(strange, np.float32(FARTHEST), found.clip(0, FARTHEST))


def normalised(features: Floats) -> npt.NDArray[np.float32]:
    """(N, D) at length 1, float32; zeros where there is no length or a number is not finite."""
    wide = np.nan_to_num(features.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = np.abs(wide).max(axis=1, keepdims=True, initial=0)  # before squares overflow
    wide /= np.where(largest > 0, largest, 1)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(length > 0, length, 1), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Answers:
    """What a decision says about N images of task single.

    Attributes:
        called: (N,) int64 the class to answer.
        sure: (N,) whether it is probable enough.
        unknown: (N,) whether nothing like the image was trained on.
        scores: (N,) float32 how far from all training images; None without a bank.
        sets: (N, K) the classes that it may be; None where no sets were fitted.
    """

    called: npt.NDArray[np.int64]
    sure: Bools
    unknown: Bools
    scores: npt.NDArray[np.float32] | None
    sets: Bools | None

    @property
    def answered(self) -> Bools:
        """(N,) neither unknown nor unsure."""
        return self.sure & ~self.unknown


@dataclass(frozen=True)
class Decision:
    """How logits become an answer.

    Attributes:
        thresholds: (K,) the probability from which on an image has a class (task multi); None
            for ``USUAL`` everywhere.
        temperature: divides the logits (task single).
        sureness: what the largest probability must reach for an answer; None answers always.
        favoured: a class (its index), and the probability from which on it is the answer whatever
            the others have; below that the others alone compete.
        sets: of classes with a promised coverage.
        unknown: the score of images unlike those trained on.

    Raises:
        UsageError: a value is impossible.
    """

    thresholds: tuple[float, ...] | None = None
    temperature: float = 1.0
    sureness: float | None = None
    favoured: tuple[int, float] | None = None
    sets: Sets | None = None
    unknown: Unknown | None = None

    def __post_init__(self) -> None:
        for value in self.thresholds or ():
            _check_share("threshold", value)
        if not 0 < self.temperature < np.inf:
            raise UsageError(f"temperature {self.temperature!r} must be above 0")
        if self.sureness is not None:
            _check_share("sureness", self.sureness)
        if self.favoured is not None:
            _check_share("threshold", self.favoured[1])

    def temper(self, logits: Floats) -> npt.NDArray[np.float32]:
        """(N, K) logits divided by the temperature."""
        return np.asarray(logits / np.float32(self.temperature), dtype=np.float32)

    def marks(self, probabilities: Floats) -> Bools:
        """(N, K) which classes each image has, from the probability (N, K) of each."""
        thresholds = USUAL if self.thresholds is None else np.array(self.thresholds)
        return np.asarray(probabilities.astype(np.float64) >= thresholds)

    def apply(
        self,
        logits: Floats,
        features: Floats | None,
        *,
        scores: npt.NDArray[np.float32] | None = None,
    ) -> tuple[npt.NDArray[np.float32], Answers]:
        """Logits (N, K) and features (N, D) of task single -> probabilities (N, K), answers."""
        probabilities = np.exp(log_softmax(self.temper(logits))).astype(np.float32)
        return probabilities, self.settle(probabilities, features, scores=scores)

    def settle(
        self,
        probabilities: Floats,
        features: Floats | None,
        *,
        scores: npt.NDArray[np.float32] | None = None,
    ) -> Answers:
        """The same from calibrated probabilities.

        Args:
            probabilities: (N, K).
            features: (N, D) that the unknown scores are computed from.
            scores: (N,) unknown scores that are known already. Without both, nothing is unknown.
        """
        n = len(probabilities)
        called = probabilities.argmax(axis=1).astype(np.int64)
        if self.favoured is not None:
            one, least = self.favoured
            others = probabilities.astype(np.float64)
            others[:, one] = -1
            called = np.where(probabilities[:, one] >= least, one, others.argmax(axis=1))
        sure = np.ones(n, dtype=np.bool_)
        if self.sureness is not None:
            sure = np.asarray(probabilities.max(axis=1) >= np.float32(self.sureness))
        if self.unknown is None:
            scores = None
        elif scores is None and features is not None:
            scores = self.unknown.score(features)
        unknown = np.zeros(n, dtype=np.bool_)
        if self.unknown is not None and scores is not None:
            unknown = np.asarray(scores > np.float32(self.unknown.threshold))
        sets = None
        if self.sets is not None:
            sets = np.asarray(probabilities >= np.array(self.sets.thresholds, np.float32))
        return Answers(called, sure, unknown, scores, sets)

    def without_deciding(self) -> Decision:
        """The probabilities (task multi: the labels) alone: always an answer."""
        return replace(self, sureness=None, favoured=None, sets=None, unknown=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the bank apart; what is not there is left out."""
        found: dict[str, Any] = {}
        if self.thresholds is not None:
            found["thresholds"] = list(self.thresholds)
        if self.temperature != 1:
            found["temperature"] = self.temperature
        if self.sureness is not None:
            found["sureness"] = self.sureness
        if self.favoured is not None:
            found["favoured"] = {"index": self.favoured[0], "threshold": self.favoured[1]}
        if self.sets is not None:
            found["sets"] = vars(self.sets) | {"thresholds": list(self.sets.thresholds)}
        if self.unknown is not None:
            kept = ("threshold", "false_reject", "neighbours")
            found["unknown"] = {name: getattr(self.unknown, name) for name in kept}
        return found

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        classes: int,
        *,
        bank: npt.NDArray[np.float16] | None = None,
        exported: bool = False,
    ) -> Decision:
        """The reverse of :meth:`to_dict`, for a model of so many classes.

        Args:
            values: what ``to_dict`` gave.
            classes: K.
            bank: of the unknown score.
            exported: the bank stands in an exported file's graph, which gives the scores.

        Raises:
            UsageError: the values do not fit, or are of a later plusx.
        """
        if later := sorted(set(values) - {one.name for one in fields(cls)}):
            raise UsageError(f"{', '.join(later)}: not known to this plusx; update it")
        favoured, sets, unknown = (values.get(key) for key in ("favoured", "sets", "unknown"))
        try:
            score = None
            if unknown is not None:
                if bank is None and not exported:
                    raise UsageError("the features of the unknown score are missing")
                score = Unknown(**unknown, bank=bank)
            if favoured is not None and not 0 <= favoured["index"] < classes:
                raise UsageError(f"favoured class {favoured['index']!r} is none of {classes}")
            sureness = values.get("sureness")
            return cls(
                thresholds=_thresholds(values, classes),
                temperature=float(values.get("temperature", 1.0)),
                sureness=None if sureness is None else float(sureness),
                favoured=favoured and (int(favoured["index"]), float(favoured["threshold"])),
                sets=sets and Sets(**(sets | {"thresholds": _thresholds(sets, classes)})),
                unknown=score,
            )
        except (TypeError, ValueError, KeyError) as error:
            raise UsageError(f"a value is damaged ({error})") from error


def log_probabilities(logits: Floats, task: Literal["single", "multi"]) -> npt.NDArray[np.float64]:
    """(N, K) -> (N, K) float64 logarithm of the softmax over classes (single) or of each class's
    sigmoid (multi), without overflow or underflow."""
    if task == "multi":
        return -np.logaddexp(0.0, -logits.astype(np.float64))
    return log_softmax(logits)


def log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """(N, K) -> (N, K) float64 logarithm of the softmax over classes, without overflow."""
    wide = logits.astype(np.float64)
    shifted: npt.NDArray[np.float64] = wide - wide.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _thresholds(values: Mapping[str, Any], classes: int) -> tuple[float, ...] | None:
    found = values.get("thresholds")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(v, int | float) for v in found):
        raise UsageError(f"thresholds {found!r} must be a list of numbers")
    if len(found) != classes:
        raise UsageError(f"there are {len(found)} thresholds for {classes} classes")
    return tuple(float(value) for value in found)


def _check_share(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{what} {value!r} must lie between 0 and 1")
