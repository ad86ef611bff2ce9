"""``plusx evaluate --slice-by``: what images are sliced by, and which slices do worse."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from plusx.data import Preprocessing, gather_facts
from plusx.data.manifest import read_columns
from plusx.evaluate import Predictions
from plusx.evaluate.slices import FEWEST, MOST_VALUES, Slice, slices
from plusx.jobs.talk import Talk

PathLike = str | os.PathLike[str]
Floats = npt.NDArray[np.floating]

SEEN = ("size", "brightness", "sharpness")
"""What is measured of the images themselves: pixels, mean grey level 0..255, and the standard
deviation of the Laplacian at 256 pixels."""


def named(names: Sequence[str]) -> tuple[str, ...]:
    """Those of ``names`` that a manifest must have as columns."""
    return tuple(name for name in names if name not in SEEN)


def sliced(
    predictions: Predictions,
    data: PathLike,
    names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    processes: int,
    talk: Talk,
) -> list[Slice]:
    """Every slice with enough images, worst first.

    Args:
        predictions: of the images.
        data: where they came from; a CSV or Parquet file where ``names`` has its columns.
        names: columns, or some of ``SEEN``.
        preprocessing: says how images are read.
        processes: how many measure images at once.
        talk: is told of columns that make no slices.

    Raises:
        DataError: the data lacks a column.
    """
    columns: dict[str, list[str] | Floats] = {}
    if own := named(names):
        for name, values in read_columns(data, own).items():
            columns[name] = _numbers_or_text([values[path] for path in predictions.paths])
    if seen := [name for name in names if name in SEEN]:
        paths = predictions.paths
        with talk.phase("measuring", len(paths)) as tick:
            facts = gather_facts(
                paths,
                processes=processes,
                channels=preprocessing.channels,
                reading=preprocessing.reading,
                tick=lambda n: tick(n, ""),
            ).rows
        measured = {
            "size": facts["width"].astype(np.float64) * facts["height"],
            "brightness": facts["mean"].astype(np.float64),
            "sharpness": facts["sharpness"].astype(np.float64),
        }
        for name in seen:  # an image that has changed meanwhile is in no slice
            columns[name] = np.where(facts["readable"], measured[name], np.nan)
    found = slices(predictions, columns)
    for name in columns:
        if not any(one.column == name for one in found):
            talk.note(f"--slice-by {name}: {_why_none(columns[name])}")
    return found


def _numbers_or_text(values: list[str]) -> list[str] | Floats:
    """Numbers where there are too many different ones for a slice each; no value is NaN."""
    if len(set(values) - {""}) <= MOST_VALUES:
        return values
    try:
        return np.array([float(value) if value else np.nan for value in values])
    except ValueError:
        return values


def _why_none(values: list[str] | Floats) -> str:
    if isinstance(values, np.ndarray):
        return "its values are so alike that they make no quarters"
    different = len(set(values) - {""})
    if different > MOST_VALUES:
        return f"{different} different texts; a column of more than {MOST_VALUES} makes no slices"
    return f"no value stands at {FEWEST} images or more and leaves {FEWEST} to compare with"
