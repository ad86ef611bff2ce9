"""What is computed once for all trainings of a run: features, and activations of the trunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from plusx.data import BadImage, Listing, Sample, drop
from plusx.data.records import target_array
from plusx.data.remarks import Remarks
from plusx.engines.openvino_split import TrunkRefused
from plusx.engines.split import SplitEngine
from plusx.fit.cache import FULL
from plusx.fit.cache_rows import Keys
from plusx.fit.features import FirstPass, Loading, cached_pass, first_pass
from plusx.fit.inputs import CachedViews, Feed, Inputs, Source, StreamedImages
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.trunk import ActivationStore, Rows
from plusx.jobs.cached import KeptTrunk, open_kept, trained_on
from plusx.jobs.kept_features import say_waiting, take_stock
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk


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
        about: what was resolved, for ``config.toml``.
        keys: content of each image, from which the views of the store are drawn.
    """

    bad: tuple[BadImage, ...]
    engine: SplitEngine | None = None
    first: FirstPass | None = None
    store: ActivationStore | None = None
    views: int = 0
    about: dict[str, object] = field(default_factory=lambda: {"views": 0})
    keys: Keys | None = None

    def name_of(self, position: int) -> int:
        """The number from which the views in the store of an image are drawn."""
        return position if self.keys is None else _names(self.keys[position : position + 1])[0]

    def positions(self, listing: Listing, *splits: str) -> Rows:
        """Positions of the readable images of these splits in ``listing.samples``."""
        unreadable = {item.path for item in self.bad}
        found = [
            i
            for i, sample in enumerate(listing.samples)
            if sample.split in splits and sample.path not in unreadable
        ]
        return np.array(found, dtype=np.int64)


def gather(setup: Setup, folder: Path, talk: Talk, *, reuse: bool = True) -> Material:
    """Run every image through the frozen backbone once, before any training; unreadable ones,
    those that the audit found included, are said.

    Args:
        setup: of the run.
        folder: for what is removed at its end.
        talk: where progress is said.
        reuse: use what earlier runs kept, and keep it for later ones; False where the time that
            it takes is measured.

    Raises:
        DataError: a class or a split has no readable image.
    """
    known = () if setup.audit is None else setup.audit.bad
    if setup.options.from_scratch:
        material = Material(known)
    else:
        material = _run_backbone(setup, folder, talk, reuse=reuse)
        material = replace(material, bad=known + material.bad)
    for item in material.bad:
        talk.note(f"left out: {item.path}: {item.reason}")
    drop(setup.listing, material.bad)  # raises where nothing usable is left
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


def _run_backbone(
    setup: Setup, folder: Path, talk: Talk, *, reuse: bool, plainly: bool = False
) -> Material:
    kept = open_kept(setup, folder, talk, reuse=reuse, plainly=plainly)
    try:
        first = _first(setup, kept, folder, talk)
        bad = first.bad + (() if kept.store is None else _add_views(setup, kept, first, talk))
    except TrunkRefused as error:
        talk.note(f"openvino cannot run the frozen trunk ({error}): torch does")
        kept.without()
        return _run_backbone(setup, folder, talk, reuse=reuse, plainly=True)
    except OSError as error:
        if error.errno not in FULL or kept.features is None:
            raise
        talk.note(
            f"{kept.slots[0].folder.parent}: the disk is full: no trunk activations are kept, the "
            "frozen trunk runs every epoch instead"
        )
        kept = kept.without()
        first = _first(setup, kept, folder, talk)
        bad = first.bad
    return Material(bad, kept.engine, first, kept.store, kept.views, kept.table(), kept.keys)


def _first(setup: Setup, kept: KeptTrunk, folder: Path, talk: Talk) -> FirstPass:
    """Features of every image, and its activation without augmentation where these are kept."""
    samples, remarks = setup.listing.samples, Remarks()
    found: FirstPass
    with talk.phase("features", len(samples)) as tick, ExitStack() as locks:
        loading = Loading(setup.threads, tick=lambda n: tick(n, ""), remarks=remarks)
        if kept.features is None:
            found = first_pass(
                kept.engine, samples, setup.preprocessing, folder=folder, loading=loading
            )
        else:
            _take_stock(setup, kept, locks, talk, remarks)
            found = cached_pass(
                kept.engine,
                samples,
                setup.preprocessing,
                folder=folder,
                features=kept.features,
                store=kept.store,
                loading=loading,
            )
    for line in remarks.lines():
        talk.note(line)
    return found


def _take_stock(
    setup: Setup, kept: KeptTrunk, locks: ExitStack, talk: Talk, remarks: Remarks
) -> None:
    """Become the one that writes what lacks, and say what is used again."""
    everything = np.arange(len(setup.listing.samples), dtype=np.int64)
    parts: dict[str, KeyedRows] = {}
    if kept.features is not None:
        parts["features"] = kept.features
    if kept.store is not None:
        parts["trunk activations"] = kept.store.plain
    take_stock(parts, everything, locks, talk)
    _remark_reused(setup, list(parts.values()), remarks)


def _add_views(setup: Setup, kept: KeptTrunk, first: FirstPass, talk: Talk) -> tuple[BadImage, ...]:
    """Augmented views of the images that may be trained on, through the trunk into the store;
    those that cannot be read any more."""
    store = kept.store
    if store is None or store.augmented is None:
        return ()
    trained = trained_on(setup)
    trained = trained[first.readable[trained]]
    lost: list[BadImage] = []
    total = (store.views - 1) * len(trained)
    with talk.phase("views", total) as tick, ExitStack() as locks:
        if any(len(store.augmented.missing(view, trained)) for view in store.augmented.views):
            locks.enter_context(store.augmented.writing(lambda: say_waiting(talk)))
        for view in store.augmented.views:
            run = store.augmented.missing(view, trained)
            tick(len(trained) - len(run), "")
            samples = [setup.listing.samples[p] for p in run]
            images = StreamedImages(
                samples,
                setup.preprocessing,
                targets=np.zeros(len(run), dtype=np.int64),
                augmentation=setup.augmentation,
                feed=setup.feed,
                trunk=kept.engine.trunk,
                names=_names(kept.keys[run]),
                on_bad=lost.extend,
            )
            for (activation, pooled), _, index in images.view(view):
                store.write(view, run[index], activation, pooled)
                tick(len(index), f"view {view + 1} of {store.views}")
    gone = {item.path for item in lost}
    return tuple(item for item in dict.fromkeys(lost) if item.path in gone)


def _names(keys: Keys) -> list[int]:
    """A whole number for each image, from its content: its views do not depend on the others."""
    numbers: list[int] = np.ascontiguousarray(keys).view("<u8")[::2].tolist()
    return numbers


def _remark_reused(setup: Setup, parts: Sequence[KeyedRows], remarks: Remarks) -> None:
    """What is to be said of images that are not decoded now; the audit has looked at them."""
    if setup.audit is None:
        return
    known = np.logical_and.reduce([part.known(0) for part in parts])
    seen = {s.path for s, k in zip(setup.listing.samples, known, strict=True) if k}
    table = setup.audit.table
    for path, number in zip(table.paths, table.rows["remark"].tolist(), strict=True):
        if number and path in seen:
            remarks.add(table.remark_sets[number])


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
        sizes=lambda epoch: setup.recipe.size_at(epoch, setup.preprocessing.size),
        feed=feed,
        trunk=trunk,
        on_bad=complain,
    )
