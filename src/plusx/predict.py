"""From a model folder to answers about image files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, tee
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.data import BadImage, Sample, groups_of, load_batches, plain_reader, unlabelled
from plusx.data.records import Task, target_array
from plusx.data.remarks import Remarks
from plusx.decide import Answers, Decision, log_probabilities
from plusx.engines import Engine, Outputs, TorchEngine
from plusx.errors import DataError, UnreadableImage
from plusx.evaluate import Predictions
from plusx.evaluate.thresholds import decided
from plusx.runtime import cpu_count, forward_batch, resolve_device, resolve_precision
from plusx.weights import Artifact, load_artifact

PathLike = str | os.PathLike[str]
Reader = Callable[[Sample, int], Tensor]

_LARGEST = 65_504.0  # of float16


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one image.

    Attributes:
        path: the image file.
        classes: K names.
        probabilities: (K,) float32; they sum to 1 (task single), or each class's own (task multi).
        marks: (K,) bool, which classes the image has by the model's thresholds (task multi); None
            for task single.
        called: index of the class to answer, where it is not the most probable one because another
            is favoured; else None.
        sure: whether the answer is as probable as the model's promise needs.
        unknown: whether nothing like the image was trained on.
        unknown_score: how far it is from all training images, 0..2; None where the model has no
            such score.
        set: the classes that it may be, with the coverage that the model promises, perhaps none;
            None where the model promises none.
    """

    path: str
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    marks: npt.NDArray[np.bool_] | None = None
    called: int | None = None
    sure: bool = True
    unknown: bool = False
    unknown_score: float | None = None
    set: tuple[str, ...] | None = None

    @property
    def decision(self) -> Literal["answer", "unsure", "unknown"]:
        """Whether to take ``label`` for an answer."""
        return "unknown" if self.unknown else "answer" if self.sure else "unsure"

    @property
    def task(self) -> Task:
        """``single`` or ``multi``."""
        return "single" if self.marks is None else "multi"

    @property
    def labels(self) -> tuple[str, ...]:
        """The image's classes: ``label`` (single), or all that reach their threshold, which may be
        none (multi)."""
        if self.marks is None:
            return (self.label,)
        return tuple(self.classes[i] for i in np.flatnonzero(self.marks))

    @property
    def label(self) -> str:
        """The most probable class (or one that is favoured), whether or not it is an answer."""
        return self.classes[self._index]

    @property
    def probability(self) -> float:
        """Its probability, 0..1."""
        return float(self.probabilities[self._index])

    @property
    def _index(self) -> int:
        return int(self.probabilities.argmax()) if self.called is None else self.called

    def top(self, n: int) -> list[tuple[str, float]]:
        """The ``n`` most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]

    def __repr__(self) -> str:
        if self.marks is not None:
            return f"Prediction({self.path!r}: {list(self.labels)!r})"
        but = "" if self.decision == "answer" else f" {self.decision}"
        return f"Prediction({self.path!r}: {self.label!r} {self.probability:.3f}{but})"


class Predictor:
    """Classifies image files with one artifact.

    Args:
        artifact: a run folder, a model folder, or one that is already loaded.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (the fastest).
        batch_size: images per forward; by default 8 on a CPU, else 64.
        threads: for decoding; by default one a core.
        decide: False to take every most probable class for the answer; probabilities stay
            calibrated, and with several labels an image the thresholds stay.

    Attributes:
        classes: K names.
        decision: what turns logits into an answer.
        preprocessing: image file to network input.
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
        decide: bool = True,
    ) -> None:
        loaded = artifact if isinstance(artifact, Artifact) else load_artifact(Path(artifact))
        self.classes, self.task = loaded.classes, loaded.task
        self.preprocessing, self.source = loaded.preprocessing, loaded.path
        self.decision = loaded.decision if decide else loaded.decision.without_deciding()
        self.remarks = Remarks()
        self._read = plain_reader(loaded.preprocessing, self.remarks)
        where = resolve_device(device)
        self._batch_size = forward_batch(where) if batch_size is None else batch_size
        self.engine_name, self.precision = "torch", precision
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
        for read, found, bad in self._batches(samples):
            if read:
                yield from self.answers([sample.path for sample in read], found)
            yield from bad

    def run(self, images: npt.NDArray[np.float32]) -> Outputs:
        """Preprocessed images (N, C, S, S) float32 -> what the network gives."""
        return self._engine.run(torch.from_numpy(images))

    def answers(
        self, names: Sequence[str], found: Outputs, decision: Decision | None = None
    ) -> list[Prediction]:
        """What N outputs mean.

        Args:
            names: N, for ``Prediction.path``.
            found: of N images, at least one.
            decision: in place of the model's own.
        """
        logits, features = found.logits.numpy(), found.features.numpy()
        how = decision or self.decision
        if self.task == "multi":
            shares = np.exp(log_probabilities(logits, "multi")).astype(np.float32)
            rows = zip(names, shares, how.marks(shares), strict=True)
            return [Prediction(name, self.classes, row, own) for name, row, own in rows]
        shares, said = how.apply(logits, features)
        return [_prediction(name, self.classes, shares[i], said, i) for i, name in enumerate(names)]

    def predictions(
        self,
        samples: Sequence[Sample],
        *,
        features: bool = False,
        tick: Callable[[int], None] = lambda n: None,
        reader: Reader | None = None,
    ) -> tuple[Predictions, list[BadImage]]:
        """Labelled images, whose targets index ``classes``, as ``Predictions``: calibrated, and of
        task multi with the classes that the model's thresholds give each.

        Args:
            samples: the images.
            features: keep the pooled vectors, too, as float16.
            tick: called with the number of images done since the last call.
            reader: (sample, position) -> (C, H, W) float32, in place of decoding and preprocessing.

        Raises:
            DataError: none of them can be read.
        """
        kept: list[Sample] = []
        logits: list[npt.NDArray[np.float32]] = []
        vectors: list[npt.NDArray[np.float16]] = []
        failed: list[BadImage] = []
        for read, found, bad in self._batches(samples, reader):
            kept += read
            logits.append(self.decision.temper(found.logits.numpy()))
            if features and read:
                vectors.append(found.features.clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16))
            failed += bad
            tick(len(read) + len(bad))
        if not kept:
            raise DataError(f"none of the {len(failed)} images can be read")
        whole = Predictions(
            logits=np.concatenate(logits),
            targets=target_array(kept, len(self.classes), self.task),
            paths=tuple(sample.path for sample in kept),
            classes=self.classes,
            task=self.task,
            groups=groups_of(kept),
            features=np.concatenate(vectors) if vectors else None,
        )
        return decided(whole, self.decision) if self.task == "multi" else whole, failed

    def _batches(
        self, samples: Iterable[Sample], reader: Reader | None = None
    ) -> Iterator[tuple[list[Sample], Outputs, list[BadImage]]]:
        """The samples of each batch that could be read, their outputs, and the bad ones."""
        loading, listed = tee(samples)
        size = self._batch_size
        read = reader or self._read
        for batch in load_batches(loading, read, batch_size=size, threads=self._threads):
            given = list(islice(listed, size))
            if len(batch.images):
                found = self._engine.run(batch.images)
            else:
                found = Outputs(torch.empty(0, len(self.classes)), torch.empty(0, 0))
            yield [given[i % size] for i in batch.index.tolist()], found, batch.bad


def _prediction(
    path: str,
    classes: tuple[str, ...],
    probabilities: npt.NDArray[np.float32],
    answers: Answers,
    i: int,
) -> Prediction:
    called, sets, scores = int(answers.called[i]), answers.sets, answers.scores
    return Prediction(
        path,
        classes,
        probabilities,
        called=None if called == int(probabilities.argmax()) else called,
        sure=bool(answers.sure[i]),
        unknown=bool(answers.unknown[i]),
        unknown_score=None if scores is None else float(scores[i]),
        set=None if sets is None else tuple(classes[k] for k in np.flatnonzero(sets[i])),
    )
