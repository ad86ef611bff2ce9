"""What can be timed: a network by name, a run, an exported file."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from plusx.data import Preprocessing
from plusx.errors import UsageError
from plusx.jobs.bench_engines import AS_EXPORTED, Images, Run, make
from plusx.jobs.bench_files import SUFFIXES, ExportedFile, open_file
from plusx.jobs.models import describe_model
from plusx.model.classifier import Classifier
from plusx.model.counted import COUNTED
from plusx.weights import create_network, load_artifact
from plusx.weights.artifact import CONFIG, WEIGHTS, describe, find_artifact, read_config
from plusx.weights.network import resolve_spec

_MIB = 2**20


@dataclass(frozen=True)
class Subject:
    """One thing to time.

    Attributes:
        word: as asked for.
        name: to be shown.
        kind: ``variant``, ``run`` or ``file``.
        size: pixels of a side of its images.
        channels: of its images.
        params: parameters; None of a file.
        macs: multiply-adds for one image; None of a file.
        file_mib: of its weights on disk; of a variant as they would be in float32.
        file: what is to be run, of a file.
    """

    word: str
    name: str
    kind: Literal["variant", "run", "file"]
    size: int
    channels: int
    params: int | None
    macs: int | None
    file_mib: float
    file: ExportedFile | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that can run it."""
        from plusx.jobs.bench_engines import ENGINES

        return tuple(ENGINES) if self.file is None else self.file.engines

    def precisions(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Those to run it in: as asked for, but of a file its own."""
        return asked if self.file is None else (AS_EXPORTED,)

    def prepare(self, engine: str, precision: str, *, device: str = "auto") -> Run:
        """Ready to be run on batches of ``images``.

        Raises:
            PlusxError: the engine is not installed, or cannot run it so.
        """
        if self.file is not None:
            return open_file(self.file, engine)
        return make(engine, precision, self._build(), device=device)

    def images(self, batch: int) -> Images:
        """A batch as the network takes it, of noise: which pixels they are changes no time."""
        random = np.random.default_rng(0)
        if self.file is not None and self.file.takes_pixels:
            shape = (batch, self.size, self.size, self.channels)
            return random.integers(0, 256, shape, dtype=np.uint8)
        return random.standard_normal(
            (batch, self.channels, self.size, self.size), dtype=np.float32
        )

    def preprocessing(self) -> Preprocessing | None:
        """Image file to network input; None of a file, whose own graph may do it."""
        if self.kind == "variant":
            return create_network(self.word, weights="none").preprocessing
        return load_artifact(Path(self.word)).preprocessing if self.kind == "run" else None

    def load_libraries(self, engine: str) -> None:
        """Import what running it needs, so that it is not counted as the network's memory."""
        converter = ("onnx", "onnxscript") if engine == "onnxruntime" and self.file is None else ()
        for name in (engine, *converter):
            importlib.import_module(name)

    def _build(self) -> Classifier:
        if self.kind == "run":
            return load_artifact(Path(self.word)).model
        return create_network(self.word, weights="none").model


def find_subject(word: str) -> Subject:
    """What a word stands for.

    Raises:
        UsageError: it is no network, run or exported file.
        PlusxError: the run or file cannot be read.
    """
    path = Path(word).expanduser()
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        found = ExportedFile.of(path)
        return Subject(
            word, path.name, "file", found.size, found.channels, None, None, found.mib, found
        )
    if path.is_dir():
        return _of_run(word, path)
    try:
        spec = resolve_spec(word)
    except UsageError as error:
        raise UsageError(
            f"{word}: is neither a run, nor an exported file ({', '.join(SUFFIXES)}), nor a "
            f"network: {error}"
        ) from error
    counted = COUNTED.get(word)
    if counted is None:
        described = describe_model(word).description
        counted = described.params, described.macs
    return Subject(
        word, spec.name, "variant", spec.image_size, spec.in_channels, *counted,
        counted[0] * 4 / _MIB,
    )  # fmt: skip


def _of_run(word: str, path: Path) -> Subject:
    folder = find_artifact(path)
    if folder is None:
        raise UsageError(
            f"{word}: holds no model; give a run folder, or the model folder in it, or an exported "
            f"file ({', '.join(SUFFIXES)})"
        )
    described = describe(read_config(folder / CONFIG), folder / CONFIG)
    size = described.preprocessing.size
    counted = describe_model(folder, image_size=size).description
    mib = (folder / WEIGHTS).stat().st_size / _MIB
    channels = described.preprocessing.channels
    name = path.resolve().name
    return Subject(word, name, "run", size, channels, counted.params, counted.macs, mib)
