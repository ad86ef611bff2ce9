"""A model folder or an exported file, opened for prediction: what it says, and its engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.data import Preprocessing, Sample, plain_reader, read_batch
from plusx.data.loader import decode
from plusx.data.records import Task
from plusx.data.remarks import Remarks
from plusx.decide import Decision
from plusx.engines.choose import AUTO, Choice
from plusx.engines.exported import Exported, is_exported, open_exported
from plusx.engines.protocol import Engine
from plusx.errors import ArtifactError, UsageError
from plusx.runtime import forward_batch, resolve_device
from plusx.weights import Artifact, load_artifact

Reader = Callable[[Sample, int], Tensor]
"""(sample, position) -> (C, H, W) float32, or for a whole graph (H, W, C)."""


class Opened:
    """Everything from an image file to a decision.

    Attributes:
        classes: K names.
        task: ``single`` or ``multi``.
        preprocessing: image to network input.
        decision: what turns logits into an answer.
        remarks: gets what a person should be told about images.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        task: Task,
        preprocessing: Preprocessing,
        decision: Decision,
        running: Choice | Exported | Engine,
        *,
        device: torch.device,
    ) -> None:
        self.classes, self.task = classes, task
        self.preprocessing, self.decision = preprocessing, decision
        self.remarks = Remarks()
        self._running, self._device = running, device
        self._whole = isinstance(running, Exported) and running.whole
        self._prepare = plain_reader(preprocessing, self.remarks)

    def read(self, sample: Sample, position: int) -> Tensor:
        """An image file -> what the engine takes a batch of."""
        if self._whole:
            return decode(sample, self.preprocessing, self.remarks)
        return self._prepare(sample, position)

    def reader(self, asked: Reader | None) -> Reader:
        """The given reader in place of ``read``.

        Raises:
            UsageError: the engine prepares images itself.
        """
        if asked is not None and self._whole:
            raise UsageError(
                "views and harm need images to be prepared here, but a .pt2 file does so itself; "
                "use the run, or an .onnx file"
            )
        return asked or self.read

    def batch_size(self, asked: int | None) -> int:
        """Images per forward; images of different sizes, which go in undone, one by one."""
        if self._whole:
            return 1
        return forward_batch(self._device) if asked is None else asked

    @property
    def whole(self) -> bool:
        """Whether the engine takes decoded images (1, H, W, C) and prepares them itself."""
        return self._whole

    @property
    def undecided(self) -> bool:
        """Whether ``auto`` has still to choose, or to see what it chose at work."""
        return isinstance(self._running, Choice) and self._running.open

    def engine(self, images: int | None) -> Engine:
        """What runs the network; ``images``: how many there are, as far as known."""
        if isinstance(self._running, Choice):
            return self._running.engine(images)
        return self._running.engine if isinstance(self._running, Exported) else self._running

    def confirm(self, samples: Sequence[Sample]) -> None:
        """See whether what ``auto`` chose answers these as it should."""
        batch = read_batch(list(enumerate(samples)), plain_reader(self.preprocessing))
        if len(batch.images):
            self.confirm_on(batch.images.numpy())

    def confirm_on(self, images: npt.NDArray[np.float32]) -> None:
        """The same with preprocessed images (N, C, S, S)."""
        if isinstance(self._running, Choice):
            self._running.confirm(images)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should be told about the engine."""
        return tuple(self._running.notes) if isinstance(self._running, Choice | Exported) else ()


def open_model(
    source: Path | Artifact, *, engine: str | Engine | None, device: str, precision: str | None
) -> Opened:
    """Open a run folder, a model folder, an artifact, or an exported file.

    Args:
        source: what to open.
        engine: a name, one that exists already, or None: torch, and for exported files ``auto``.
        device: where to run.
        precision: None for float32, and for exported files what they hold.

    Raises:
        ArtifactError: it cannot be read.
        UsageError: the engine, device or precision is unknown or absent.
    """
    if isinstance(source, Path) and is_exported(source):
        return _open_file(source, engine, device, precision)
    artifact = source if isinstance(source, Artifact) else load_artifact(source)
    running: Choice | Engine
    if engine is None or isinstance(engine, str):
        running = Choice(
            artifact.model, name=engine or "torch", device=device, precision=precision or "float32"
        )
        where = running.device
    else:
        running, where = engine, resolve_device("cpu" if engine.parallel else device)
    return Opened(
        artifact.classes,
        artifact.task,
        artifact.preprocessing,
        artifact.decision,
        running,
        device=where,
    )


def _open_file(
    path: Path, engine: str | Engine | None, device: str, precision: str | None
) -> Opened:
    if not (engine is None or isinstance(engine, str)):
        raise UsageError(f"{path.name} brings its own network; name an engine, or give none")
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: exported files run on the CPU; leave it out")
    exported = open_exported(path, name=engine or AUTO, precision=precision)
    said = exported.metadata
    try:
        decision = Decision.from_dict(said.decision, len(said.classes), exported=True)
    except UsageError as error:
        raise ArtifactError(f"{path}: its decision cannot be used: {error}") from error
    return Opened(
        said.classes,
        said.task,
        said.preprocessing,
        decision,
        exported,
        device=torch.device("cpu"),
    )
