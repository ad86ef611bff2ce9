"""``plusx evaluate --robustness``: how figures fall as photographs are harmed on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from plusx.data import Preprocessing, Sample, view_rng
from plusx.data.corruption import STRENGTHS, corrupt, shrink
from plusx.data.loader import decode
from plusx.errors import DataError
from plusx.evaluate import Figure, Predictions
from plusx.evaluate.metrics import top1
from plusx.evaluate.multilabel import map_of
from plusx.jobs.talk import Talk
from plusx.predict import Predictor, Reader

IMAGES = 500
"""Images that are harmed, by default: 36 passes over them are made."""


@dataclass(frozen=True)
class Point:
    """One kind of harm at one strength.

    Attributes:
        kind: a key of ``plusx.data.corruption.STRENGTHS``.
        strength: 1 to 5; 0 is the image as it is.
        level: what that strength is, in the unit of the kind; None at 0.
        value: the figure on the harmed images.
    """

    kind: str
    strength: int
    level: float | None
    value: Figure

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        about = {"kind": self.kind, "strength": self.strength, "level": self.level}
        return {**about, **self.value.to_json()}


@dataclass(frozen=True)
class Robustness:
    """A figure under harm.

    Attributes:
        figure: its name, ``top1`` or ``mean_average_precision``.
        n: images harmed.
        of: images that there were.
        seed: of which images, and of the harm.
        points: kinds in the order of ``STRENGTHS``, strengths 0 to 5 of each.
    """

    figure: str
    n: int
    of: int
    seed: int
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``plusx.evaluate.plots.robustness_curves`` draws ``points``."""
        return {
            "figure": self.figure,
            "n": self.n,
            "of": self.of,
            "seed": self.seed,
            "points": [point.to_json() for point in self.points],
        }


def robustness(
    predictor: Predictor,
    preprocessing: Preprocessing,
    samples: Sequence[Sample],
    *,
    most: int = IMAGES,
    seed: int = 0,
    talk: Talk,
) -> Robustness:
    """Measure every kind at every strength on at most ``most`` images.

    An image is decoded once, kept at the size that the preprocessing resizes it to (about 0.3 MB),
    and harmed at that size. What is drawn depends on the seed, kind, strength and position alone.

    Raises:
        DataError: none of the images can be read.
    """
    chosen = stratified(samples, most, seed=seed)
    with talk.phase("robustness: as they are", len(chosen)) as tick:
        plain, bad = predictor.predictions(chosen, tick=lambda n: tick(n, ""))
    if bad:
        gone = {item.path for item in bad}
        chosen = [sample for sample in chosen if sample.path not in gone]
    name = "top1" if plain.task == "single" else "mean_average_precision"
    start = _figure(plain)
    keep = _Kept(preprocessing)
    points = []
    for number, (kind, levels) in enumerate(STRENGTHS.items()):
        points.append(Point(kind, 0, None, start))
        with talk.phase(f"robustness: {kind}", len(levels) * len(chosen)) as tick:
            for strength, level in enumerate(levels, start=1):
                reader = keep.harmed(kind, strength, seed=seed, stream=10 * number + strength)
                found, bad = predictor.predictions(
                    chosen, reader=reader, tick=lambda n: tick(n, "")
                )
                if bad:
                    raise DataError(f"{bad[0].path}: {bad[0].reason}, though it was read before")
                points.append(Point(kind, strength, float(level), _figure(found)))
    return Robustness(name, len(chosen), len(samples), seed, tuple(points))


def stratified(samples: Sequence[Sample], most: int, *, seed: int) -> list[Sample]:
    """At most ``most`` samples in their order, each class (or set of classes) by its share."""
    if len(samples) <= most:
        return list(samples)
    rng = np.random.default_rng(seed)
    by_class: dict[tuple[int, ...], list[int]] = {}
    for i, sample in enumerate(samples):
        by_class.setdefault(sample.targets, []).append(i)
    place = np.empty(len(samples))
    for rows in by_class.values():
        # Evenly spread places in 0..1: the first `most` of all hold every class by its share.
        place[rng.permutation(rows)] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return [samples[i] for i in np.sort(np.argsort(place, kind="stable")[:most])]


class _Kept:
    """Images at the size they are harmed at, kept from their first reading on."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._small: dict[str, torch.Tensor] = {}

    def harmed(self, kind: str, strength: int, *, seed: int, stream: int) -> Reader:
        """A reader that harms what it reads."""

        def read(sample: Sample, index: int) -> torch.Tensor:
            side = self._preprocessing.resize
            image = self._small.get(sample.path)
            if image is None:
                image = shrink(decode(sample, self._preprocessing), side)
                self._small[sample.path] = image
            rng = view_rng(seed, stream, index)
            harmed = corrupt(image, kind, strength, size=side, rng=rng)
            return self._preprocessing(harmed)

        return read


def _figure(predictions: Predictions) -> Figure:
    if predictions.task == "single":
        return top1(predictions)
    return map_of(predictions)
