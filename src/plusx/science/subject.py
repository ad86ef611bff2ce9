"""What a study looks at: a trained network, and labelled images as one tensor.

Images are decoded and preprocessed once and stay in memory, so that a thousand nets can be run on
the very same pixels.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from plusx.data import Preprocessing, Sample, align, load_batches, plain_reader, read_listing
from plusx.errors import DataError, UsageError
from plusx.model.classifier import Classifier
from plusx.runtime import cpu_count
from plusx.weights import create_network, load_artifact
from plusx.weights.artifact import find_artifact

Tick = Callable[[int], None]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to study.

    Attributes:
        name: of its spec.
        model: in evaluation mode, float32, without gradients.
        preprocessing: what it was made for.
        classes: in the order of the logits; None where its weights name none.
        origin: where its weights come from.
        sha256: of the weights; None for random ones.
        notes: what was assumed of the weights, one line each.
    """

    name: str
    model: Classifier
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    origin: str
    sha256: str | None
    notes: tuple[str, ...] = ()

    def settings(self) -> dict[str, object]:
        """What a result says of it."""
        return {"net": self.name, "weights": self.origin, "weights_sha256": self.sha256}


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images, ready for the network.

    Attributes:
        images: (N, C, H, W) float32, preprocessed.
        targets: (N,) int64.
        source: the folder or file they come from.
        split: which part of it.
        bad: how many could not be read and were left out.
        groups: of each image (a patient, a scene); None where the data names none.
    """

    images: Tensor
    targets: Tensor
    source: str
    split: str
    bad: int = 0
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def settings(self) -> dict[str, object]:
        """What a result says of them."""
        return {"data": self.source, "split": self.split, "images": len(self), "bad": self.bad}


@dataclass(frozen=True)
class Asked:
    """Where a net and its images are: what another process needs to open them as well.

    Attributes:
        what, model: see ``open_subject``.
        data, limit, split, seed, match: see ``read_images``.
    """

    what: str
    model: str | None
    data: str
    limit: int | None = None
    split: str | None = None
    seed: int = 0
    match: bool = True


@functools.lru_cache(maxsize=4)
def opened(asked: Asked) -> tuple[Subject, Images]:
    """The net and its images; a process opens them once."""
    subject = open_subject(asked.what, model=asked.model, seed=asked.seed)
    images = read_images(
        asked.data, subject, limit=asked.limit, split=asked.split, seed=asked.seed,
        match=asked.match,
    )  # fmt: skip
    return subject, images


def open_subject(what: PathLike, *, model: str | None = None, seed: int = 0) -> Subject:
    """A run, a model folder, a weights file, or ``none`` for random weights.

    Args:
        what: where the weights are.
        model: the variant's name, where the weights do not say it.
        seed: of random weights.

    Raises:
        ArtifactError: a model folder that cannot be read.
        UsageError: a network for several labels an image.
        WeightsError: weights that cannot be used.
    """
    path = Path(what)
    if model is None and path.is_dir() and find_artifact(path) is not None:
        artifact = load_artifact(path)
        if artifact.task == "multi":
            raise UsageError(
                f"{path}: has several labels an image; studies count errors of one label an image"
            )
        return Subject(
            artifact.spec.name, _still(artifact.model), artifact.preprocessing, artifact.classes,
            str(path), artifact.sha256,
        )  # fmt: skip
    network = create_network(model, weights=str(what), seed=seed)
    return Subject(
        network.model.spec.name, _still(network.model), network.preprocessing,
        network.class_names, network.origin, network.sha256, network.notes,
    )  # fmt: skip


def read_images(
    data: PathLike,
    subject: Subject,
    *,
    limit: int | None = None,
    split: str | None = None,
    seed: int = 0,
    match: bool = True,
    tick: Tick | None = None,
) -> Images:
    """Read labelled images as that network wants them, in random order, so that the first few of
    them are of all classes. Classes are matched by name where it has names, else by their order.

    Args:
        data: what ``read_listing`` takes.
        subject: whose preprocessing and classes.
        limit: at most so many; with the same seed they are the first of those of a larger number.
        split: ``train``, ``val``, ``test`` or ``all``; by default ``test`` where the data has
            one, else ``val``, else all.
        seed: of the order.
        match: whether the classes must be the network's; else they are numbered as the data has
            them, for studies that do not ask for the network's answer.
        tick: called with the number of images read since.

    Raises:
        DataError: no image, one class, or classes that the network does not know.
        UsageError: no such split, or fewer than 1 image asked for.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--images {limit} must be at least 1")
    samples, chosen = _samples(data, subject, split, match=match)
    order = np.random.default_rng(seed).permutation(len(samples))[:limit]
    samples = [samples[at] for at in order]
    targets = np.array([sample.target for sample in samples], np.int64)
    batches, index, bad = [], [], 0
    reader = plain_reader(subject.preprocessing)
    for batch in load_batches(samples, reader, batch_size=64, threads=cpu_count()):
        batches.append(batch.images)
        index.append(batch.index)
        bad += len(batch.bad)
        if tick is not None:
            tick(len(batch.index) + len(batch.bad))
    kept = torch.cat(index)
    if not len(kept):
        raise DataError(f"{os.fspath(data)}: none of {len(samples)} images can be read")
    return Images(
        torch.cat([batch for batch in batches if len(batch)]),
        torch.from_numpy(targets)[kept],
        os.fspath(data),
        chosen,
        bad,
        _groups([samples[at] for at in kept.tolist()]),
    )


def identity(subject: Subject, images: Images) -> dict[str, str]:
    """What names the net and the images by content, for a ledger's keys."""
    state = subject.model.state_dict()
    return {
        "net": _digest([state[name] for name in sorted(state)]),
        "images": _digest([images.images, images.targets]),
    }


def apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The same, where several have one name with a number behind it: ``resnet18 (2)``."""
    seen: dict[str, int] = {}
    found = []
    for subject in subjects:
        seen[subject.name] = number = seen.get(subject.name, 0) + 1
        name = subject.name if number == 1 else f"{subject.name} ({number})"
        found.append(replace(subject, name=name))
    return found


def subset(images: Images, n: int) -> Images:
    """The first ``n`` of them."""
    groups = None if images.groups is None else images.groups[:n]
    return replace(images, images=images.images[:n], targets=images.targets[:n], groups=groups)


def _groups(samples: Sequence[Sample]) -> tuple[str, ...] | None:
    """Of each; an image without one is its own."""
    if all(sample.group is None for sample in samples):
        return None
    return tuple(f"file {s.path}" if s.group is None else f"group {s.group}" for s in samples)


def _samples(
    data: PathLike, subject: Subject, split: str | None, *, match: bool
) -> tuple[list[Sample], str]:
    listing = read_listing(data, training=False, task="single")
    if len(listing.classes) < 2:
        raise DataError(
            f"{listing.source}: has one class ({', '.join(listing.classes)}), of which nothing can "
            "be told apart; a study needs images of at least two classes"
        )
    if not match:
        pass
    elif subject.classes is not None:
        listing, _ = align(listing, subject.classes)
    elif len(listing.classes) != subject.model.spec.classes:
        raise DataError(
            f"{listing.source}: has {len(listing.classes)} classes, {subject.name} of "
            f"{subject.origin} has {subject.model.spec.classes} without names; give data of as many"
        )
    present = {sample.split for sample in listing.samples}
    chosen = split or next((name for name in ("test", "val") if name in present), "all")
    samples = listing.samples if chosen == "all" else listing.part(chosen)
    if not samples:
        known = ", ".join(sorted(str(name) for name in present if name)) or "none"
        raise UsageError(f"--split {split!r}: not in the data; it has: {known}; or all")
    return list(samples), chosen


def _still(model: nn.Module) -> Classifier:
    assert isinstance(model, Classifier)
    return model.eval().requires_grad_(False).float()


def _digest(tensors: Sequence[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(str(tuple(tensor.shape)).encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()[:32]
