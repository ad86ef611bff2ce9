"""``batch.png``: the first training batch exactly as the network sees it, with its labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plusx.atomic import replacing
from plusx.data import Listing, Preprocessing, view_rng
from plusx.data.loader import decode
from plusx.errors import ArtifactError, UnreadableImage
from plusx.evaluate.training_plots import image_grid
from plusx.fit.inputs import Source, Step, Wrapped
from plusx.fit.trunk import Rows
from plusx.jobs.material import Material
from plusx.jobs.setup import Setup

FILE = "batch.png"
_SHOWN = 16


class Pictured(Wrapped):
    """A source whose very first step is drawn as it goes by; else it is ``source``.

    Args:
        source: gives images as they are.
        file: the picture to write.
        listing: names the classes.
        preprocessing: whose normalisation is undone.
    """

    def __init__(
        self, source: Source, file: Path, *, listing: Listing, preprocessing: Preprocessing
    ) -> None:
        super().__init__(source)
        self._file, self._listing, self._preprocessing = file, listing, preprocessing

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        """See ``Source``."""
        first = epoch == 1 and start == 0
        for inputs, targets, index in self._source.shuffled(epoch, start):
            if first and len(index):
                told = _captions(targets[:_SHOWN], self._listing.classes)
                images = inputs[0][:_SHOWN]
                _write(self._file, images, told, self._preprocessing, "the first training batch")
            first = False
            yield inputs, targets, index


def pictured(
    setup: Setup, material: Material, inputs: Source, *, listing: Listing, train: Rows, folder: Path
) -> Source:
    """``inputs``, so that ``batch.png`` in ``folder`` shows its first batch.

    Behind a frozen trunk the network that learns sees activations: there the picture shows the
    images that these were made of.

    Args:
        setup: of the run.
        material: of the run.
        inputs: the training images.
        listing: names the classes.
        train: positions of the training images.
        folder: of the run.
    """
    if not setup.hardware.processes.world.is_main:
        return inputs
    if setup.unfreeze is None:
        look = setup.preprocessing
        return Pictured(inputs, folder / FILE, listing=listing, preprocessing=look)
    if not (folder / FILE).exists():
        _draw_views(setup, material, listing, train, folder / FILE)
    return inputs


def _draw_views(
    setup: Setup, material: Material, listing: Listing, train: Rows, file: Path
) -> None:
    """The images of the first batch before the frozen trunk."""
    images, told = [], []
    seen = setup.preprocessing
    for place in setup.feed.order(len(train), 1)[:_SHOWN].tolist():
        position = int(train[place])
        sample = listing.samples[position]
        number, name = 1, place
        if material.store is not None:
            number, name = (1 + place) % material.views, material.name_of(position)
        else:
            seen = setup.preprocessing.at_size(setup.recipe.size_at(1, seen.size))
        try:
            image = decode(sample, seen)
        except UnreadableImage:
            continue
        rng = view_rng(setup.recipe.seed, number, name)
        augment = setup.augmentation
        plain = material.store is not None and number == 0
        images.append(seen(image) if plain else augment(image, seen, rng=rng))
        told.append(";".join(listing.classes[k] for k in sample.targets))
    if images:
        title = "the first training batch, before the frozen trunk"
        _write(file, torch.stack(images), told, seen, title)


def _captions(targets: Tensor, classes: Sequence[str]) -> list[str]:
    """Targets as the loss gets them, in words: classes, and their shares where they are mixed."""
    if targets.ndim == 3:  # a teacher's answers come second
        targets = targets[:, 0]
    if targets.ndim == 1:
        return [classes[int(k)] for k in targets]
    found = []
    for row in targets.float():
        parts = [(float(row[k]), classes[k]) for k in (row >= 0.005).nonzero().flatten().tolist()]
        shown = (name if share >= 0.995 else f"{name} {share:.2f}"
                 for share, name in sorted(parts, reverse=True)[:3])  # fmt: skip
        found.append(" + ".join(shown) or "none")
    return found


def _write(
    file: Path, images: Tensor, captions: Sequence[str], preprocessing: Preprocessing, title: str
) -> None:
    """Raises ArtifactError where the disk is full."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (preprocessing.mean,
                                                                  preprocessing.std))  # fmt: skip
    bytes_ = ((images.float().cpu() * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = bytes_.permute(0, 2, 3, 1).numpy()
    if pixels.shape[3] != 3:  # the first band stands for all
        pixels = np.repeat(pixels[..., :1], 3, axis=3)
    try:
        with replacing(file) as beside:
            beside.write_bytes(image_grid(pixels, captions, title=title))
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be written: {error.strerror}") from error
