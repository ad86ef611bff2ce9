"""``plusx explain``: which parts of an image spoke for the answer, painted on the photograph, and
which training images are nearest to it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from plusx.atomic import replacing
from plusx.data import BadImage, Preprocessing, Sample, unlabelled
from plusx.data.decode import as_bytes
from plusx.data.loader import decode
from plusx.decide import log_probabilities
from plusx.errors import UnreadableImage, UsageError
from plusx.explain import grad_cam, on_image, overlay, sharpest_stage, smaller
from plusx.jobs.neighbours import SHOWN, Neighbour, load_neighbours
from plusx.jobs.wording import one_line
from plusx.model.classifier import Classifier
from plusx.runtime import resolve_device
from plusx.weights import load_artifact

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
    """Explains the answers of one artifact.

    Args:
        run: a run folder or a model folder.
        device: where to run.
        neighbours: how many training images to name, where the run kept them.

    Attributes:
        classes: K names.
        kept: how many training images there are to choose neighbours among.

    Raises:
        ArtifactError: the folder cannot be read.
        UsageError: ``neighbours`` is negative.
    """

    def __init__(self, run: PathLike, *, device: str = "auto", neighbours: int = SHOWN) -> None:
        if neighbours < 0:
            raise UsageError(f"--neighbours {neighbours} must be at least 0")
        artifact = load_artifact(Path(run))
        self.classes = artifact.classes
        self._preprocessing: Preprocessing = artifact.preprocessing
        self._device = resolve_device(device)
        self._model: Classifier = artifact.model.to(self._device).requires_grad_(False).eval()
        self._task, self._decision = artifact.task, artifact.decision
        self._stage = sharpest_stage(self._model, self._preprocessing.size)
        self._most = neighbours
        self._neighbours = load_neighbours(Path(run)) if neighbours else None
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
