"""The photographs a report shows: the most confident mistakes and the least certain hits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.classes import SEPARATOR
from plusx.errors import DataError
from plusx.evaluate import Predictions
from plusx.jobs.report_pictures import Pictures, about_neighbours, thumbnail
from plusx.jobs.wording import one_line, which_images

__all__ = ["common_folder", "gather_gallery", "kept_predictions", "thumbnail"]

MISTAKES, HITS = 12, 6


def gather_gallery(
    run: Path,
    evaluations: Sequence[Mapping[str, Any]],
    absent: dict[str, str],
    *,
    thumbnails: bool = True,
) -> dict[str, Any] | None:
    """Both lists with captions, pictures, heat maps and the nearest training images, from the
    first evaluation that keeps predictions.

    Args:
        run: the folder that ``predictions`` entries are relative to.
        evaluations: those of ``metrics.json``.
        absent: gets the reason under ``gallery`` where there is nothing to show, and those under
            ``heat`` and ``nearest``.
        thumbnails: whether images may be shown at all.
    """
    found = kept_predictions(run, evaluations)
    if isinstance(found, str):
        absent["gallery"] = found
        return None
    predictions, kept = found
    multi = predictions.task == "multi"
    if not len(predictions) or not (multi or (predictions.targets >= 0).any()):
        absent["gallery"] = "The gallery is for labelled images."
        return None
    root = common_folder(predictions.paths)
    if multi:
        mistakes, hits, wrong, worst = _rank_multi(predictions)
    else:
        mistakes, hits, wrong = _rank(predictions)
    pictures = Pictures(run, thumbnails=thumbnails)

    def entry(row: int) -> dict[str, Any]:
        path = predictions.paths[row]
        label = int(worst[row] if multi else predictions.predicted[row])
        shown = os.path.relpath(path, root) if root else path
        said = _said_multi(predictions, row, label) if multi else _said(predictions, row)
        looked = pictures.look(path, predictions.classes[label])
        return {"path": one_line(shown), "heat_of": one_line(predictions.classes[label]),
                **said, **looked}  # fmt: skip

    shown = {"mistakes": [entry(row) for row in mistakes], "hits": [entry(row) for row in hits]}
    absent["heat"], absent["nearest"] = pictures.why, pictures.why_alone
    return {
        "multi": multi,
        "images": which_images({**kept, "n": len(predictions)}),
        "root": one_line(root),
        "wrong": wrong,
        "thumbnails": thumbnails,
        "kept": about_neighbours(run),
        **shown,
    }


def kept_predictions(
    run: Path, evaluations: Sequence[Mapping[str, Any]]
) -> tuple[Predictions, Mapping[str, Any]] | str:
    """The first predictions that the evaluations kept, and which evaluation; or why none."""
    kept = next((one for one in evaluations if one.get("predictions")), None)
    if kept is None:
        return "No evaluation of this run kept its predictions."
    path = run / kept["predictions"]
    if not path.resolve().is_relative_to(run.resolve()):
        return f"{one_line(kept['predictions'])} is not inside the run folder."
    try:
        return Predictions.load(path), kept
    except DataError as error:
        return one_line(error)


def _rank(predictions: Predictions) -> tuple[list[int], list[int], int]:
    """Rows of the surest mistakes, rows of the least sure hits, and how many mistakes there are."""
    rows = np.flatnonzero(predictions.targets >= 0)
    called = predictions.predicted[rows]
    sure = predictions.log_probabilities[rows, called]
    right = called == predictions.targets[rows]

    def first(chosen: npt.NDArray[np.bool_], key: npt.NDArray[np.float64], most: int) -> list[int]:
        index = np.flatnonzero(chosen)
        return [int(rows[i]) for i in index[np.argsort(key[index], kind="stable")][:most]]

    return first(~right, -sure, MISTAKES), first(right, sure, HITS), int((~right).sum())


def _rank_multi(
    predictions: Predictions,
) -> tuple[list[int], list[int], int, npt.NDArray[np.intp]]:
    """As ``_rank``, and the class of each image (n,) that speaks for it: the surest of its wrong
    ones, or where all are right the one least sure."""
    wrong = predictions.marks != predictions.targets
    sure = np.abs(predictions.logits)
    worst = np.where(wrong.any(axis=1), np.where(wrong, sure, -1.0).argmax(1), sure.argmin(1))
    of_worst = sure[np.arange(len(worst)), worst]
    mistaken = wrong.any(axis=1)

    def first(chosen: npt.NDArray[np.bool_], sign: int, most: int) -> list[int]:
        index = np.flatnonzero(chosen)
        return [int(i) for i in index[np.argsort(sign * of_worst[index], kind="stable")][:most]]

    return first(mistaken, -1, MISTAKES), first(~mistaken, 1, HITS), int(mistaken.sum()), worst


def _said_multi(predictions: Predictions, row: int, worst: int) -> dict[str, Any]:
    def names(marks: npt.NDArray[np.bool_]) -> str:
        found = [predictions.classes[i] for i in np.flatnonzero(marks)]
        return one_line(f"{SEPARATOR} ".join(found)) or "none"

    has = bool(predictions.targets[row, worst])
    return {
        "true": names(predictions.targets[row]),
        "called": names(predictions.marks[row]),
        "worst": one_line(predictions.classes[worst]),
        "share": float(predictions.take([row]).probabilities[0, worst]),
        "has": has,
        "wrong": bool(predictions.marks[row, worst]) != has,
    }


def _said(predictions: Predictions, row: int) -> dict[str, Any]:
    probabilities = predictions.take([row]).probabilities[0]
    true, called = int(predictions.targets[row]), int(predictions.predicted[row])
    order = np.argsort(-probabilities, kind="stable")
    second = int(order[1]) if len(order) > 1 else called
    return {
        "true": one_line(predictions.classes[true]),
        "true_share": float(probabilities[true]),
        "called": one_line(predictions.classes[called]),
        "called_share": float(probabilities[called]),
        "second": one_line(predictions.classes[second]),
        "second_share": float(probabilities[second]),
    }


def common_folder(paths: Sequence[str]) -> str:
    """The deepest folder that holds all files; empty where there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # absolute and relative paths, or two drives
        return ""
