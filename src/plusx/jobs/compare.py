"""``plusx compare``: two runs on the same images, with an answer that knows what noise is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.errors import UsageError
from plusx.evaluate import SCHEMA_VERSION, Predictions
from plusx.evaluate.paired import Paired, compare, mcnemar
from plusx.evaluate.slices import holm
from plusx.jobs.evaluate import evaluate
from plusx.jobs.talk import Talk

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs on the images that both could read.

    Attributes:
        names: of the runs, as given.
        split: which images.
        paired: the difference and what supports it.
        a, b: their predictions of the same images, columns in the order of A's classes.
    """

    names: tuple[str, str]
    split: str
    paired: Paired
    a: Predictions
    b: Predictions

    @property
    def finding(self) -> str:
        """One sentence."""
        paired, n = self.paired, self.paired.n
        gap = paired.difference
        limits = f"95% interval {100 * gap.low:+.1f} to {100 * gap.high:+.1f} points, {n} images"
        if not paired.settled:
            return f"No difference can be shown: {100 * gap.value:+.1f} points ({limits})."
        better, worse = self.names if gap.value > 0 else self.names[::-1]
        return f"{better} is better than {worse} by {abs(100 * gap.value):.1f} points ({limits})."

    def differing(self) -> list[dict[str, Any]]:
        """The images that just one of them got right, with both answers."""
        rows = np.concatenate([self.paired.rows_only_a, self.paired.rows_only_b])
        shares = self.a.take(rows).probabilities, self.b.take(rows).probabilities
        found = []
        for i, row in enumerate(rows.tolist()):
            called = int(self.a.predicted[row]), int(self.b.predicted[row])
            found.append(
                {
                    "path": self.a.paths[row],
                    "true": self.a.classes[int(self.a.targets[row])],
                    "a": self.a.classes[called[0]],
                    "a_probability": round(float(shares[0][i, called[0]]), 6),
                    "b": self.b.classes[called[1]],
                    "b_probability": round(float(shares[1][i, called[1]]), 6),
                }
            )
        return found

    def per_class(self) -> dict[str, dict[str, Any] | None]:
        """Class -> images, top1 of both, the difference with its interval, and McNemar's p,
        corrected for the number of classes (Holm); None without images of it."""
        targets = self.a.targets
        only = [np.bincount(targets[rows], minlength=len(self.a.classes))
                for rows in (self.paired.rows_only_a, self.paired.rows_only_b)]  # fmt: skip
        right = [p.predicted == p.targets for p in (self.a, self.b)]
        found: dict[str, dict[str, Any] | None] = {}
        raw = {}
        for number, (name, gap) in enumerate(self.paired.per_class.items()):
            if gap is None:
                found[name] = None
                continue
            own = targets == number
            found[name] = gap.to_json() | {
                "n": int(own.sum()),
                "top1": [float(one[own].mean()) for one in right],
            }
            raw[name] = mcnemar(int(only[0][number]), int(only[1][number]))
        for name, p in zip(raw, holm(np.array(list(raw.values()))).tolist(), strict=True):
            found[name] = (found[name] or {}) | {"p": p}
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, plain and without NaN."""
        paired = self.paired
        right = [float((p.predicted == p.targets).mean()) for p in (self.a, self.b)]
        return {
            "schema_version": SCHEMA_VERSION,
            "plusx_version": __version__,
            "runs": list(self.names),
            "split": self.split,
            "role": "report",
            "n": paired.n,
            "top1": right,
            "difference": paired.difference.to_json(),
            "settled": paired.settled,
            "only_a": paired.only_a,
            "only_b": paired.only_b,
            "mcnemar_p": paired.p,
            "per_class": self.per_class(),
            "finding": self.finding,
            "differing": self.differing(),
        }


def compare_runs(
    run_a: PathLike,
    run_b: PathLike,
    data: PathLike,
    *,
    split: str | None = None,
    device: str = "auto",
    talk: Talk | None = None,
) -> Comparison:
    """Score two runs on the same labelled images, and compare image by image.

    Args:
        run_a: a run folder or a model folder.
        run_b: the other; it must know the same classes, in any order.
        data: as for ``plusx evaluate``. Images that trained either run flatter it.
        split: as for ``plusx evaluate``.
        device: where to run.
        talk: where progress is said.

    Raises:
        UsageError: the runs know different classes, or are of several labels an image.
        DataError: the data does not fit.
    """
    talk = talk or Talk()
    a, b = (evaluate(run, data, split=split, device=device, talk=talk) for run in (run_a, run_b))
    names = _names(run_a, run_b)
    for item in {*a.bad, *b.bad}:
        talk.note(f"left out: {item.path}: {item.reason}")
    one, other = a.predictions, b.predictions
    return pair(one, other, names, a.split)


def pair(one: Predictions, other: Predictions, names: tuple[str, str], split: str) -> Comparison:
    """Compare two runs by the images that both have predictions of.

    Args:
        one: of the first run.
        other: of the second; it must know the same classes, in any order.
        names: of both.
        split: which images.

    Raises:
        UsageError: the runs know different classes, are of several labels an image, have no image
            in common, or do not agree on a label.
    """
    if set(one.classes) != set(other.classes):
        apart = sorted(set(one.classes) ^ set(other.classes))
        shown = ", ".join(apart[:5]) + (" ..." if len(apart) > 5 else "")
        raise UsageError(
            f"{names[0]} and {names[1]} know different classes ({shown}), so they cannot be "
            "compared image by image"
        )
    if one.task != "single" or other.task != "single":
        raise UsageError(f"{names[0]}: gives several labels an image; compare needs one")
    one, other = _common(one, _in_order(other, one.classes))
    if not len(one):
        raise UsageError(f"{names[0]} and {names[1]} have no image in common")
    return Comparison(names, split, compare(one, other), one, other)


def _in_order(predictions: Predictions, classes: tuple[str, ...]) -> Predictions:
    """The same with its columns in the order of ``classes``."""
    columns = [predictions.classes.index(name) for name in classes]
    place = np.argsort(columns)
    targets = predictions.targets
    return Predictions(
        predictions.logits[:, columns],
        np.where(targets < 0, targets, place[targets]),
        predictions.paths,
        classes,
        groups=predictions.groups,
    )


def _common(one: Predictions, other: Predictions) -> tuple[Predictions, Predictions]:
    """The images that both could read, in the same order."""
    place = {path: row for row, path in enumerate(other.paths)}
    rows = [row for row, path in enumerate(one.paths) if path in place]
    return one.take(rows), other.take([place[one.paths[row]] for row in rows])


def _names(run_a: PathLike, run_b: PathLike) -> tuple[str, str]:
    a, b = (Path(run).resolve().name for run in (run_a, run_b))
    return (a, b) if a != b else (os.fspath(run_a), os.fspath(run_b))
