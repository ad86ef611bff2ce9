"""What a network said about a set of images: the seam between running it and judging it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from plusx.atomic import replacing
from plusx.decide import log_probabilities
from plusx.errors import DataError, UsageError

Task = Literal["single", "multi"]
Array = npt.NDArray[Any]

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits, targets and names of N images over K classes.

    Attributes:
        logits: (N, K) float32, before softmax (single; a temperature has divided them) or sigmoid
            (multi); all finite.
        targets: (N,) int64 in 0..K-1, -1 where unlabelled (single); (N, K) bool (multi).
        paths: N file names, in the order of the rows.
        classes: K distinct class names, in the order of the columns.
        task: ``single`` (one class per image) or ``multi`` (any number of classes per image).
        groups: N group names (patient, video, place), or None where images are independent.
        features: (N, D) floating point, the pooled vectors, or None.
        called: (N, K) bool, which classes each image was said to have (multi); None where the
            line is drawn at probability 0.5, and for task single.

    Raises:
        UsageError: a field has the wrong type, dtype or shape, or the fields disagree.
        DataError: a logit is not finite, or a target is outside the classes.
    """

    logits: npt.NDArray[np.float32]
    targets: Array
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    task: Task = "single"
    groups: tuple[str, ...] | None = None
    features: Array | None = None
    called: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        _check_logits(self)
        _check_names(self)
        _check_targets(self)
        _check_features(self)
        _check_called(self)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(N, K) float32: softmax over classes (single), or one sigmoid per class (multi)."""
        return np.exp(self.log_probabilities).astype(np.float32)

    @property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """(N, K) float64 logarithm of ``probabilities``, without overflow or underflow."""
        return log_probabilities(self.logits, self.task)

    @property
    def marks(self) -> npt.NDArray[np.bool_]:
        """(N, K) which classes each image is said to have (task multi)."""
        return self.logits > 0 if self.called is None else self.called

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """(N,) int64 class of the largest logit; the first of equals."""
        return np.asarray(self.logits.argmax(axis=1), dtype=np.int64)

    def take(self, index: Array | Sequence[int]) -> Predictions:
        """The rows that ``index`` names, in its order; also takes a boolean mask of length N.

        Raises:
            UsageError: ``index`` is not one-dimensional, not whole numbers, or out of range.
        """
        rows = _as_rows(index, len(self))
        return Predictions(
            logits=self.logits[rows],
            targets=self.targets[rows],
            paths=tuple(self.paths[i] for i in rows),
            classes=self.classes,
            task=self.task,
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
            features=None if self.features is None else self.features[rows],
            called=None if self.called is None else self.called[rows],
        )

    @staticmethod
    def concat(parts: Sequence[Predictions]) -> Predictions:
        """All rows of ``parts``, in order. Groups, features and ``called`` are kept where every
        part has them and refused where only some do.

        Raises:
            UsageError: no parts, or they differ in classes, task, or in having one of those.
        """
        if not parts:
            raise UsageError("parts is empty: give at least one Predictions to put together")
        first = parts[0]
        for number, part in enumerate(parts):
            for field in ("classes", "task"):
                if getattr(part, field) != getattr(first, field):
                    raise UsageError(
                        f"parts[{number}].{field} differs from parts[0].{field}: "
                        "put together only predictions of the same classes and task"
                    )
            for field in ("groups", "features", "called"):
                if (getattr(part, field) is None) != (getattr(first, field) is None):
                    raise UsageError(
                        f"parts[{number}] and parts[0] differ in having {field}: "
                        f"give {field} to all parts or to none"
                    )
        features = [part.features for part in parts if part.features is not None]
        groups = [part.groups for part in parts if part.groups is not None]
        called = [part.called for part in parts if part.called is not None]
        return Predictions(
            logits=np.concatenate([part.logits for part in parts]),
            targets=np.concatenate([part.targets for part in parts]),
            paths=tuple(path for part in parts for path in part.paths),
            classes=first.classes,
            task=first.task,
            groups=tuple(name for part in groups for name in part) if groups else None,
            features=np.concatenate(features) if features else None,
            called=np.concatenate(called) if called else None,
        )

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` file (no pickle inside), beside and renamed, so never half written.

        Raises:
            DataError: the file cannot be written.
        """
        target = Path(path)
        fields: dict[str, Array] = {"logits": self.logits, "targets": self.targets}
        if self.features is not None:
            fields["features"] = self.features
        if self.called is not None:
            fields["called"] = self.called
        # Names go in as UTF-8 JSON: fixed-width unicode arrays would pad every path to the longest
        # and drop trailing NULs.
        names = {"paths": self.paths, "classes": self.classes, "task": self.task,
                 "groups": self.groups}  # fmt: skip
        # surrogatepass: a path that is not UTF-8 on disk comes as lone surrogates and must survive.
        text = json.dumps(names, ensure_ascii=False).encode("utf-8", "surrogatepass")
        fields["names"] = np.frombuffer(text, dtype=np.uint8)
        try:
            with replacing(target) as beside, beside.open("wb") as file:
                np.savez(file, **fields)  # type: ignore[arg-type]
        except OSError as error:
            raise DataError(f"{target}: predictions cannot be written ({error})") from error

    @staticmethod
    def load(path: str | Path) -> Predictions:
        """Read what ``save`` wrote.

        Raises:
            DataError: the file is absent, damaged, or not such a file.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                names = json.loads(archive["names"].tobytes().decode("utf-8", "surrogatepass"))
                groups = names["groups"]
                return Predictions(
                    logits=archive["logits"],
                    targets=archive["targets"],
                    paths=tuple(names["paths"]),
                    classes=tuple(names["classes"]),
                    task=names["task"],
                    groups=None if groups is None else tuple(groups),
                    features=archive.get("features"),
                    called=archive.get("called"),
                )
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: not a predictions file that can be read ({error}); write it anew"
            ) from error


def _as_rows(index: Array | Sequence[int], size: int) -> npt.NDArray[np.int64]:
    """Row numbers 0..size-1 from whole numbers or a mask."""
    rows = np.asarray(index)
    if rows.ndim != 1:
        raise UsageError(f"index has {rows.ndim} dimensions: give one-dimensional row numbers")
    if rows.dtype == np.bool_:
        if len(rows) != size:
            raise UsageError(f"index is a mask of length {len(rows)}, but there are {size} rows")
        return np.flatnonzero(rows)
    if rows.size == 0:
        return np.zeros(0, dtype=np.int64)
    if not np.issubdtype(rows.dtype, np.integer):
        raise UsageError(f"index has dtype {rows.dtype}: give whole numbers or a boolean mask")
    if rows.min() < 0 or rows.max() >= size:
        raise UsageError(f"index runs from {rows.min()} to {rows.max()}, outside 0..{size - 1}")
    return rows.astype(np.int64)


def _check_logits(p: Predictions) -> None:
    if not isinstance(p.logits, np.ndarray) or p.logits.dtype != np.float32 or p.logits.ndim != 2:
        raise UsageError(f"logits must be an (N, K) float32 array, not {_describe(p.logits)}")
    finite = np.asarray(np.isfinite(p.logits).all(axis=1))
    if not finite.all() and len(p.paths) == len(p.logits):
        first = p.paths[int(np.argmin(finite))]
        raise DataError(
            f"{first}: its logits are not finite ({int((~finite).sum())} of {len(finite)} images "
            "are like this); the network diverged: train with a lower learning rate"
        )


def _check_names(p: Predictions) -> None:
    rows, columns = p.logits.shape
    for field, names, size in (("paths", p.paths, rows), ("classes", p.classes, columns),
                               ("groups", p.groups, rows)):  # fmt: skip
        if names is None and field == "groups":
            continue
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{field} must be a tuple of str, not {_describe(names)}")
        if len(names) != size:
            raise UsageError(f"{field} has {len(names)} names, but logits are {p.logits.shape}")
    if columns < 1:
        raise UsageError("classes is empty: predictions need at least one class")
    if len(set(p.classes)) != columns:
        twice = next(name for name in p.classes if p.classes.count(name) > 1)
        raise UsageError(f"classes names {twice!r} more than once: give each class one name")


def _check_targets(p: Predictions) -> None:
    if p.task not in ("single", "multi"):
        raise UsageError(f"task {p.task!r} is not one of single, multi")
    rows, columns = p.logits.shape
    shape, dtype = ((rows,), np.int64) if p.task == "single" else ((rows, columns), np.bool_)
    targets = p.targets
    if not isinstance(targets, np.ndarray) or targets.dtype != dtype or targets.shape != shape:
        raise UsageError(
            f"targets must be {shape} {np.dtype(dtype).name} for task {p.task!r}, "
            f"not {_describe(targets)}"
        )
    if p.task == "single" and rows:
        low, high = int(targets.min()), int(targets.max())
        if low < UNLABELLED or high >= columns:
            raise DataError(
                f"targets run from {low} to {high}, but there are {columns} classes: "
                f"use 0..{columns - 1}, or {UNLABELLED} for an unlabelled image"
            )


def _check_features(p: Predictions) -> None:
    features = p.features
    if features is None:
        return
    if (
        not isinstance(features, np.ndarray)
        or not np.issubdtype(features.dtype, np.floating)
        or features.ndim != 2
        or len(features) != len(p.logits)
    ):
        raise UsageError(
            f"features must be a ({len(p.logits)}, D) floating point array, "
            f"not {_describe(features)}"
        )


def _check_called(p: Predictions) -> None:
    if p.called is None:
        return
    fits = isinstance(p.called, np.ndarray) and p.called.dtype == np.bool_
    if p.task != "multi" or not fits or p.called.shape != p.logits.shape:
        raise UsageError(
            f"called must be {p.logits.shape} bool and of task 'multi', not {_describe(p.called)} "
            f"of task {p.task!r}"
        )


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.shape} {value.dtype}"
    return type(value).__name__
