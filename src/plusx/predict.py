"""From a model folder or an exported file to answers about image files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data import (
    BadImage,
    Sample,
    groups_of,
    load_batches,
    read_batch,
    unlabelled,
)
from plusx.data.ordered import map_ordered
from plusx.data.records import Batch, target_array
from plusx.decide import Answers, Decision, log_probabilities
from plusx.engines import Engine, Outputs
from plusx.engines.choose import WORTH_CONVERTING
from plusx.engines.opened import Opened, open_model
from plusx.engines.opened import Reader as Reader
from plusx.errors import DataError, UnreadableImage
from plusx.evaluate import Predictions
from plusx.evaluate.thresholds import decided
from plusx.prediction import Prediction as Prediction
from plusx.runtime import cpu_count
from plusx.weights import Artifact

PathLike = str | os.PathLike[str]

_LARGEST = 65_504.0  # of float16


class Predictor:
    """Classifies image files with one artifact, or one exported file.

    Args:
        artifact: a run folder, a model folder, one that is already loaded, or a file that
            ``plusx export`` made (``.onnx``, ``.xml``, ``.pt2``).
        engine: ``torch``, ``onnxruntime``, ``openvino``, or ``auto``: the fastest installed that
            gives the answers of torch in float32 within stated bounds, tried on the first images;
            torch below ``WORTH_CONVERTING`` images, of which a stream's first are looked at. Or an
            engine that exists already, of this very model, to be shared. By default torch; for an
            exported file the fastest installed.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto`` (the fastest); by default
            float32, or what an exported file holds.
        batch_size: images per forward; by default 8 on a CPU, else 64.
        threads: for decoding; on a CPU each also runs the network on what it has decoded. By
            default one a core.
        decide: False to take every most probable class for the answer; probabilities stay
            calibrated, and with several labels an image the thresholds stay.

    Attributes:
        classes: K names.
        preprocessing: image to network input.
        decision: what turns logits into an answer.
        remarks: what a person should be told about the images read so far.

    Raises:
        ArtifactError: the folder or file cannot be read.
        UsageError: the engine, device or precision is unknown or absent.
    """

    def __init__(
        self,
        artifact: PathLike | Artifact,
        *,
        engine: str | Engine | None = None,
        device: str = "auto",
        precision: str | None = None,
        batch_size: int | None = None,
        threads: int | None = None,
        decide: bool = True,
    ) -> None:
        source = artifact if isinstance(artifact, Artifact) else Path(artifact)
        self._opened: Opened = open_model(source, engine=engine, device=device, precision=precision)
        self.classes, self.task = self._opened.classes, self._opened.task
        self.preprocessing = self._opened.preprocessing
        decision = self._opened.decision
        self.decision = decision if decide else decision.without_deciding()
        self.remarks = self._opened.remarks
        self._batch_size = self._opened.batch_size(batch_size)
        self._threads = cpu_count() if threads is None else threads

    @property
    def engine(self) -> Engine:
        """What runs the network; where ``auto`` has seen no images yet, what suits many."""
        return self._opened.engine(None)

    @property
    def whole(self) -> bool:
        """Whether the engine takes decoded images (1, H, W, C) and prepares them itself."""
        return self._opened.whole

    def confirm(self, images: npt.NDArray[np.float32]) -> None:
        """Let an engine that ``auto`` chose prove itself on preprocessed images (N, C, S, S), where
        no stream of files will do so; one that fails gives way to torch in float32, said in
        ``notes``."""
        self._opened.confirm_on(images)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should be told about the engine, so far."""
        return self._opened.notes

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

    def answers(
        self, names: Sequence[str], found: Outputs, decision: Decision | None = None
    ) -> list[Prediction]:
        """What the engine's outputs mean.

        Args:
            names: N, for ``Prediction.path``.
            found: of N images, at least one.
            decision: in place of the model's own.
        """
        how = decision or self.decision
        if self.task == "multi":
            shares = np.exp(log_probabilities(found.logits, "multi")).astype(np.float32)
            rows = zip(names, shares, how.marks(shares), strict=True)
            return [Prediction(name, self.classes, row, own) for name, row, own in rows]
        shares, said = how.apply(found.logits, found.features, scores=found.unknown_scores)
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
            logits.append(self.decision.temper(found.logits))
            if features and read:
                vectors.append(found.features.clip(-_LARGEST, _LARGEST).astype(np.float16))
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
        read = self._opened.reader(reader)
        coming = self._settle(samples)
        first = list(islice(coming, self._batch_size + 1))
        several = len(first) > self._batch_size and self._threads > 1
        coming = chain(first, coming)
        if several and self.engine.parallel:
            yield from self._side_by_side(coming, read)
        else:
            yield from self._one_by_one(coming, read)

    def _one_by_one(
        self, samples: Iterator[Sample], read: Reader
    ) -> Iterator[tuple[list[Sample], Outputs, list[BadImage]]]:
        """All cores, or a GPU, run one batch while threads decode the next ones."""
        given: deque[Sample] = deque()

        def drawn() -> Iterator[Sample]:
            for sample in samples:
                given.append(sample)
                yield sample

        size = self._batch_size
        for batch in load_batches(drawn(), read, batch_size=size, threads=self._threads):
            count = len(batch.images) + len(batch.bad)
            part = [given.popleft() for _ in range(count)]
            good = [part[i % size] for i in batch.index.tolist()]
            yield good, self._run(batch), batch.bad

    def _side_by_side(
        self, samples: Iterator[Sample], read: Reader
    ) -> Iterator[tuple[list[Sample], Outputs, list[BadImage]]]:
        """Each thread decodes a batch and runs it on its own core, so that none waits for another
        (ResNet-50 in bfloat16 on 2 cores: 88 images/s; decoding beside a network that wants both
        cores: 43 to 72)."""
        size, numbered = self._batch_size, enumerate(samples)

        def work(part: list[tuple[int, Sample]]) -> tuple[list[Sample], Outputs, list[BadImage]]:
            batch = read_batch(part, read)
            good = [part[i - part[0][0]][1] for i in batch.index.tolist()]
            return good, self._run(batch, one_core=True), batch.bad

        parts = iter(lambda: list(islice(numbered, size)), [])
        yield from map_ordered(work, parts, threads=self._threads, ahead=2 * self._threads, chunk=1)

    def _run(self, batch: Batch, *, one_core: bool = False) -> Outputs:
        if len(batch.images):
            return self.engine.run(batch.images.numpy(), one_core=one_core)
        return Outputs(np.empty((0, len(self.classes)), np.float32), np.empty((0, 0), np.float32))

    def _settle(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """Let ``auto`` choose by how many there are, and try what it took on the first ones."""
        coming = iter(samples)
        if not self._opened.undecided:
            return coming
        first = list(islice(coming, WORTH_CONVERTING))
        self._opened.engine(len(first))
        if first and self._opened.undecided:
            self._opened.confirm(first[: self._batch_size])
        return chain(first, coming)


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
