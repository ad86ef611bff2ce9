"""Figures from predictions: what a classifier is worth, and how sure that is. Never needs torch."""

from __future__ import annotations

from plusx.evaluate.intervals import Figure
from plusx.evaluate.metrics import ClassFigures, Evaluation, evaluate
from plusx.evaluate.plots import class_f1, confusion_matrix, learning_curves
from plusx.evaluate.predictions import Predictions, log_softmax
from plusx.evaluate.report_figures import SCHEMA_VERSION, to_json
from plusx.evaluate.selection import CrossFit, cross_fit

__all__ = [
    "SCHEMA_VERSION",
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
    "log_softmax",
    "to_json",
]
