"""From a model folder to answers about image files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from plusx.data import BadImage, Sample, groups_of, load_batches, plain_reader, unlabelled
from plusx.data.records import Task, target_array
from plusx.data.remarks import Remarks
from plusx.engines import Engine, TorchEngine
from plusx.errors import DataError, UnreadableImage
from plusx.evaluate import Predictions, log_probabilities
from plusx.evaluate.thresholds import decided
from plusx.runtime import cpu_count, forward_batch, resolve_device, resolve_precision
from plusx.weights import Artifact, load_artifact

PathLike = str | os.PathLike[str]
Reader = Callable[[Sample, int], Tensor]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image.

    Attributes:
        path: the image file.
        classes: K names.
        probabilities: (K,) float32; they sum to 1 (task single), or each class's own (task multi).
        marks: (K,) bool, which classes the image has by the model's thresholds (task multi); None
            for task single.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    marks: npt.NDArray[np.bool_] | None = None

    @property
    def task(self) -> Task:
        """``single`` or ``multi``."""
        return "single" if self.marks is None else "multi"

    @property
    def labels(self) -> tuple[str, ...]:
        """The image's classes: the most probable one (single), or all that reach their threshold,
        which may be none (multi)."""
        if self.marks is None:
            return (self.label,)
        return tuple(self.classes[i] for i in np.flatnonzero(self.marks))

    @property
    def label(self) -> str:
        """The most probable class, whether or not it reaches a threshold."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Its probability, 0..1."""
        return float(self.probabilities.max())

    def top(self, n: int) -> list[tuple[str, float]]:
        """The ``n`` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def __repr__(self) -> str:
        if self.marks is not None:
            return f"Prediction({self.path!r}: {list(self.labels)!r})"
        return f"Prediction({self.path!r}: {self.label!r} {self.probability:.3f})"


class Predictor:
    """Classifies image files with one artifact.

    Args:
        artifact: a run folder, a model folder, or one that is already loaded.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (the fastest).
        batch_size: images per forward; by default 8 on a CPU, else 64.
        threads: for decoding; by default one a core.

    Attributes:
        classes: K names.
        remarks: what a person should be told about the images read so far.

    Raises:
        ArtifactError: the folder cannot be read.
        UsageError: the device or precision is unknown or absent.
    """

    def __init__(
        self,
        artifact: PathLike | Artifact,
        *,
        device: str = "auto",
        precision: str = "float32",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        loaded = artifact if isinstance(artifact, Artifact) else load_artifact(Path(artifact))
        self.classes, self.task, self.decision = loaded.classes, loaded.task, loaded.decision
        self.remarks = Remarks()
        self._read = plain_reader(loaded.preprocessing, self.remarks)
        where = resolve_device(device)
        self._batch_size = forward_batch(where) if batch_size is None else batch_size
        self._threads = cpu_count() if threads is None else threads
        self._engine: Engine = TorchEngine(
            loaded.model, device=where, dtype=resolve_precision(precision, where)
        )

    def predict(self, source: PathLike | Iterable[PathLike]) -> Prediction | list[Prediction]:
        """Classify one image (one Prediction), or several, a folder or a glob (a list).

        Raises:
            UnreadableImage: an image cannot be decoded.
            DataError: nothing is there.
        """
        one = isinstance(source, str | os.PathLike) and Path(source).is_file()
        found: list[Prediction] = []
        for answer in self.stream(unlabelled(source)):
            if isinstance(answer, BadImage):
                raise UnreadableImage(answer.path, answer.reason)
            found.append(answer)
        return found[0] if one else found

    def stream(self, samples: Iterable[Sample]) -> Iterator[Prediction | BadImage]:
        """Answers one by one, memory flat; unreadable images as ``BadImage``."""
        for read, logits, bad in self._batches(samples):
            probabilities = np.exp(log_probabilities(logits, self.task)).astype(np.float32)
            marks = self.decision.marks(probabilities) if self.task == "multi" else None
            for i, (sample, row) in enumerate(zip(read, probabilities, strict=True)):
                yield Prediction(
                    sample.path, self.classes, row, None if marks is None else marks[i]
                )
            yield from bad

    def predictions(
        self,
        samples: Sequence[Sample],
        *,
        tick: Callable[[int], None] = lambda n: None,
        reader: Reader | None = None,
    ) -> tuple[Predictions, list[BadImage]]:
        """Labelled images, whose targets index ``classes``, as ``Predictions``; of task multi with
        the classes that the model's thresholds give each. ``reader`` takes the place of decoding
        and preprocessing: (sample, position) -> (C, H, W) float32.

        Raises:
            DataError: none of them can be read.
        """
        kept: list[Sample] = []
        logits: list[npt.NDArray[np.float32]] = []
        failed: list[BadImage] = []
        for read, answers, bad in self._batches(samples, reader):
            kept += read
            logits.append(answers)
            failed += bad
            tick(len(read) + len(bad))
        if not kept:
            raise DataError(f"none of the {len(failed)} images can be read")
        found = Predictions(
            logits=np.concatenate(logits),
            targets=target_array(kept, len(self.classes), self.task),
            paths=tuple(sample.path for sample in kept),
            classes=self.classes,
            task=self.task,
            groups=groups_of(kept),
        )
        return decided(found, self.decision) if self.task == "multi" else found, failed

    def _batches(
        self, samples: Iterable[Sample], reader: Reader | None = None
    ) -> Iterator[tuple[list[Sample], npt.NDArray[np.float32], list[BadImage]]]:
        """The samples of each batch that could be read, their logits (N, K), and the bad ones."""
        loading, listed = tee(samples)
        size = self._batch_size
        read = reader or self._read
        for batch in load_batches(loading, read, batch_size=size, threads=self._threads):
            given = list(islice(listed, size))
            logits = np.empty((0, len(self.classes)), np.float32)
            if len(batch.images):
                logits = self._engine.run(batch.images).logits.numpy()
            yield [given[i % size] for i in batch.index.tolist()], logits, batch.bad
