"""``plusx explain``: which parts of an image spoke for the answer, painted on the photograph, and
which training images are nearest to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from plusx.atomic import replacing
from plusx.data import BadImage, Preprocessing, Sample, unlabelled
from plusx.data.decode import as_bytes
from plusx.data.loader import decode
from plusx.decide import log_probabilities
from plusx.engines.exported import is_exported, read_metadata
from plusx.errors import UnreadableImage, UsageError
from plusx.explain import grad_cam, on_image, overlay, sharpest_stage, smaller
from plusx.jobs.neighbours import SHOWN, Neighbour, load_neighbours
from plusx.jobs.wording import one_line
from plusx.model.classifier import Classifier
from plusx.runtime import resolve_device
from plusx.weights import Artifact, load_artifact
from plusx.weights.artifact import find_artifact
from plusx.weights.exported import EXPORT

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Explanation:
    """One image explained.

    Attributes:
        path: the image file.
        label: the class that is explained.
        probability: of that class.
        predicted: the most probable class.
        photograph: (H, W, 1 or 3) uint8, upright.
        heat: (H, W) float32 over it, 0..1; NaN where the network saw nothing.
        overlay: (H, W, 3) uint8, the map painted on the photograph.
        neighbours: the training images nearest to it, the nearest first; empty where the run kept
            none.
    """

    path: str
    label: str
    probability: float
    predicted: str
    photograph: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32]
    overlay: npt.NDArray[np.uint8]
    neighbours: tuple[Neighbour, ...] = ()


class Explainer:
    """Explains the answers of one artifact, or of an exported file through the run it is from.

    An exported file holds no gradients: the float32 network that it was made from is explained,
    with the temperature that the file carries.

    Args:
        run: a run folder, a model folder, or a file that ``plusx export`` made.
        device: where to run.
        neighbours: how many training images to name, where the run kept them.
        parent: the run that an exported file was made from; by default the one whose ``export``
            folder it lies in.

    Attributes:
        classes: K names.
        kept: how many training images there are to choose neighbours among.

    Raises:
        ArtifactError: the folder or file cannot be read.
        UsageError: ``neighbours`` is negative, the parent of an exported file is absent or
            another, or ``parent`` is given for a run.
    """

    def __init__(
        self,
        run: PathLike,
        *,
        device: str = "auto",
        neighbours: int = SHOWN,
        parent: PathLike | None = None,
    ) -> None:
        if neighbours < 0:
            raise UsageError(f"--neighbours {neighbours} must be at least 0")
        folder, artifact = _explained(Path(run), None if parent is None else Path(parent))
        self.classes = artifact.classes
        self._preprocessing: Preprocessing = artifact.preprocessing
        self._device = resolve_device(device)
        self._model: Classifier = artifact.model.to(self._device).requires_grad_(False).eval()
        self._task, self._decision = artifact.task, artifact.decision
        self._stage = sharpest_stage(self._model, self._preprocessing.size)
        self._most = neighbours
        self._neighbours = load_neighbours(folder) if neighbours else None
        self.kept = 0 if self._neighbours is None else len(self._neighbours)

    def explain(
        self, path: PathLike, label: str | None = None, *, side: int | None = None
    ) -> Explanation:
        """Explain one image.

        Args:
            path: the image file.
            label: the class to explain; by default the most probable one.
            side: pixels of the short side of the photograph, heat and overlay that come back; by
                default those of the file. The network sees the file either way.

        Raises:
            UnreadableImage: it cannot be decoded.
            UsageError: the model has no such class.
            ArtifactError: the neighbours kept are those of another network.
        """
        image = decode(Sample(os.fspath(path), None), self._preprocessing)
        return self.explain_image(image, os.fspath(path), label, side=side)

    def explain_image(
        self, image: torch.Tensor, name: str, label: str | None = None, *, side: int | None = None
    ) -> Explanation:
        """Explain one decoded image (H, W, C), as ``plusx.data`` reads it; see :meth:`explain`."""
        if label is not None and label not in self.classes:
            known = ", ".join(self.classes[:20]) + (" ..." if len(self.classes) > 20 else "")
            raise UsageError(f"--class {label!r} is no class of the model; it knows {known}")
        x = self._preprocessing(image)[None].to(self._device)
        with torch.no_grad():
            features = self._model.features(x)
            logits = self._model.head(features).float().cpu()[0]
        tempered = self._decision.temper(logits[None].numpy())
        shares = np.exp(log_probabilities(tempered, self._task))[0]
        best = int(logits.argmax())
        chosen = best if label is None else self.classes.index(label)
        heat = grad_cam(self._model, x, torch.tensor([chosen]), stage=self._stage)[0]
        whole = on_image(heat, (image.shape[0], image.shape[1]), self._preprocessing).numpy()
        photograph = _shown(image.numpy())
        if side is not None:
            photograph, whole = smaller(photograph, whole, side)
        return Explanation(
            path=name,
            label=self.classes[chosen],
            probability=float(shares[chosen]),
            predicted=self.classes[best],
            photograph=photograph,
            heat=whole,
            overlay=overlay(photograph, whole),
            neighbours=self._nearest(features[0], name),
        )

    def stream(
        self, source: PathLike | Iterable[PathLike], label: str | None = None
    ) -> Iterator[Explanation | BadImage]:
        """Explain images, folders and patterns one by one; unreadable ones as ``BadImage``."""
        for sample in unlabelled(source):
            try:
                yield self.explain(sample.path, label)
            except UnreadableImage as error:
                yield BadImage(error.path, error.reason)

    def _nearest(self, features: torch.Tensor, path: str) -> tuple[Neighbour, ...]:
        if self._neighbours is None:
            return ()
        return self._neighbours.nearest(features.float().cpu().numpy(), self._most, path=path)


def _explained(path: Path, parent: Path | None) -> tuple[Path, Artifact]:
    """The run to explain with, and its model as ``path`` has it."""
    if not is_exported(path):
        if parent is not None:
            raise UsageError(f"--parent {parent}: is for exported files, and {path} is none")
        return path, load_artifact(path)
    said = read_metadata(path)
    inside = Path(os.path.abspath(path)).parent  # noqa: PTH100 (a symbolic link stays as it is)
    folder = parent or (inside.parent if inside.name == EXPORT else None)
    remedy = (
        f"an exported file is explained through the run it was made from, {one_line(said.name)!r} "
        f"(SHA-256 of model.safetensors {said.parent[:12]}...); give --parent RUN"
    )
    if folder is None or find_artifact(folder) is None:
        where = f"{path} lies in no run" if folder is None else f"{folder} holds no model"
        raise UsageError(f"{where}: {remedy}")
    artifact = load_artifact(folder)
    if artifact.sha256 != said.parent:
        raise UsageError(
            f"{folder}: its model is another one (SHA-256 {artifact.sha256[:12]}...) than {path} "
            f"was made from: {remedy}"
        )
    return folder, replace(
        artifact,
        classes=said.classes,
        preprocessing=said.preprocessing,
        decision=replace(artifact.decision, temperature=said.decision.get("temperature", 1.0)),
    )


def save(found: Explanation, folder: Path, taken: set[str]) -> Path:
    """Write the overlay as a PNG into ``folder``, under a name that is not in ``taken`` yet.

    Raises:
        UsageError: it cannot be written.
    """
    from PIL import Image

    stem = f"{Path(found.path).stem}.{found.label}"
    safe = "".join(c if c.isalnum() or c in "-_. " else "_" for c in one_line(stem))[:120]
    name, number = f"{safe}.png", 1
    while name in taken:
        number += 1
        name = f"{safe}-{number}.png"
    taken.add(name)
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(target) as beside:
            Image.fromarray(found.overlay).save(beside, format="PNG")
    except OSError as error:
        raise UsageError(f"--out {target}: cannot be written: {error.strerror}") from error
    return target


def _shown(image: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The first channels, as a person may see them: three, or one."""
    seen = as_bytes(image)
    return seen[:, :, :3] if seen.shape[2] >= 3 else seen[:, :, :1]
