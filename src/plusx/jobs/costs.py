"""``plusx evaluate --costs``: what deciding costs by a user's own matrix."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx.data.classes import quoted
from plusx.errors import DataError
from plusx.evaluate import Figure, Predictions
from plusx.evaluate.discrimination import expected_cost
from plusx.evaluate.intervals import Floats, bootstrap_mean, group_numbers

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Costs:
    """What an image costs, in the user's units.

    Attributes:
        cheapest: where the class with the least expected cost is decided for.
        most_probable: where the most probable class is.
        saved: the second less the first, image by image.
        changed: images whose decision the costs change.
        decided: class -> how often it is decided for by cost.
    """

    cheapest: Figure
    most_probable: Figure
    saved: Figure
    changed: int
    decided: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "cheapest": self.cheapest.to_json(),
            "most_probable": self.most_probable.to_json(),
            "saved": self.saved.to_json(),
            "changed": self.changed,
            "decided": self.decided,
        }


def read_costs(path: PathLike, classes: tuple[str, ...]) -> Floats:
    """A CSV file's costs: one row a true class, one column a class decided for, both named.

    Returns:
        (K, K) in the order of ``classes``.

    Raises:
        DataError: a class is missing, unknown or there twice, or a cell is no number.
    """
    where = os.fspath(path)
    try:
        with Path(where).open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, strict=True) if any(map(str.strip, row))]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"{where}: cannot be read as CSV in UTF-8 ({said})") from error
    if not rows:
        raise DataError(f"{where}: is empty; the first line must be true,{','.join(classes)}")
    columns = [name.strip() for name in rows[0][1:]]
    _check_names(columns, classes, f"{where}, line 1", "column")
    _check_names([row[0].strip() for row in rows[1:]], classes, where, "row")
    costs = np.empty((len(classes), len(classes)))
    for row in rows[1:]:
        true = row[0].strip()
        if len(row) != len(rows[0]):
            raise DataError(
                f"{where}: the row of {true!r} has {len(row)} cells where the header has "
                f"{len(rows[0])}"
            )
        for name, cell in zip(columns, row[1:], strict=True):
            costs[classes.index(true), classes.index(name)] = _number(cell, where, true, name)
    return costs


def _check_names(names: list[str], classes: tuple[str, ...], where: str, kind: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{where}: {twice[0]!r} has more than one {kind}; keep one")
    if unknown := sorted(set(names) - set(classes)):
        raise DataError(
            f"{where}: {kind}s of classes unknown to the model: {quoted(unknown)}; "
            f"the model knows {quoted(classes, most=30)}"
        )
    if missing := sorted(set(classes) - set(names)):
        raise DataError(f"{where}: no {kind} for {quoted(missing)}; give one for every class")


def _number(cell: str, where: str, true: str, decided: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(
            f"{where}: the cost of deciding {decided!r} where {true!r} is true, {cell!r}, "
            "is not a number"
        )
    return value


def weigh(predictions: Predictions, costs: Floats) -> Costs:
    """Decide by cost, and against it by probability; of task single."""
    cheapest, decided = expected_cost(predictions, costs)
    truth, called = predictions.targets, predictions.predicted
    plain = costs[truth, called]
    groups = group_numbers(predictions.groups)
    return Costs(
        cheapest=cheapest,
        most_probable=bootstrap_mean(plain, groups=groups, seed=0),
        saved=bootstrap_mean(plain - costs[truth, decided], groups=groups, seed=0),
        changed=int((decided != called).sum()),
        decided={
            name: int(count)
            for name, count in zip(
                predictions.classes,
                np.bincount(decided, minlength=len(predictions.classes)),
                strict=True,
            )
        },
    )
