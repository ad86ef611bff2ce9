"""Figures from predictions: what a classifier is worth, and how sure that is. Never needs torch."""

from __future__ import annotations

from plusx.evaluate.intervals import Figure
from plusx.evaluate.metrics import ClassFigures, Evaluation, evaluate
from plusx.evaluate.one_against_rest import Held
from plusx.evaluate.plots import SCORES, class_f1, confusion_matrix, learning_curves
from plusx.evaluate.predictions import Predictions
from plusx.evaluate.report_figures import SCHEMA_VERSION, to_json

__all__ = [
    "SCHEMA_VERSION",
    "SCORES",
    "ClassFigures",
    "Evaluation",
    "Figure",
    "Held",
    "Predictions",
    "class_f1",
    "confusion_matrix",
    "evaluate",
    "learning_curves",
    "to_json",
]
