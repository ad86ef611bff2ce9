"""Which activations a run keeps, where, and how many views of an image."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.engines.split import SplitEngine
from plusx.fit.cache import About, CacheSlot, TrunkCache
from plusx.fit.cache_key import depends, depends_views, file_keys
from plusx.fit.cache_rows import Keys, Rows
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.trunk import ActivationShape, ActivationStore
from plusx.fit.trunk_engine import TrunkEngine, make_trunk, resolve_trunk_engine
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.model.surgery import fold_batchnorm, split_trunk
from plusx.runtime import cache_folder, cache_gib


def default_views(images: int, epochs: int) -> int:
    """Views of a training image where none are asked for: the plain one and augmented ones.

    Each costs one pass through the trunk, which an epoch then saves, so there are never more than
    epochs. Few images are seen often and gain from variety; of many there is variety enough.
    """
    wanted = 4 if images <= 20_000 else 3 if images <= 100_000 else 2
    return min(wanted, epochs)


@dataclass
class KeptTrunk:
    """What a run keeps of its frozen trunk.

    Attributes:
        engine: the frozen backbone, split before the blocks to train.
        chosen: what it runs on.
        keys: (n,) content hashes of the images.
        features: of the whole backbone; None where nothing is kept.
        store: activations at the split; None where they are streamed or not needed.
        slots: all entries in use, features first.
    """

    engine: SplitEngine
    chosen: TrunkEngine
    keys: Keys
    features: KeyedRows | None = None
    store: ActivationStore | None = None
    slots: list[CacheSlot] = field(default_factory=list)

    @property
    def views(self) -> int:
        """In the store."""
        return 0 if self.store is None else self.store.views

    @property
    def folders(self) -> list[Path]:
        """Of the entries in use."""
        return [slot.folder for slot in self.slots]

    def without(self) -> KeptTrunk:
        """The same with nothing kept; what was kept so far is removed, if no other run uses it."""
        for slot in self.slots:
            slot.remove()
        return replace(self, features=None, store=None, slots=[])

    def table(self) -> dict[str, object]:
        """For ``config.toml``."""
        kept = [folder.name for folder in self.folders]
        return {"views": self.views, "entries": kept, "engine": asdict(self.chosen)}


def image_keys(setup: Setup) -> Keys:
    """(n,) content hash of each image of the listing; the audit has read them already."""
    samples = setup.listing.samples
    if setup.audit is None:
        return file_keys([sample.path for sample in samples])
    return setup.audit.table.keys([sample.path for sample in samples])


def open_engine(setup: Setup, *, plainly: bool = False) -> tuple[SplitEngine, TrunkEngine]:
    """The frozen backbone of a run, and what it runs on.

    Args:
        setup: of the run.
        plainly: on torch, whatever would be faster.
    """
    device = setup.hardware.device
    forwards = 0 if plainly else _forwards(setup)
    chosen = resolve_trunk_engine(device, setup.hardware.dtype, forwards=forwards)
    blocks = setup.unfreeze or 0
    return make_trunk(chosen, setup.network.model, device=device, top_blocks=blocks), chosen


def _forwards(setup: Setup) -> int:
    """Images and views to be run if nothing is kept from before."""
    images, trained = len(setup.listing.samples), len(trained_on(setup))
    if not setup.unfreeze:
        return images
    if setup.options.heavy or not setup.options.cache_gib:
        return images * setup.recipe.epochs
    return images + (_wanted_views(setup, trained) - 1) * trained


def _wanted_views(setup: Setup, trained: int) -> int:
    return min(
        setup.options.views or default_views(trained, setup.recipe.epochs), setup.recipe.epochs
    )


def activation_shape(setup: Setup) -> ActivationShape:
    """What the trunk before the blocks to train gives for one image."""
    size, channels = setup.preprocessing.size, setup.preprocessing.channels
    trunk, _ = split_trunk(fold_batchnorm(setup.network.model), setup.unfreeze or 0)
    with torch.no_grad():
        activation, pooled = trunk(torch.zeros(1, channels, size, size))
    channels, height, width = activation.shape[1:]
    return ActivationShape((channels, height, width), pooled.shape[1], setup.hardware.dtype)


def affordable_views(setup: Setup, shape: ActivationShape, images: int, trained: int) -> int:
    """How many views ``--cache-gib`` allows, of those wanted: the plain one of all ``images``, the
    others of the ``trained``; 0 where not even the first fits."""
    if setup.options.heavy:
        return 0
    room = setup.options.cache_gib * 2**30 / shape.row_bytes - images
    fitting = 0 if room < 0 else 1 + int(room // max(1, trained))
    return min(_wanted_views(setup, trained), fitting)


def trained_on(setup: Setup) -> Rows:
    """Positions of the images that some training of the run may learn from."""
    wanted = ("train", "val") if setup.options.folds else ("train",)
    found = [i for i, s in enumerate(setup.listing.samples) if s.split in wanted]
    return np.array(found, dtype=np.int64)


def open_kept(
    setup: Setup, folder: Path, talk: Talk, *, reuse: bool, plainly: bool = False
) -> KeptTrunk:
    """The frozen backbone of a run with what earlier runs kept of it and room for the rest.

    Args:
        setup: of the run; not from scratch.
        folder: of the run; keeps what the user's cache folder cannot.
        talk: where it is said how much is used again, and what does not fit.
        reuse: False uses nothing of earlier runs and leaves nothing to later ones.
        plainly: run it on torch, whatever would be faster.
    """
    engine, chosen = open_engine(setup, plainly=plainly)
    nothing = KeptTrunk(engine, chosen, image_keys(setup))
    if not setup.options.cache_gib:
        if setup.unfreeze:
            talk.note("--cache-gib 0: the frozen trunk runs every epoch")
        return nothing
    own = TrunkCache(folder / "trunk", int(setup.options.cache_gib * 2**30))
    if not reuse:
        return _open_in(own, setup, nothing, talk)
    most = int(max(cache_gib(), setup.options.cache_gib) * 2**30)
    try:
        return _open_in(TrunkCache(cache_folder() / "trunk", most), setup, nothing, talk)
    except OSError as error:
        talk.say(
            f"{cache_folder()}: no trunk activations are kept there for the next run "
            f"({error.strerror or error})"
        )
        return _open_in(own, setup, nothing, talk)


def _open_in(cache: TrunkCache, setup: Setup, nothing: KeptTrunk, talk: Talk) -> KeptTrunk:
    kept = replace(nothing, slots=[])
    look, spec = setup.preprocessing, setup.network.model.spec
    about = depends(setup.network.model, 0, look, nothing.chosen)
    kept.features = _rows(cache, setup, kept, ("features", about, 4 * spec.feature_channels))
    everything = np.arange(len(kept.keys))
    lacking = len(kept.features.missing(0, everything)) * kept.features.table.row_bytes
    if heavy := setup.options.heavy if setup.unfreeze else "":
        talk.note(f"{heavy} shows every image anew: no activations are kept, the frozen trunk runs "
                  "every epoch")  # fmt: skip
    if heavy or not setup.unfreeze:
        room = cache.make_room(lacking, kept.folders)
        return kept if room >= lacking else kept.without()
    shape = activation_shape(setup)
    trained = trained_on(setup)
    views = affordable_views(setup, shape, len(kept.keys), len(trained))
    room = 0
    if views:
        store = _store(cache, setup, kept, shape, views)
        needed = _lacking(store, trained) + lacking
        room = cache.make_room(needed, kept.folders)
        while room < needed and views:
            views -= 1
            store = store.first(views)
            needed = _lacking(store, trained) + lacking if views else 0
        kept.store = store if views else None
    if kept.store is not None:
        gib = shape.row_bytes * (len(everything) + (views - 1) * len(trained)) / 2**30
        talk.say(
            f"cache: {views} view{'s' * (views > 1)} of each training image, the plain one "
            f"included; {gib:.2g} GiB in {cache.folder}"
        )
    else:
        _say_streams(setup, shape, room, talk)
        for slot in kept.slots[1:]:
            slot.remove()
        del kept.slots[1:]
    return kept


def _store(
    cache: TrunkCache, setup: Setup, kept: KeptTrunk, shape: ActivationShape, views: int
) -> ActivationStore:
    assert setup.unfreeze is not None
    look = setup.preprocessing
    about = depends(setup.network.model, setup.unfreeze, look, kept.chosen)
    plain = _rows(cache, setup, kept, ("plain", about, shape.row_bytes))
    augmented = None
    if views > 1:
        varied = depends_views(about, setup.augmentation, setup.recipe.seed)
        of_views = ("views", varied, shape.row_bytes)
        augmented = _rows(cache, setup, kept, of_views, range(1, views))
    return ActivationStore(shape, len(kept.keys), plain=plain, augmented=augmented)


def _rows(
    cache: TrunkCache,
    setup: Setup,
    kept: KeptTrunk,
    what: tuple[str, dict[str, Any], int],
    views: range = range(1),
) -> KeyedRows:
    """Rows of an entry that is opened and added to ``kept.slots``."""
    kind, about, row_bytes = what
    net, data = setup.network.model.spec.name, Path(setup.listing.root).name
    slot = cache.open(About(kind, about, row_bytes, net, data), kept.keys)
    kept.slots.append(slot)
    return KeyedRows(slot, kept.keys, views)


def _lacking(store: ActivationStore, trained: Rows) -> int:
    """Bytes that are not there yet."""
    rows = len(store.plain.missing(0, np.arange(store.images)))
    rows += sum(len(store.of(view).missing(view, trained)) for view in range(1, store.views))
    return rows * store.shape.row_bytes


def _say_streams(setup: Setup, shape: ActivationShape, room: int, talk: Talk) -> None:
    gib = shape.row_bytes * len(setup.listing.samples) / 2**30
    allowed = min(setup.options.cache_gib, room / 2**30 if room else setup.options.cache_gib)
    talk.note(
        f"the trunk's activations take {gib:.2g} GiB, more than --cache-gib and the disk allow "
        f"({allowed:.2g} GiB): the frozen trunk runs every epoch instead"
    )
