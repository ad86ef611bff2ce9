"""The training images nearest to an image in feature space: what an answer can be held against.

``RUN/neighbours.npz`` lies beside the model, never in it: it names training images and holds what
the network saw in them, so it is not sent along when a model is given away.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.atomic import replacing
from plusx.data import Preprocessing, Sample
from plusx.data.classes import SEPARATOR
from plusx.engines import TorchEngine
from plusx.errors import ArtifactError
from plusx.fit.features import Loading, first_pass
from plusx.model.classifier import Classifier
from plusx.model.surgery import Top
from plusx.runtime import resolve_device

if TYPE_CHECKING:
    from plusx.jobs.beginning import Fitted
    from plusx.jobs.material import Material
    from plusx.jobs.setup import Setup
    from plusx.jobs.talk import Talk

FILE = "neighbours.npz"
MOST = 20_000
"""Training images kept: of more, a random choice. At 2,048 features an image, 82 MB."""

SHOWN = 5
SCHEMA_VERSION = 1

Features = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Neighbour:
    """A training image near an explained one.

    Attributes:
        path: its file.
        label: its class; of several, joined by ``;``.
        similarity: cosine of the angle between both feature vectors, 1 for the same direction.
    """

    path: str
    label: str
    similarity: float


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images and their features.

    Attributes:
        features: (n, D) float16, each of length 1.
        paths: n files, relative to ``root`` where they lie below it.
        labels: n classes; of several, joined by ``;``.
        root: the folder of the data, as the training was given it.
        images: how many training images there were.
    """

    features: npt.NDArray[np.float16]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    root: str
    images: int

    def __len__(self) -> int:
        return len(self.paths)

    def nearest(
        self, features: Features, most: int = SHOWN, *, path: str = ""
    ) -> tuple[Neighbour, ...]:
        """The nearest first; equally near ones in the order of the training images.

        Args:
            features: (D,) of the image in question, under the same network.
            most: how many.
            path: the image itself, which is no neighbour of its own.

        Raises:
            ArtifactError: the features are those of another network.
        """
        if features.shape != self.features.shape[1:]:
            raise ArtifactError(
                f"{FILE}: holds {self.features.shape[1]} features an image, the model gives "
                f"{features.shape[0]}: they do not belong together; train again"
            )
        # Blocks: 20,000 float16 vectors as float32 at once would be 160 MB.
        unit = _unit(features[None])[0].astype(np.float32)
        near = np.concatenate(
            [self.features[i : i + 2048].astype(np.float32) @ unit
             for i in range(0, max(1, len(self)), 2048)]
        )  # fmt: skip
        own = os.path.realpath(path) if path else ""
        found: list[Neighbour] = []
        for row in np.argsort(-near, kind="stable")[: most + 1].tolist():
            where = os.path.normpath(Path(self.root, self.paths[row]))
            if not own or os.path.realpath(where) != own:
                found.append(Neighbour(where, self.labels[row], min(1.0, float(near[row]))))
        return tuple(found[:most])

    def save(self, path: Path) -> None:
        """Write one npz file; plain arrays, never pickle.

        Raises:
            ArtifactError: it cannot be written.
        """
        arrays = {
            "schema_version": np.int64(SCHEMA_VERSION),
            "features": self.features,
            "paths": _as_array(self.paths),
            "labels": _as_array(self.labels),
            "root": _as_array([self.root]),
            "images": np.int64(self.images),
        }
        try:
            with replacing(path) as beside, beside.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error


def load_neighbours(run: Path) -> Neighbours | None:
    """What a run kept; None where it kept none (``--no-neighbours``, or a model folder alone).

    Raises:
        ArtifactError: the file is damaged, or written by a later plusx.
    """
    path = run / FILE
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is one array")
            version = int(file["schema_version"])
            if version > SCHEMA_VERSION:
                raise ArtifactError(
                    f"{path}: schema_version {version} was written by a later plusx; update with: "
                    "pip install -U plusx"
                )
            paths, labels, root = (_as_text(file[name]) for name in ("paths", "labels", "root"))
            features = file["features"].astype(np.float16, copy=False)
            if features.ndim != 2 or not len(features) == len(paths) == len(labels):
                raise ValueError("its parts are of different lengths")
            return Neighbours(features, paths, labels, root[0], int(file["images"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: is damaged: {error}; remove it, or train again") from error


def keep_neighbours(
    setup: Setup,
    material: Material,
    fitted: Fitted,
    folder: Path,
    talk: Talk,
    *,
    known: Features | None = None,
) -> None:
    """Write ``RUN/neighbours.npz`` at the end of a training, and say what it holds.

    Args:
        setup: of the training.
        material: its features are those of the frozen backbone: right where the probe ships.
        fitted: holds the network that ships.
        folder: the run.
        talk: where it is said.
        known: (n, D) features of the images at ``fitted.positions["train"]`` under that network,
            where they were computed already.
    """
    from plusx.jobs.decision import through_top  # loads what an explanation does not need

    train = fitted.positions["train"]
    kept = choose(len(train), seed=setup.recipe.seed)
    samples = [setup.listing.samples[p] for p in train[kept]]
    with talk.phase("neighbours", len(samples)) as tick:
        if known is not None:
            features = known[kept]
        elif fitted.ships == "probe" and material.first is not None:
            features = material.first.features[train[kept]]
        elif material.store is not None and isinstance(fitted.net, Top):
            features = through_top(fitted.net, material.store, train[kept])
        else:
            scratch = folder / "cache" / "neighbours"
            scratch.mkdir(parents=True, exist_ok=True)
            features, readable = features_of(
                fitted.model,
                samples,
                setup.preprocessing,
                folder=scratch,
                device=str(setup.hardware.device),
                threads=setup.threads,
                tick=lambda n: tick(n, ""),
            )
            features = features[readable]
            samples = [sample for sample, read in zip(samples, readable, strict=True) if read]
        found = make_neighbours(
            features, samples, setup.listing.classes, setup.listing.root, images=len(train)
        )
        found.save(folder / FILE)
    size = max(0.1, (folder / FILE).stat().st_size / 1e6)
    talk.say(
        f"{FILE}: features, names and labels of {len(found):,} of {len(train):,} training images, "
        f"{size:.1f} MB, for plusx explain and the report (--no-neighbours keeps none)"
    )


def make_neighbours(
    features: Features,
    samples: Sequence[Sample],
    classes: Sequence[str],
    root: str,
    *,
    images: int | None = None,
) -> Neighbours:
    """Neighbours from features that are known already.

    Args:
        features: (n, D) of the samples under the network that ships.
        samples: n training images.
        classes: their names.
        root: of the data.
        images: training images in all, where ``samples`` were chosen among them.
    """
    inside = os.path.abspath(root)  # noqa: PTH100 (a symbolic link stays as the user named it)
    paths = []
    for sample in samples:
        where = os.path.abspath(sample.path)  # noqa: PTH100
        below = os.path.commonpath([inside, where]) == inside if _same_drive(inside, where) else 0
        paths.append(Path(os.path.relpath(where, inside)).as_posix() if below else where)
    return Neighbours(
        _unit(features).astype(np.float16),
        tuple(paths),
        tuple(SEPARATOR.join(classes[k] for k in sample.targets) for sample in samples),
        inside,
        len(samples) if images is None else images,
    )


def choose(n: int, *, seed: int) -> npt.NDArray[np.int64]:
    """Which of n training images are kept: all, or ``MOST`` drawn at random, in order."""
    if n <= MOST:
        return np.arange(n, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(n, MOST, replace=False))


def features_of(
    model: Classifier,
    samples: Sequence[Sample],
    preprocessing: Preprocessing,
    *,
    folder: Path,
    device: str = "auto",
    threads: int = 2,
    tick: Callable[[int], None] = lambda n: None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(n, D) features of image files under a network, and (n,) which could be read.

    Args:
        model: the network that ships.
        samples: n images.
        preprocessing: its own.
        folder: for a scratch file; it must exist.
        device: where to run.
        threads: for decoding.
        tick: called with the number of images done since the last call.
    """
    engine = TorchEngine(model, device=resolve_device(device))
    found = first_pass(
        engine, samples, preprocessing, folder=folder, loading=Loading(threads, tick=tick)
    )
    return np.array(found.features), found.readable


def _same_drive(one: str, other: str) -> bool:
    return os.path.splitdrive(one)[0] == os.path.splitdrive(other)[0]


def _unit(features: Features) -> npt.NDArray[np.float64]:
    """(n, D) -> the same directions of length 1; zero stays zero."""
    wide = features.astype(np.float64)
    unit: npt.NDArray[np.float64] = wide / np.maximum(
        np.linalg.norm(wide, axis=1, keepdims=True), 1e-12
    )
    return unit


def _as_array(texts: Sequence[str]) -> npt.NDArray[np.bytes_]:
    """File names are bytes, and some are no UTF-8: surrogates keep them."""
    return np.array([text.encode("utf-8", "surrogateescape") for text in texts], dtype=np.bytes_)


def _as_text(array: npt.NDArray[Any]) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "surrogateescape") for text in array.tolist())
