"""Figures where an image may have any number of classes (task ``multi``)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError
from plusx.evaluate.intervals import (
    Figure,
    Floats,
    Ints,
    bootstrap_mean,
    design_effects,
    effective_sizes,
    group_numbers,
    proportion,
)
from plusx.evaluate.metrics import ClassFigures, Evaluation, from_jaccard, why_undefined
from plusx.evaluate.one_against_rest import Held, one_against_rest
from plusx.evaluate.predictions import Predictions

Marks = npt.NDArray[np.bool_]


def evaluate_multi(predictions: Predictions, *, seed: int, held: Held) -> Evaluation:
    """Average precision per class and its mean; precision, recall and F1 of the classes that each
    image was said to have (``Predictions.marks``).

    ``subset_accuracy`` is the share of images with every class right. ``nll`` is binary
    cross-entropy in nats, mean over images and classes. An average precision is held to vary as a
    proportion of the class's positives (Boyd, Eng & Page 2013, "Area under the Precision-Recall
    Curve: Point Estimates and Confidence Intervals", section 3.2), of its positive groups where
    there are groups.
    """
    truth: Marks = predictions.targets
    called: Marks = predictions.marks
    groups = group_numbers(predictions.groups)
    units = np.arange(len(truth), dtype=np.int64) if groups is None else groups
    present = truth.any(axis=0)
    per_class = tuple(
        _one_class(name, truth[:, i], called[:, i], predictions.logits[:, i], units)
        for i, name in enumerate(predictions.classes)
    )
    losses = np.logaddexp(0.0, np.where(truth, -1.0, 1.0) * predictions.logits).mean(axis=1)
    told = one_against_rest(
        predictions.logits.astype(np.float64), truth, groups, held.of(len(predictions.classes))
    )
    per_class = tuple(
        replace(one, auroc=roc, trades=trades)
        for one, roc, trades in zip(per_class, told.auroc, told.trades, strict=True)
    )
    undefined = why_undefined(per_class)
    figures: dict[str, Figure | None] = dict.fromkeys(
        ("mean_average_precision", "macro_precision", "macro_recall", "macro_f1")
    )
    if present.any():
        logits = predictions.logits
        figures["mean_average_precision"] = mean_average_precision(truth, logits, units)
        for name in ("precision", "recall", "f1"):
            figures[f"macro_{name}"] = _macro(truth[:, present], called[:, present], name, units)
    else:
        undefined |= dict.fromkeys((*figures, "macro_auroc"), "no image has any class")
    figures["macro_auroc"] = told.macro_auroc
    reasons = {name: why for name, why in told.undefined.items() if "auprc" not in name}
    undefined |= reasons if present.any() else {}
    figures["subset_accuracy"] = _share(
        (truth == called).all(axis=1), np.ones(len(truth), dtype=np.bool_), units
    )
    figures["nll"] = bootstrap_mean(losses.astype(np.float64), groups=groups, seed=seed)
    return Evaluation(
        n=len(predictions),
        task="multi",
        classes=predictions.classes,
        figures=figures,
        per_class=per_class,
        confusion=None,
        absent=tuple(np.array(predictions.classes, dtype=object)[~present]),
        undefined=undefined,
    )


def _one_class(
    name: str, truth: Marks, called: Marks, logits: npt.NDArray[np.float32], units: Ints
) -> ClassFigures:
    from sklearn.metrics import average_precision_score

    if not truth.any():
        return ClassFigures(name, 0, None, None, None)
    right = truth & called
    jaccard = _share(right, truth | called, units)
    average = float(average_precision_score(truth, logits))
    return ClassFigures(
        name=name,
        support=int(truth.sum()),
        precision=_share(right, called, units),
        recall=_share(right, truth, units),
        f1=None if jaccard is None else from_jaccard(jaccard),
        average_precision=proportion(average, len(np.unique(units[truth]))),
    )


def _share(success: Marks, among: Marks, units: Ints) -> Figure | None:
    if not among.any():
        return None
    subset = np.zeros(int(among.sum()), dtype=np.int64)
    size = effective_sizes(success[among], subset, 1, units[among])[0]
    return proportion(float(success[among].mean()), float(size))


def mean_average_precision(truth: Marks, logits: npt.NDArray[np.float32], units: Ints) -> Figure:
    """Mean over the classes that any image has, of average precision (N, K).

    Classes count as independent, but never for more than the sampled images (or groups).

    Args:
        truth: (N, K); some mark is true.
        logits: (N, K).
        units: (N,) number of the image, or of its group where there are groups.
    """
    values = average_precisions(truth, logits)
    there = ~np.isnan(values)
    spread = float((1.0 / truth.sum(axis=0)[there]).sum())
    size = min(int(there.sum()) ** 2 / spread, float(len(np.unique(units))))
    return proportion(float(values[there].mean()), size)


def map_of(predictions: Predictions) -> Figure:
    """The same of predictions of task multi.

    Raises:
        DataError: no image has any class.
    """
    groups = group_numbers(predictions.groups)
    units = np.arange(len(predictions), dtype=np.int64) if groups is None else groups
    if not predictions.targets.any():
        raise DataError("no image has any class: there is no mean average precision")
    return mean_average_precision(predictions.targets, predictions.logits, units)


def average_precisions(truth: Marks, logits: npt.NDArray[np.float32]) -> Floats:
    """(K,) area under each class's curve of precision against recall, as scikit-learn sums it; NaN
    for a class that no image has."""
    from sklearn.metrics import average_precision_score

    found = np.full(truth.shape[1], np.nan)
    for k in np.flatnonzero(truth.any(axis=0)):
        found[k] = average_precision_score(truth[:, k], logits[:, k])
    return found


def _macro(truth: Marks, called: Marks, name: str, units: Ints) -> Figure:
    """The mean over classes; the marks of one image (or group) over all classes vary together."""
    by_true, by_called = {"recall": (1, 0), "precision": (0, 1), "f1": (1, 1)}[name]
    both = by_true + by_called
    parts = by_true * truth.astype(np.float64) + by_called * called
    hits = both * (truth & called).astype(np.float64)
    size, total = parts.sum(axis=0), hits.sum(axis=0)
    value = float((total / np.maximum(size, 1)).mean())
    pooled = (total.sum() + 0.5) / (size.sum() + 1.0)
    ratio: Floats = (total + 2 * pooled) / (size + 2)
    # of F1 by the delta method: f (1 - f) (2 - f) / (tp + fn + tp + fp); of a proportion f (1 - f)
    scale = (2 - ratio) if both == 2 else 1.0
    variance = (ratio * (1 - ratio) * scale / np.maximum(size, 1)).sum() / len(size) ** 2
    centre = float(ratio.mean())
    effective = centre * (1 - centre) / variance
    moved = (hits - ratio * parts) / np.maximum(size, 1)
    rows, columns = np.nonzero(parts)
    one = np.zeros(len(rows), dtype=np.int64)
    if len(rows):
        effective = effective / design_effects(moved[rows, columns], one, 1, units[rows])[0]
    return proportion(value, float(effective))
