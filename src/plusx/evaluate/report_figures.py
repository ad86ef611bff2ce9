"""An evaluation as the JSON that ``metrics.json`` holds."""

from __future__ import annotations

from typing import Any

from plusx.errors import UsageError
from plusx.evaluate.discrimination import Trade
from plusx.evaluate.intervals import Figure
from plusx.evaluate.metrics import ClassFigures, Evaluation

SCHEMA_VERSION = 1
"""Of ``metrics.json`` and of every evaluation in it."""

ROLES = ("report", "selection", "calibration")


def to_json(evaluation: Evaluation, *, split: str, role: str) -> dict[str, Any]:
    """One evaluation, plain and without NaN: an undefined figure is None, its reason given once.

    Keys: split, role, task, n, figures, per_class, confusion (rows true; None for task multi),
    classes, absent, undefined (which figure -> why).

    Args:
        evaluation: what ``evaluate`` returned.
        split: the images it was computed on, such as ``val``, ``test`` or ``val, cross-fitted``.
        role: what the figures may be used for: ``report``, ``selection`` or ``calibration``.

    Raises:
        UsageError: ``role`` is unknown.
    """
    if role not in ROLES:
        raise UsageError(f"role {role!r} is not one of {', '.join(ROLES)}")
    confusion = evaluation.confusion
    return {
        "split": split,
        "role": role,
        "task": evaluation.task,
        "n": evaluation.n,
        "figures": {name: _figure(figure) for name, figure in evaluation.figures.items()},
        "per_class": [_one_class(one, evaluation.task) for one in evaluation.per_class],
        "confusion": None if confusion is None else confusion.tolist(),
        "classes": list(evaluation.classes),
        "absent": list(evaluation.absent),
        "undefined": dict(evaluation.undefined),
    }


def _figure(figure: Figure | None) -> dict[str, float] | None:
    return None if figure is None else figure.to_json()


def _trade(trade: Trade) -> dict[str, Any]:
    other = "sensitivity" if trade.promised == "specificity" else "specificity"
    return {
        "promised": trade.promised,
        "held_at": trade.held_at,
        "threshold": trade.threshold,
        other: trade.value.to_json(),
    }


def _one_class(one: ClassFigures, task: str) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "class": one.name,
        "precision": _figure(one.precision),
        "recall": _figure(one.recall),
        "f1": _figure(one.f1),
        "support": one.support,
        "auroc": _figure(one.auroc),
        "auprc": _figure(one.average_precision),
        "at": [_trade(trade) for trade in one.trades],
    }
    if task == "multi":  # the same figure as auprc, under the name that its mean has
        figures["average_precision"] = _figure(one.average_precision)
    return figures
