"""What a report says about each class: figures, confusion matrix, most frequent confusions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plusx.evaluate import ClassFigures, Evaluation, Figure, class_f1, confusion_matrix
from plusx.jobs import wording

Json = dict[str, Any]

CLASSES, PAIRS = 1000, 15
"""Most shown of either; ``metrics.json`` has all."""

_MATRIX_UP_TO = 30  # classes; beyond, the list of confused pairs stands alone
_THREE = ("precision", "recall", "f1")


def gather_classes(evaluation: Json, thresholds: Mapping[str, float]) -> Json:
    """Figures per class, the confusion matrix and its largest cells of the main evaluation.

    Args:
        evaluation: as ``metrics.json`` has it.
        thresholds: class -> the probability from which on an image has it (task multi).
    """
    whole = _evaluation(evaluation)
    few = len(whole.classes) <= _MATRIX_UP_TO
    drawn = len(whole.classes) > 2 and any(one.f1 is not None for one in whole.per_class)
    matrix = whole.confusion is not None and few
    return {
        "images": wording.which_images(evaluation),
        "rows": bounded(evaluation["per_class"], CLASSES),
        "undefined": evaluation.get("undefined") or {},
        "matrix": inline_svg("matrix", confusion_matrix(whole)) if matrix else None,
        "f1": inline_svg("f1", class_f1(whole)) if drawn else None,
        "confusions": None if whole.confusion is None else _confusions(whole),
        "weakest": _weakest(whole),
        "auroc": any(one.get("auroc") for one in evaluation["per_class"]),
        "at": _rates(evaluation["per_class"][:CLASSES]),
        "count": len(whole.classes),
        "multi": whole.task == "multi",
        "thresholds": thresholds,
    }


def _rates(per_class: Sequence[Json]) -> list[str]:
    """Sensitivity at stated specificity and the reverse, in words, where they were measured."""
    said = []
    for one in per_class:
        for trade in one.get("at") or []:
            held = f"{100 * trade['held_at']:g}%"
            if trade["promised"] == "specificity":
                found = trade.get("sensitivity") or {}
                text = f"of {one['class']} are found where {held} of the other images are passed"
            else:
                found = trade.get("specificity") or {}
                text = f"of the other images are passed where {held} of {one['class']} are found"
            if found:
                value = wording.number("top1", found["value"])
                limits = wording.interval("top1", found)
                said.append(f"{value} {text} (95% interval {limits}).")
    return said


def _weakest(whole: Evaluation) -> Json | None:
    """The class of least F1; None where there are not two to compare."""
    found = [(one.f1, one) for one in whole.per_class if one.f1 is not None]
    if len(found) < 2:
        return None
    f1, one = min(found, key=lambda pair: pair[0].value)
    return {
        "name": wording.one_line(one.name),
        "f1": wording.number("macro_f1", f1.value),
        "interval": wording.interval("macro_f1", f1.to_json()),
        "support": one.support,
    }


def _evaluation(found: Json) -> Evaluation:
    """The inverse of ``plusx.evaluate.to_json``."""

    def figure(value: Mapping[str, float] | None) -> Figure | None:
        return None if value is None else Figure(value["value"], value["low"], value["high"])

    matrix = found.get("confusion")
    return Evaluation(
        n=found["n"],
        task=found["task"],
        classes=tuple(found["classes"]),
        figures={name: figure(value) for name, value in found["figures"].items()},
        per_class=tuple(
            ClassFigures(
                one["class"],
                one["support"],
                figure(one["precision"]),
                figure(one["recall"]),
                figure(one["f1"]),
            )
            for one in found["per_class"]
        ),
        confusion=None if matrix is None else np.array(matrix, np.int64),
        absent=tuple(found["absent"]),
        undefined=found["undefined"],
    )


def _confusions(evaluation: Evaluation) -> Json:
    """The most frequent pairs of classes, of equals in the order of the classes; and the totals."""
    assert evaluation.confusion is not None
    wrong = evaluation.confusion.copy()
    np.fill_diagonal(wrong, 0)
    support = evaluation.confusion.sum(axis=1)
    kinds = int(np.count_nonzero(wrong))
    first = np.argsort(-wrong, axis=None, kind="stable")[: min(kinds, PAIRS)]
    names = evaluation.classes
    pairs = [
        {"true": names[i], "called": names[j], "count": int(wrong[i, j]), "of": int(support[i])}
        for i, j in zip(*np.unravel_index(first, wrong.shape), strict=True)
    ]
    return {"pairs": pairs, "kinds": kinds, "errors": int(wrong.sum())}


def bounded(items: Sequence[Any], most: int) -> Json:
    """The first ``most`` items, how many there are, and how many are not shown."""
    return {"all": len(items), "shown": items[:most], "more": max(0, len(items) - most)}


def inline_svg(prefix: str, text: str) -> str:
    """The picture with its ids made its own: several stand in one page."""
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)
