"""Figures from predictions: what a classifier is worth, and how sure that is. Never needs torch."""

from __future__ import annotations

from plusx.evaluate.intervals import Figure
from plusx.evaluate.metrics import ClassFigures, Evaluation, evaluate
from plusx.evaluate.plots import class_f1, confusion_matrix, learning_curves
from plusx.evaluate.predictions import Predictions
from plusx.evaluate.report_figures import to_json
from plusx.evaluate.selection import CrossFit, cross_fit

__all__ = [
    "ClassFigures",
    "CrossFit",
    "Evaluation",
    "Figure",
    "Predictions",
    "class_f1",
    "confusion_matrix",
    "cross_fit",
    "evaluate",
    "learning_curves",
    "to_json",
]
