"""The photographs a report shows: the most confident mistakes and the least certain hits."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data import read_image
from plusx.data.classes import SEPARATOR
from plusx.errors import DataError, UnreadableImage
from plusx.evaluate import Predictions
from plusx.jobs.wording import one_line, which_images

MISTAKES, HITS = 12, 6
THUMBNAIL = 128
"""Short side of a thumbnail in pixels; the long side is cut to at most twice that."""


def gather_gallery(
    run: Path,
    evaluations: Sequence[Mapping[str, Any]],
    absent: dict[str, str],
    *,
    thumbnails: bool = True,
) -> dict[str, Any] | None:
    """Both lists with captions and pictures, from the first evaluation that keeps predictions.

    Args:
        run: the folder that ``predictions`` entries are relative to.
        evaluations: those of ``metrics.json``.
        absent: gets the reason under ``gallery`` where there is nothing to show.
        thumbnails: whether images may be shown at all.
    """
    if not thumbnails:
        absent["gallery"] = "Left out, as asked for by --no-thumbnails."
        return None
    kept = next((one for one in evaluations if one.get("predictions")), None)
    if kept is None:
        absent["gallery"] = "No evaluation of this run kept its predictions."
        return None
    path = run / kept["predictions"]
    if not path.resolve().is_relative_to(run.resolve()):
        absent["gallery"] = f"{one_line(kept['predictions'])} is not inside the run folder."
        return None
    try:
        predictions = Predictions.load(path)
    except DataError as error:
        absent["gallery"] = one_line(error)
        return None
    multi = predictions.task == "multi"
    if not len(predictions) or not (multi or (predictions.targets >= 0).any()):
        absent["gallery"] = "The gallery is for labelled images."
        return None
    root = common_folder(predictions.paths)
    if multi:
        mistakes, hits, wrong, worst = _rank_multi(predictions)
    else:
        mistakes, hits, wrong = _rank(predictions)

    def entry(row: int) -> dict[str, Any]:
        if multi:
            return _entry_multi(predictions, row, root, int(worst[row]))
        return _entry(predictions, row, root)

    return {
        "multi": multi,
        "images": which_images({**kept, "n": len(predictions)}),
        "root": one_line(root),
        "wrong": wrong,
        "mistakes": [entry(row) for row in mistakes],
        "hits": [entry(row) for row in hits],
    }


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


def _entry_multi(predictions: Predictions, row: int, root: str, worst: int) -> dict[str, Any]:
    path = predictions.paths[row]
    picture, why = thumbnail(path)

    def names(marks: npt.NDArray[np.bool_]) -> str:
        found = [predictions.classes[i] for i in np.flatnonzero(marks)]
        return one_line(f"{SEPARATOR} ".join(found)) or "none"

    has = bool(predictions.targets[row, worst])
    return {
        "path": one_line(os.path.relpath(path, root) if root else path),
        "true": names(predictions.targets[row]),
        "called": names(predictions.marks[row]),
        "worst": one_line(predictions.classes[worst]),
        "share": float(predictions.take([row]).probabilities[0, worst]),
        "has": has,
        "wrong": bool(predictions.marks[row, worst]) != has,
        "picture": picture,
        "why": why,
    }


def _entry(predictions: Predictions, row: int, root: str) -> dict[str, Any]:
    path = predictions.paths[row]
    probabilities = predictions.take([row]).probabilities[0]
    true, called = int(predictions.targets[row]), int(predictions.predicted[row])
    order = np.argsort(-probabilities, kind="stable")
    second = int(order[1]) if len(order) > 1 else called
    picture, why = thumbnail(path)
    return {
        "path": one_line(os.path.relpath(path, root) if root else path),
        "true": one_line(predictions.classes[true]),
        "true_share": float(probabilities[true]),
        "called": one_line(predictions.classes[called]),
        "called_share": float(probabilities[called]),
        "second": one_line(predictions.classes[second]),
        "second_share": float(probabilities[second]),
        "picture": picture,
        "why": why,
    }


def thumbnail(path: str) -> tuple[str, str]:
    """A small upright JPEG as a data URI; or nothing, and why."""
    from PIL import Image

    try:
        image = Image.fromarray(read_image(path))
    except UnreadableImage as error:
        return "", one_line(error.reason)
    short = min(image.size)
    width, height = (min(side, 2 * short) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    scale = min(1.0, THUMBNAIL / short)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    box = (left, top, left + width, top + height)
    small = image.resize(size, Image.Resampling.LANCZOS, box=box)
    file = io.BytesIO()
    small.save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}", ""


def common_folder(paths: Sequence[str]) -> str:
    """The deepest folder that holds all files; empty where there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # absolute and relative paths, or two drives
        return ""
