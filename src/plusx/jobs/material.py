"""What is computed once for all trainings of a run: features, and activations of the trunk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from plusx.data import BadImage, Listing, Sample, drop
from plusx.data.records import target_array
from plusx.data.remarks import Remarks
from plusx.engines import TorchEngine
from plusx.fit.features import FirstPass, first_pass
from plusx.fit.inputs import CachedViews, Feed, Inputs, Source, StreamedImages
from plusx.fit.trunk import ActivationShape, ActivationStore, Rows
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk

VIEWS = 4
"""Views of a training image that are cached where there is room: the plain one, the rest augmented.
An epoch shows one of them."""


@dataclass(frozen=True)
class Material:
    """What one pass over all images of the listing gave.

    Positions are those in ``setup.listing.samples``; view v of position p is row v * n + p.

    Attributes:
        bad: unreadable images, those that the audit found included.
        engine: the frozen backbone, split before the blocks to train; None from scratch.
        first: features of every image; None from scratch.
        store: activations at the split; None where they are streamed or not needed.
        views: in the store.
    """

    bad: tuple[BadImage, ...]
    engine: TorchEngine | None = None
    first: FirstPass | None = None
    store: ActivationStore | None = None
    views: int = 0

    def positions(self, listing: Listing, *splits: str) -> Rows:
        """Positions of the readable images of these splits in ``listing.samples``."""
        unreadable = {item.path for item in self.bad}
        found = [
            i
            for i, sample in enumerate(listing.samples)
            if sample.split in splits and sample.path not in unreadable
        ]
        return np.array(found, dtype=np.int64)


def gather(setup: Setup, folder: Path, talk: Talk) -> Material:
    """Run every image through the frozen backbone once, before any training; unreadable ones,
    those that the audit found included, are said.

    Raises:
        DataError: a class or a split has no readable image.
    """
    known, remarks = () if setup.audit is None else setup.audit.bad, Remarks()
    if setup.options.from_scratch:
        material = Material(known)
    else:
        material = _run_backbone(setup, folder, talk, remarks)
        material = replace(material, bad=known + material.bad)
    for line in remarks.lines():
        talk.note(line)
    for item in material.bad:
        talk.note(f"left out: {item.path}: {item.reason}")
    drop(setup.listing, material.bad)  # raises where nothing usable is left
    if material.store is not None:
        _add_views(setup, material, talk)
    return material


def source(setup: Setup, material: Material, positions: Rows, *, feed: Feed, talk: Talk) -> Source:
    """The images at ``positions`` as the network to train takes them."""
    samples = [setup.listing.samples[p] for p in positions]
    if material.store is not None:
        n = len(setup.listing.samples)
        rows = np.arange(material.views)[:, None] * n + positions
        targets = target_array(samples, len(setup.listing.classes), setup.listing.task)
        return CachedViews(material.store, rows, targets, feed=feed)
    trunk = None if setup.unfreeze is None or material.engine is None else material.engine.trunk
    return _stream(setup, samples, feed, talk, trunk)


def open_backbone(
    setup: Setup, folder: Path, note: Callable[[str], None]
) -> tuple[TorchEngine, ActivationStore | None, int]:
    """The frozen backbone, room for its activations, and how many views fit; from scratch there
    is neither room nor need."""
    samples = setup.listing.samples
    engine = TorchEngine(
        setup.network.model,
        device=setup.hardware.device,
        dtype=setup.hardware.dtype,
        top_blocks=setup.unfreeze or 0,
    )
    if not setup.unfreeze:
        return engine, None, 0
    shape = _shape(engine, setup)
    # A full disk kills a process that writes through a memory map, so some of it is left free.
    allowed = min(setup.options.cache_gib * 2**30, 0.9 * shutil.disk_usage(folder).free)
    room = int(allowed // (shape.row_bytes * len(samples)))
    views = min(room, setup.options.views or VIEWS, setup.recipe.epochs)
    if views:
        return engine, ActivationStore(folder, views * len(samples), shape), views
    gib = shape.row_bytes * len(samples) / 2**30
    note(
        f"the trunk's activations take {gib:.2g} GiB, more than --cache-gib and the disk allow "
        f"({allowed / 2**30:.2g} GiB): the frozen trunk runs every epoch instead"
    )
    return engine, None, 0


def _run_backbone(setup: Setup, folder: Path, talk: Talk, remarks: Remarks) -> Material:
    engine, store, views = open_backbone(setup, folder, talk.note)
    with talk.phase("features", len(setup.listing.samples)) as tick:
        first = first_pass(
            engine,
            setup.listing.samples,
            setup.preprocessing,
            folder=folder,
            store=store,
            threads=setup.threads,
            tick=lambda n: tick(n, ""),
            remarks=remarks,
        )
    return Material(first.bad, engine, first, store, views)


def _add_views(setup: Setup, material: Material, talk: Talk) -> None:
    """Augmented views of the images that may be trained on, through the trunk into the store."""
    assert material.store is not None
    assert material.engine is not None
    n = len(setup.listing.samples)
    wanted = ("train", "val") if setup.options.folds else ("train",)
    positions = material.positions(setup.listing, *wanted)
    samples = [setup.listing.samples[p] for p in positions]
    images = _stream(setup, samples, setup.feed, talk, material.engine.trunk)
    with talk.phase("views", (material.views - 1) * len(samples)) as tick:
        for view in range(1, material.views):
            for (activation, pooled), _, index in images.view(view):
                material.store.write(view * n + positions[index], activation, pooled)
                tick(len(index), f"view {view + 1} of {material.views}")


def _stream(
    setup: Setup,
    samples: Sequence[Sample],
    feed: Feed,
    talk: Talk,
    trunk: Callable[[torch.Tensor], Inputs] | None,
) -> StreamedImages:
    def complain(bad: Sequence[BadImage]) -> None:
        for item in bad:
            talk.note(f"left out from now on or for this epoch: {item.path}: {item.reason}")

    return StreamedImages(
        samples,
        setup.preprocessing,
        targets=target_array(samples, len(setup.listing.classes), setup.listing.task),
        augmentation=setup.augmentation,
        feed=feed,
        trunk=trunk,
        on_bad=complain,
    )


def _shape(engine: TorchEngine, setup: Setup) -> ActivationShape:
    size = setup.preprocessing.size
    activation, pooled = engine.trunk(torch.zeros(1, setup.preprocessing.channels, size, size))
    channels, height, width = activation.shape[1:]
    return ActivationShape((channels, height, width), pooled.shape[1], activation.dtype)
