"""``plusx explain``: which parts of an image spoke for the answer, painted on the photograph."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from plusx.atomic import replacing
from plusx.data import BadImage, Preprocessing, read_image, unlabelled
from plusx.decide import log_probabilities
from plusx.errors import UnreadableImage, UsageError
from plusx.explain import grad_cam, on_image, overlay, sharpest_stage
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
        heat: (H, W) float32 over the upright photograph, 0..1; NaN where the network saw nothing.
        overlay: (H, W, 3) uint8, the map painted on the photograph.
    """

    path: str
    label: str
    probability: float
    predicted: str
    heat: npt.NDArray[np.float32]
    overlay: npt.NDArray[np.uint8]


class Explainer:
    """Explains the answers of one artifact.

    Args:
        run: a run folder or a model folder.
        device: where to run.

    Raises:
        ArtifactError: the folder cannot be read.
    """

    def __init__(self, run: PathLike, *, device: str = "auto") -> None:
        artifact = load_artifact(Path(run))
        self.classes = artifact.classes
        self._preprocessing: Preprocessing = artifact.preprocessing
        self._device = resolve_device(device)
        self._model: Classifier = artifact.model.to(self._device).requires_grad_(False).eval()
        self._task, self._decision = artifact.task, artifact.decision
        self._stage = sharpest_stage(self._model, self._preprocessing.size)

    def explain(self, path: PathLike, label: str | None = None) -> Explanation:
        """Explain one image.

        Args:
            path: the image file.
            label: the class to explain; by default the most probable one.

        Raises:
            UnreadableImage: it cannot be decoded.
            UsageError: the model has no such class.
        """
        if label is not None and label not in self.classes:
            known = ", ".join(self.classes[:20]) + (" ..." if len(self.classes) > 20 else "")
            raise UsageError(f"--class {label!r} is no class of the model; it knows {known}")
        image = read_image(path, channels=self._preprocessing.channels)
        x = self._preprocessing(torch.from_numpy(image))[None].to(self._device)
        with torch.no_grad():
            logits = self._model(x).float().cpu()[0]
        tempered = self._decision.temper(logits[None].numpy())
        shares = np.exp(log_probabilities(tempered, self._task))[0]
        best = int(logits.argmax())
        chosen = best if label is None else self.classes.index(label)
        heat = grad_cam(self._model, x, torch.tensor([chosen]), stage=self._stage)[0]
        whole = on_image(heat, image.shape[:2], self._preprocessing).numpy()
        return Explanation(
            path=os.fspath(path),
            label=self.classes[chosen],
            probability=float(shares[chosen]),
            predicted=self.classes[best],
            heat=whole,
            overlay=overlay(_shown(image), whole),
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


def _shown(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The first channels, as a person may see them: three, or one."""
    return image[:, :, :3] if image.shape[2] >= 3 else image[:, :, :1]
