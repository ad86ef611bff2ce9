"""The pictures of a report: small photographs, heat maps on them, the nearest training images."""

from __future__ import annotations

import base64
import io
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.decode import read_thumbnail
from plusx.data.preprocessing import Preprocessing
from plusx.errors import PlusxError, UnreadableImage
from plusx.jobs.explain import Explainer, Explanation
from plusx.jobs.neighbours import FILE, MOST, Neighbour
from plusx.jobs.wording import one_line
from plusx.weights.artifact import CONFIG, describe, read_config

THUMBNAIL = 128
"""Short side of a thumbnail in pixels; the long side is cut to at most twice that."""

WORKING = 16 * THUMBNAIL
"""Long side, at most, of what a thumbnail is cut from."""

NEAREST, NEAREST_SIDE = 4, 64
"""Training images shown beside each photograph, and the short side of their thumbnails."""

HEAT_SECONDS = 60.0
"""After so long no further heat map is begun: a report must not take as long as a training."""

Json = dict[str, Any]


class Pictures:
    """Looks at image files for a report, by the model's own reading rules where it is there.

    Args:
        run: a run folder, perhaps without a model.
        thumbnails: whether images may be shown at all; without, neighbours are still named.

    Attributes:
        why: why there are no heat maps, or not for all photographs; empty where there are.
        why_alone: the same of the nearest training images.
    """

    def __init__(self, run: Path, *, thumbnails: bool = True) -> None:
        self.thumbnails, self.why, self.why_alone = thumbnails, "", ""
        self._how = _preprocessing(run)
        self._until = time.monotonic() + HEAT_SECONDS
        self._explainer: Explainer | None = None
        try:
            self._explainer = Explainer(run, device="cpu", neighbours=NEAREST)
        except PlusxError as error:
            self.why = self.why_alone = one_line(error)
        else:
            if not self._explainer.kept:
                self.why_alone = f"This run has no {FILE} (--no-neighbours)."
        if not thumbnails:
            self.why = "No pictures, as asked for by --no-thumbnails."

    def look(self, path: str, label: str) -> Json:
        """``picture`` and ``heat`` (data URIs, or empty), ``gone`` (why there is no picture),
        ``nearest`` training images.

        Args:
            path: the image file.
            label: the class whose evidence the heat map shows.
        """
        found = self._explained(path, label)
        if isinstance(found, Explanation):
            nearest = [self._neighbour(one) for one in found.neighbours]
            if not self.thumbnails:
                return {"picture": "", "heat": "", "gone": "", "nearest": nearest}
            photograph = np.broadcast_to(found.photograph, found.overlay.shape)
            return {"picture": _uri(photograph, THUMBNAIL), "heat": _uri(found.overlay, THUMBNAIL),
                    "gone": "", "nearest": nearest}  # fmt: skip
        picture, gone = thumbnail(path, self._how) if self.thumbnails else ("", "")
        return {"picture": picture, "heat": "", "gone": found or gone, "nearest": []}

    def _explained(self, path: str, label: str) -> Explanation | str:
        """The image explained; or why not, where the file is the reason."""
        if self._explainer is None:
            return ""
        if time.monotonic() > self._until:
            said = f"the first {HEAT_SECONDS:.0f} seconds went into the photographs before"
            self.why = self.why_alone = f"Not for every photograph: {said}."
            return ""
        try:
            return self._explainer.explain(path, label, side=THUMBNAIL)
        except UnreadableImage as error:
            return one_line(error.reason)
        except (PlusxError, RuntimeError, MemoryError) as error:
            # A picture less is no reason to lose a report; the page says why.
            self._explainer, self.why = None, one_line(error)
            self.why_alone = self.why
            return ""

    def _neighbour(self, one: Neighbour) -> Json:
        picture = _small(one.path, self._how) if self.thumbnails else ""
        return {
            "path": one_line(Path(one.path).name),
            "label": one_line(one.label) or "none",
            "similarity": one.similarity,
            "picture": picture,
        }


def thumbnail(path: str, how: Preprocessing | None = None) -> tuple[str, str]:
    """A small upright JPEG as a data URI; or nothing, and why.

    Args:
        path: the image file.
        how: the model's preprocessing, which says how files are read.
    """
    try:
        return _uri(_read(path, how), THUMBNAIL), ""
    except UnreadableImage as error:
        return "", one_line(error.reason)


def about_neighbours(run: Path) -> str:
    """One line on what ``neighbours.npz`` holds and how large it is; empty without it."""
    try:
        size = (run / FILE).stat().st_size
    except OSError:
        return ""
    return (
        f"{FILE} ({max(0.1, size / 1e6):.1f} MB) holds features, names and labels of training "
        f"images, at most {MOST:,}; it is no part of the model."
    )


@lru_cache(maxsize=512)
def _small(path: str, how: Preprocessing | None) -> str:
    try:
        return _uri(_read(path, how), NEAREST_SIDE, square=True)
    except UnreadableImage:
        return ""


def _read(path: str, how: Preprocessing | None) -> npt.NDArray[np.uint8]:
    if how is None:
        return read_thumbnail(path, WORKING)
    # A grey model's photographs are shown in colour.
    channels = 3 if how.channels == 1 and not how.takes_floats else how.channels
    return read_thumbnail(path, WORKING, channels=channels, reading=how.reading)


def _preprocessing(run: Path) -> Preprocessing | None:
    config = run / "model" / CONFIG
    try:
        return describe(read_config(config), os.fspath(config)).preprocessing
    except PlusxError:
        return None


def _uri(pixels: npt.NDArray[np.uint8], side: int, *, square: bool = False) -> str:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    short = min(image.size)
    width, height = (min(length, short if square else 2 * short) for length in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    scale = min(1.0, side / short)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    box = (left, top, left + width, top + height)
    shown = image.resize(size, Image.Resampling.LANCZOS, box=box)
    file = io.BytesIO()
    shown.save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
