"""Does an exported file give plusx's answers? From image file to probability, in its runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plusx.data import Sample
from plusx.data.loader import decode
from plusx.decide import Decision
from plusx.errors import DataError, PlusxError
from plusx.evaluate.intervals import Figure, bootstrap_mean, group_numbers
from plusx.export.runtimes import Array, Runtime
from plusx.jobs.talk import Talk
from plusx.predict import Prediction, Predictor
from plusx.weights import Artifact
from plusx.weights.exported import UNKNOWN_SCORE, ExportMetadata

EXACT = 1e-4
"""What float32 may differ by: in a probability, and in the unknown score."""
GREY = 0.05
"""What the resize alone may differ by in float32, in grey levels of 255."""
TOLERANCE, UNLABELLED = 1.0, 5.0
"""Points: of accuracy lost where images are labelled, else of answers that changed."""

_BATCH = 8
_SIDES = ((64, 64), (333, 500), (500, 333), (120, 97), (1, 9))  # of synthetic images


@dataclass(frozen=True)
class Parity:
    """What came out.

    Attributes:
        runtime: which ran the file.
        images: compared.
        source: where they are from.
        largest: difference of a probability.
        agreement: share of images with the same answer (task multi: of marks, image by class).
        drop: accuracy of plusx less that of the file on the same images, with the interval of a
            paired bootstrap; None where they are not labelled. Task multi: share of right marks.
        unknown: largest difference of the unknown score; None without one.
        resize: largest difference of the resize alone, in grey levels of 255; None without
            preprocessing in the file.
        limit: what decided: ``EXACT``, or the tolerance as a fraction.
        failed: why the file may not ship; empty where it may.
    """

    runtime: str
    images: int
    source: str
    largest: float
    agreement: float
    drop: Figure | None
    unknown: float | None
    resize: float | None
    limit: float
    failed: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "runtime": self.runtime,
            "images": self.images,
            "source": self.source,
            "largest_difference": self.largest,
            "agreement": self.agreement,
            "drop": None if self.drop is None else self.drop.to_json(),
            "unknown_score_difference": self.unknown,
            "resize_grey_levels": self.resize,
            "limit": self.limit,
        }

    def words(self) -> str:
        """One line for a person."""
        said = [f"{self.images} images in {self.runtime}: largest difference of a probability "
                f"{self.largest:.2g}, same answer on {self.agreement:.1%}"]  # fmt: skip
        if self.drop is not None:
            drop = self.drop
            said.append(
                f"accuracy lost {100 * drop.value:.2f} points ({100 * drop.low:.2f} to "
                f"{100 * drop.high:.2f})"
            )
        if self.resize is not None:
            said.append(f"the resize alone differs by {self.resize:.2g} grey levels")
        return ", ".join(said)


def check(
    runtime: Runtime,
    artifact: Artifact,
    metadata: ExportMetadata,
    samples: Sequence[Sample],
    *,
    source: str,
    tolerance: float | None,
    talk: Talk,
) -> Parity:
    """Send the same files through plusx (torch, float32) and through an exported file.

    Args:
        runtime: the file, opened.
        artifact: what it was made from.
        metadata: of the file.
        samples: images; where all are labelled, accuracies are compared.
        source: where they are from.
        tolerance: points (see ``TOLERANCE`` and ``UNLABELLED``, the defaults); not for fp32.
        talk: where progress is said.

    Raises:
        DataError: none of the images can be read.
        PlusxError: the file cannot be run on one of them.
    """
    predictor = Predictor(artifact, device="cpu", decide=True)
    asked: dict[str, Sample] = {sample.path: sample for sample in samples}
    with talk.phase("checking: plusx", len(asked)) as tick:
        plain: list[Prediction] = []
        for one in predictor.stream(asked.values()):
            tick(1, "")
            if isinstance(one, Prediction):
                plain.append(one)
    if not plain:
        raise DataError(f"{source}: none of the {len(asked)} images can be read, so that nothing "
                        "could be compared; give --check DATA")  # fmt: skip
    read = [asked[one.path] for one in plain]
    shares: list[Array] = []
    scores: list[Array] = []
    with talk.phase(f"checking: {runtime.name}", len(read)) as tick:
        for batch in _batches(read, artifact, preprocessed=metadata.preprocessed):
            found = _run(runtime, batch)
            shares.append(found["probabilities"])
            scores.append(found.get(UNKNOWN_SCORE, np.empty(0)))
            tick(len(batch), "")
        many = _run(runtime, np.repeat(batch[:1], 3, axis=0))["probabilities"]
    ours = np.stack([one.probabilities for one in plain])
    theirs = np.concatenate(shares)
    uneven = float(np.abs(many - shares[-1][0]).max())
    known = [one.unknown_score for one in plain if one.unknown_score is not None]
    parity = Parity(
        runtime=runtime.name,
        images=len(read),
        source=source,
        largest=_largest(ours, theirs),
        agreement=float(_same(ours, theirs, artifact).mean()),
        drop=_drop(ours, theirs, read, artifact),
        unknown=_largest(np.array(known), np.concatenate(scores)) if known else None,
        resize=None if runtime.prepare is None else _resize_alone(runtime, artifact),
        limit=0.0,
    )
    return _judged(parity, metadata, tolerance, uneven)


def _judged(
    found: Parity, metadata: ExportMetadata, tolerance: float | None, uneven: float
) -> Parity:
    """With the limit, and why it fails, if it does."""
    if metadata.precision == "fp32":
        found = replace(found, limit=EXACT)
        worst = max(found.largest, found.unknown or 0.0)
        if not worst <= EXACT:
            return replace(found, failed=f"probabilities or unknown score differ by {worst:.2g}, "
                                         f"more than {EXACT:g}")  # fmt: skip
        if found.resize is not None and not found.resize <= GREY:
            return replace(found, failed=f"the resize alone differs by {found.resize:.3g} grey "
                                         f"levels, more than {GREY:g}")  # fmt: skip
        if not uneven <= EXACT:
            return replace(found, failed=f"an image's answer changes by {uneven:.2g} with the "
                                         "size of its batch")  # fmt: skip
        return found
    points = tolerance
    if points is None:
        points = UNLABELLED if found.drop is None else TOLERANCE
    lost = 1 - found.agreement if found.drop is None else found.drop.value
    what = "answers changed" if found.drop is None else "accuracy lost"
    found = replace(found, limit=points / 100)
    if not (np.isfinite(found.largest) and lost <= points / 100 + 1e-9):
        return replace(found, failed=f"{what}: {100 * lost:.2f} points, more than the tolerance of "
                                     f"{points:g}")  # fmt: skip
    return found


def _batches(
    samples: Sequence[Sample], artifact: Artifact, *, preprocessed: bool
) -> Iterator[Array]:
    """What the file takes: images of one size a batch, at most ``_BATCH``."""
    waiting: list[Array] = []
    for sample in samples:
        image = decode(sample, artifact.preprocessing)
        given = (artifact.preprocessing(image) if preprocessed else image).numpy()
        if waiting and (given.shape != waiting[0].shape or len(waiting) == _BATCH):
            yield np.stack(waiting)
            waiting = []
        waiting.append(given)
    yield np.stack(waiting)


def _run(runtime: Runtime, images: Array) -> dict[str, Array]:
    try:
        return runtime.run(images)
    except Exception as error:  # each runtime has its own kinds
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PlusxError(
            f"the exported file fails in {runtime.name} on a batch of {images.shape}: {said}; "
            "nothing was written"
        ) from error


def _largest(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    """Largest difference; infinite where one is not a number."""
    found = float(np.abs(ours.astype(np.float64) - theirs).max())
    return found if np.isfinite(found) else float("inf")


def _marks(shares: Array, artifact: Artifact) -> npt.NDArray[np.bool_]:
    return Decision(thresholds=artifact.decision.thresholds).marks(shares)


def _same(ours: Array, theirs: Array, artifact: Artifact) -> npt.NDArray[np.bool_]:
    if artifact.task == "multi":
        return np.asarray(_marks(ours, artifact) == _marks(theirs, artifact))
    return np.asarray(ours.argmax(axis=1) == theirs.argmax(axis=1))


def _drop(
    ours: Array, theirs: Array, samples: Sequence[Sample], artifact: Artifact
) -> Figure | None:
    if any(sample.target is None for sample in samples):
        return None
    if artifact.task == "multi":
        wanted = np.zeros(ours.shape, np.bool_)
        for row, sample in zip(wanted, samples, strict=True):
            row[list(sample.targets)] = True
        right = [(_marks(one, artifact) == wanted).mean(axis=1) for one in (ours, theirs)]
    else:
        targets = np.array([sample.targets[0] for sample in samples])
        right = [(one.argmax(axis=1) == targets).astype(np.float64) for one in (ours, theirs)]
    groups = None
    if any(sample.group is not None for sample in samples):
        groups = group_numbers(tuple(sample.group or sample.path for sample in samples))
    return bootstrap_mean(right[0] - right[1], groups=groups, seed=0)


def _resize_alone(runtime: Runtime, artifact: Artifact) -> float:
    """Largest difference over noise of several sizes, in grey levels: noise shows a filter that
    differs, photographs may hide it."""
    assert runtime.prepare is not None
    preprocessing = artifact.preprocessing
    rng = np.random.default_rng(0)
    worst = 0.0
    for height, width in _SIDES:
        shape = (2, height, width, preprocessing.channels)
        images = rng.integers(0, 256, shape, dtype=np.uint8)
        given = images.astype(np.float32) if preprocessing.takes_floats else images
        wanted = np.stack([preprocessing(torch.from_numpy(one)).numpy() for one in given])
        grey = 255 * np.array(preprocessing.std)[:, None, None]
        worst = max(worst, _largest(wanted * grey, runtime.prepare(given) * grey))
    return worst
