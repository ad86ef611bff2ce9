"""Other ways to show a network an image: several views at once, and other crops, each compared
with the model's own way on the same images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plusx.data import Preprocessing, Sample, plain_reader
from plusx.data.loader import decode
from plusx.data.preprocessing import shorten
from plusx.data.reading import ResizeMode
from plusx.decide import log_probabilities
from plusx.errors import DataError, UsageError
from plusx.evaluate import Figure, Predictions
from plusx.evaluate.metrics import top1
from plusx.evaluate.paired import compare
from plusx.jobs.talk import Talk
from plusx.predict import Predictor, Reader

VIEWS = ("mirror", "five")

CROPS: dict[str, ResizeMode] = {"centre": "short", "squish": "squish", "pad": "pad"}


@dataclass(frozen=True)
class Way:
    """One way to show images, against the model's own on the same images.

    Attributes:
        name: of the way.
        top1: what it reaches.
        gain: its top1 less that of the model's own way, with the interval of a paired bootstrap.
        own: whether it is the model's own way.
    """

    name: str
    top1: Figure
    gain: Figure
    own: bool = False

    @property
    def settled(self) -> bool:
        """Whether the interval of the gain leaves 0 out."""
        return self.gain.low > 0 or self.gain.high < 0

    @property
    def finding(self) -> str:
        """A few words."""
        if self.own:
            return "the model's own"
        if not self.settled:
            return "no difference can be shown"
        return "better" if self.gain.value > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "top1": self.top1.to_json(),
            "gain": self.gain.to_json(),
            "own": self.own,
            "settled": self.settled,
            "finding": self.finding,
        }


class Viewer:
    """Shows the same images in other ways.

    Args:
        predictor: the model.
        preprocessing: its own.
        samples: labelled images.
        plain: their predictions as the model sees them itself.
        talk: where progress is said.
    """

    def __init__(
        self,
        predictor: Predictor,
        preprocessing: Preprocessing,
        samples: Sequence[Sample],
        plain: Predictions,
        talk: Talk,
    ) -> None:
        readable = set(plain.paths)
        self._samples = [sample for sample in samples if sample.path in readable]
        self._predictor, self._own, self._plain = predictor, preprocessing, plain
        self._talk = talk

    def averaged(self, views: str) -> Way:
        """Probabilities averaged over views: ``mirror`` (the image and its mirror image) or
        ``five`` (the four corners and the centre, as in He et al. 2015's 10-crop without mirror
        images).
        """
        logits = np.log(np.maximum(self.probabilities(views), 1e-45)).astype(np.float32)
        return self._way(views, replace(self._plain, logits=logits))

    def probabilities(self, views: str) -> npt.NDArray[np.float64]:
        """(N, K) mean over the views."""
        readers = [_mirrored(self._own)] if views == "mirror" else _five(self._own)
        found = [self._plain] if views == "mirror" else []
        for i, reader in enumerate(readers, start=1):
            found.append(self._shown(reader, f"view {i} of {len(readers)}"))
        shares = [np.exp(log_probabilities(one.logits, "single")) for one in found]
        return np.asarray(np.mean(shares, axis=0))

    def cropped(self, names: Sequence[str]) -> list[Way]:
        """Each of ``centre``, ``squish`` and ``pad``, best first. The last two show all of the
        image; the model's own way is among them where its kind is asked for."""
        ways = []
        for name in dict.fromkeys(names):
            if CROPS[name] == self._own.mode:
                ways.append(replace(self._way(name, self._plain), own=True))
                continue
            found = self._shown(plain_reader(self._own.as_mode(CROPS[name])), f"crop {name}")
            ways.append(self._way(name, found))
        return sorted(ways, key=lambda way: -way.top1.value)

    def _shown(self, reader: Reader, label: str) -> Predictions:
        with self._talk.phase(label, len(self._samples)) as tick:
            found, bad = self._predictor.predictions(
                self._samples, reader=reader, tick=lambda n: tick(n, "")
            )
        if bad:
            raise DataError(f"{bad[0].path}: {bad[0].reason}, though it was read before")
        return found

    def _way(self, name: str, found: Predictions) -> Way:
        paired = compare(found, self._plain)
        return Way(name, top1(found), paired.difference)


def check_views(views: str) -> None:
    """Raise UsageError unless they are known."""
    if views not in VIEWS:
        raise UsageError(f"--tta {views!r} is not one of {', '.join(VIEWS)}")


def check_crops(names: Sequence[str]) -> None:
    """Raise UsageError unless all are known."""
    if unknown := [name for name in names if name not in CROPS]:
        raise UsageError(f"--crop {unknown[0]!r} is not one of {', '.join(CROPS)}")


def _mirrored(preprocessing: Preprocessing) -> Reader:
    plain = plain_reader(preprocessing)
    return lambda sample, index: plain(sample, index).flip(2)


def _five(preprocessing: Preprocessing) -> list[Reader]:
    """The centre and four corners of the image, resized so that the views differ."""
    size = preprocessing.size
    resize = max(preprocessing.resize, math.floor(size / 0.875))
    mode: ResizeMode = "squish" if preprocessing.mode == "squish" else "short"
    wide = replace(preprocessing, resize=resize, mode=mode)
    places: list[Callable[[int, int], tuple[int, int]]] = [
        lambda h, w: (h // 2, w // 2),
        lambda h, w: (0, 0),
        lambda h, w: (0, w),
        lambda h, w: (h, 0),
        lambda h, w: (h, w),
    ]

    def at(place: Callable[[int, int], tuple[int, int]]) -> Reader:
        def read(sample: Sample, _: int) -> torch.Tensor:
            x = shorten(decode(sample, wide).permute(2, 0, 1))
            x = wide.resample(x, wide.resized_hw(x.shape[1], x.shape[2]))
            top, left = place(x.shape[1] - size, x.shape[2] - size)
            return wide.normalise(x[:, top : top + size, left : left + size] / 255)

        return read

    return [at(place) for place in places]
