"""Which images an export is calibrated on, and which it is checked on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data import Sample, align, read_listing, unlabelled
from plusx.data.loader import decode
from plusx.errors import DataError, UnreadableImage, UsageError
from plusx.evaluate import Predictions
from plusx.export.quantise import LEAST, MOST
from plusx.jobs.neighbours import FILE as NEIGHBOURS
from plusx.jobs.neighbours import load_neighbours
from plusx.jobs.talk import Talk
from plusx.weights import Artifact

PathLike = str | os.PathLike[str]

CHECKED = 1000
"""At most so many images are compared; which, is drawn with a fixed seed."""


def calibration_images(artifact: Artifact, folder: Path, given: PathLike | None) -> list[Sample]:
    """Images to calibrate on, never of a test split; drawn with a fixed seed, at most twice MOST,
    for some may be unreadable."""
    if given is not None:
        samples = [one for one in _labelled_or_not(given, artifact) if one.split != "test"]
        trained = [one for one in samples if one.split == "train"]
        samples, source = trained or samples, f"--calibrate {given}"
    else:
        file = folder / NEIGHBOURS
        if not file.exists():
            raise UsageError(
                f"--precision int8 needs images to calibrate on, and {folder} does not say which "
                f"ones it was trained on (no {NEIGHBOURS}); give --calibrate DATA"
            )
        kept = load_neighbours(folder)
        assert kept is not None
        paths = [Path(kept.root, one) for one in kept.paths]
        samples = [Sample(os.path.normpath(one), None) for one in paths if one.is_file()]
        source = f"the training images that {file} names"
    if len(samples) < LEAST:
        raise UsageError(
            f"{source}: {len(samples)} images to calibrate on, int8 needs at least {LEAST}; give "
            "--calibrate DATA"
        )
    return _drawn(samples, 2 * MOST)


def arrays(
    samples: Sequence[Sample], artifact: Artifact, talk: Talk, *, preprocessed: bool
) -> list[npt.NDArray[Any]]:
    """(1, ...) each, as the graph takes them; unreadable ones are said."""
    found: list[npt.NDArray[Any]] = []
    for sample in samples:
        if len(found) == MOST:
            break
        try:
            image = decode(sample, artifact.preprocessing)
        except UnreadableImage as error:
            talk.note(f"left out of the calibration: {error}")
            continue
        given = artifact.preprocessing(image) if preprocessed else image
        found.append(given.numpy()[None])
    if samples and len(found) < LEAST:
        raise DataError(
            f"only {len(found)} of {len(samples)} images to calibrate on can be read, int8 needs "
            f"at least {LEAST}; give other images with --calibrate DATA"
        )
    return found


def images_to_check(
    artifact: Artifact,
    folder: Path,
    given: PathLike | None,
    calibration: Sequence[Sample],
    talk: Talk,
) -> tuple[list[Sample], str]:
    """Images to compare on, and where they are from; never those of the calibration."""
    if given is not None:
        source = str(given)
        samples = _labelled_or_not(given, artifact)
    else:
        source = "the run's validation images"
        samples = _validation(folder / "predictions" / "val.npz")
        if not samples:
            raise UsageError(
                f"{folder}: its validation images are not at hand to compare the file with plusx; "
                "give --check DATA (images, labelled or not), or --no-check"
            )
    used = {os.path.realpath(one.path) for one in calibration}
    kept = [one for one in samples if os.path.realpath(one.path) not in used]
    if len(kept) < len(samples):
        talk.note(f"{len(samples) - len(kept)} images to check on were calibrated on: left out")
    if not kept:
        raise UsageError(f"{source}: no image is left to compare on; give --check DATA")
    return _drawn(kept, CHECKED), source


def _validation(file: Path) -> list[Sample]:
    """The validation images of a run that are still there, labelled."""
    if not file.exists():
        return []
    kept = Predictions.load(file)
    groups = kept.groups or (None,) * len(kept)
    found = []
    for path, target, group in zip(kept.paths, kept.targets, groups, strict=True):
        if Path(path).is_file():
            own = tuple(np.flatnonzero(target).tolist()) if kept.task == "multi" else int(target)
            found.append(Sample(path, own, group=group))
    return found


def _labelled_or_not(data: PathLike, artifact: Artifact) -> list[Sample]:
    """Labels where the data have some that are the model's; else images alone."""
    try:
        listing, _ = align(read_listing(data, training=False, task=artifact.task), artifact.classes)
        return list(listing.samples)
    except DataError:
        found = list(unlabelled(data))
        if not found:
            raise
        return found


def _drawn(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many, in their order, drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(samples))[:most]
    return [samples[i] for i in sorted(order.tolist())]
