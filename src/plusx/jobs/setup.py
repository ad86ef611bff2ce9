"""Everything a training run needs, resolved once: what was asked for becomes what is done."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from plusx.data import AnyAugmentation, Listing, Preprocessing, read_listing, split_listing
from plusx.data.classes import quoted
from plusx.data.records import target_array
from plusx.errors import DataError, MissingExtra, UsageError
from plusx.evaluate.wish import Wish
from plusx.fit.criterion import check_loss
from plusx.fit.distributed import Processes
from plusx.fit.inputs import Feed
from plusx.fit.loop import Hardware
from plusx.fit.recipe import Recipe
from plusx.fit.sampling import Sampling
from plusx.fit.stop import Stop
from plusx.jobs.audit import Audit
from plusx.jobs.leaks import divide
from plusx.jobs.options import TrainOptions
from plusx.jobs.origin import fingerprint, named_files
from plusx.jobs.resolving import resolve_augmentation, resolve_recipe
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count, processor, resolve_device, resolve_precision, world
from plusx.weights import Network, create_network


@dataclass(frozen=True)
class Setup:
    """A run's inputs and numbers.

    Attributes:
        options: as asked for.
        listing: every image that the audit could read, with its split.
        network: the backbone with a fresh head for the listing's classes.
        preprocessing: what the network sees of an image.
        augmentation: what the loop sees of it.
        unfreeze: last blocks to train, or None for the whole network.
        recipe: the loop's numbers.
        hardware: device and precision of the loop.
        threads: for decoding.
        audit: of all images; None where only an estimate is wanted.
        stop: asked whether training shall end.
    """

    options: TrainOptions
    listing: Listing
    network: Network
    preprocessing: Preprocessing
    augmentation: AnyAugmentation
    unfreeze: int | None
    recipe: Recipe
    hardware: Hardware
    threads: int
    audit: Audit | None = None
    stop: Stop = dataclasses.field(default_factory=Stop)

    @property
    def feed(self) -> Feed:
        """How images are dealt out to this process."""
        here = self.hardware.processes.world
        return Feed(self.recipe.batch_size, self.threads, self.recipe.seed, here)

    def tables(self) -> dict[str, dict[str, object]]:
        """Every effective value, for ``config.toml``."""
        counts = {f"{split}_images": len(self.listing.part(split))
                  for split in ("train", "val", "test")}  # fmt: skip
        spec = self.network.model.spec
        return {
            "asked": dataclasses.asdict(self.options),
            "paths": named_files(self.options),
            "data": {
                "root": self.listing.root,
                "task": self.listing.task,
                "classes": self.listing.classes,
                "fingerprint": None if self.audit is None else fingerprint(self.audit),
                **counts,
            },
            "network": {
                "weights": self.network.origin,
                "sha256": self.network.sha256,
                "trainable_blocks": "all" if self.unfreeze is None else self.unfreeze,
                **spec.to_dict(),
            },
            "preprocessing": self.preprocessing.to_dict(),
            "augmentation": dataclasses.asdict(self.augmentation),
            "recipe": dataclasses.asdict(self.recipe),
            "hardware": {
                "device": str(self.hardware.device),
                "precision": str(self.hardware.dtype).removeprefix("torch."),
                "threads": self.threads,
                "compile": self.hardware.compiles,
                "torch_threads": torch.get_num_threads(),
                "processes": self.hardware.processes.world.size,
                "processor": processor(),
            },
        }


def prepare(
    options: TrainOptions,
    talk: Talk,
    *,
    examine: Callable[[Listing, Preprocessing], Audit] | None = None,
    processes: Processes | None = None,
) -> Setup:
    """Resolve the options against data and weights; what was decided is said.

    Args:
        options: as asked for.
        talk: where it is said.
        examine: audits a listing, read as the network will read it, before it is split.
        processes: that train together; by default this one alone.

    Raises:
        PlusxError: the data, the weights or an option cannot be used.
    """
    together = processes or Processes()
    if (count := world().size) != together.world.size:
        raise UsageError(
            f"WORLD_SIZE is {count}, but this runs in one process; start it without torchrun, or "
            "unset WORLD_SIZE"
        )
    given = read_listing(options.data)
    _check_wish(options, given)
    if given.unlabelled:
        talk.note(f"images left out because they have no label yet: {given.unlabelled}")
    if given.ignored:
        talk.note(f"{given.ignored} files or rows are no images, or repeat another: left out")
    for name in given.classes:
        if not name.isascii() and name.encode("utf-8", "ignore").decode() != name:
            raise DataError(f"{options.data}: class name {name!r} is not UTF-8; rename it")
    network = create_network(
        options.model,
        weights=options.weights if options.init is None else options.init,
        classes=len(given.classes),
        in_channels=_channels(options),
        image_size=options.image_size,
        seed=options.seed,
    )
    for text in network.notes:
        talk.note(text)
    preprocessing = replace(network.preprocessing, reading=options.reading)
    if options.resize_mode is not None:
        preprocessing = preprocessing.as_mode(options.resize_mode)
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    hardware = Hardware(device, precision, together, compiles=options.compile)
    audit = None if examine is None else examine(given, preprocessing)
    listing = _split(options, given, audit, talk)
    images = len(listing.part("train"))
    unfreeze = _unfreeze(options, network, talk)
    recipe = resolve_recipe(options, images, unfreeze, talk)
    check_loss(recipe.loss, listing.task, recipe=options.recipe)
    _check_whole(options, unfreeze)
    if recipe.balanced:
        Sampling(targets=target_array(listing.part("train"), len(listing.classes), listing.task))
    if together.several:
        if options.compile:
            raise UsageError("--compile is of one process; leave it out")
        _check_share(recipe, together, talk)
    return Setup(
        options=options,
        listing=listing,
        network=network,
        preprocessing=preprocessing,
        augmentation=resolve_augmentation(options, images, preprocessing),
        unfreeze=unfreeze,
        recipe=recipe,
        hardware=hardware,
        threads=options.threads or max(1, cpu_count() // together.world.local_size),
        audit=audit,
    )


def _check_whole(options: TrainOptions, unfreeze: int | None) -> None:
    """Refuse what needs images where a frozen trunk gives activations."""
    for name in ("cutmix", "teacher"):
        if getattr(options, name) and unfreeze is not None:
            raise UsageError(
                f"--{name} {getattr(options, name)} needs images, and behind a frozen trunk there "
                f"are activations; give --unfreeze all, or leave --{name} out"
            )
    if options.init is not None and (unfreeze == 0 or options.weights != "auto"):
        raise UsageError(
            f"--init {options.init} goes on with the training of that run: it gives the weights, "
            "and at least one block is trained; leave --weights out, and --unfreeze 0"
        )
    if options.compile and unfreeze == 0:
        raise UsageError("--compile is of fine-tuning, and --unfreeze 0 fine-tunes no block")
    if options.drop_path and unfreeze == 0:
        raise UsageError("--drop-path drops blocks that are trained, and --unfreeze 0 trains none")


def _check_share(recipe: Recipe, processes: Processes, talk: Talk) -> None:
    size, count = recipe.batch_size, processes.world.size
    if size < count:
        raise UsageError(
            f"--batch-size {size}: {count} processes share the images of a step, so it takes at "
            f"least {count}; give more, or start fewer processes"
        )
    norms = ", BatchNorm over all of them" if recipe.norm == "train" else ""
    talk.note(f"{count} processes share the {size} images of a step{norms}")


def _split(options: TrainOptions, given: Listing, audit: Audit | None, talk: Talk) -> Listing:
    def split(listing: Listing) -> Listing:
        return split_listing(listing, seed=options.seed, val_fraction=options.val_fraction)

    if audit is None:
        listing = split(given)
    else:
        listing = divide(audit, split, allow_leaks=options.allow_leaks, talk=talk)
    if "val" not in {sample.split for sample in given.samples}:
        val, train = len(listing.part("val")), len(listing.part("train"))
        talk.note(
            f"no validation split given: {val} of {val + train} images set aside (stratified, "
            f"seed {options.seed})"
        )
    if listing.task == "multi":
        _check_marks(listing, talk)
    return listing


def _check_wish(options: TrainOptions, listing: Listing) -> None:
    if options.decide is not None and listing.task == "multi":
        raise UsageError(
            f"--decide {options.decide!r}: several labels an image have a threshold for each class "
            "and no other decision; leave it out"
        )
    Wish.parse(options.decide).check(listing.classes)


def check_learnable(listing: Listing, marks: NDArray[np.bool_]) -> None:
    """Refuse training images that all agree on a class.

    Args:
        listing: of task multi.
        marks: (n, K) of the images to learn from.

    Raises:
        DataError: none or all of them have some class.
    """
    count = marks.sum(axis=0)
    for name, n in zip(listing.classes, count.tolist(), strict=True):
        if n in (0, len(marks)):
            every = "every one" if n else "none"
            raise DataError(
                f"{listing.source}: {every} of the {len(marks)} training images has class {name!r}"
                ", so it cannot be learnt; add images of the other kind, or leave the class out"
            )


def _check_marks(listing: Listing, talk: Talk) -> None:
    classes = len(listing.classes)
    check_learnable(listing, target_array(listing.part("train"), classes, "multi").astype(bool))
    for split in ("val", "test"):
        found = target_array(listing.part(split), classes, "multi").astype(bool)
        count = found.sum(axis=0).tolist()
        for problem, wrong in (("has", 0), ("lacks", len(found))):
            names = [n for n, held in zip(listing.classes, count, strict=True) if held == wrong]
            if names and len(found):
                talk.note(f"no image of {split} {problem} {quoted(names)}: figures of such a class "
                          "say nothing there")  # fmt: skip


def _channels(options: TrainOptions) -> int | None:
    bands = options.reading.bands
    if (bands or options.range) and importlib.util.find_spec("rasterio") is None:
        raise MissingExtra("--bands or --range", "geotiff")
    return options.channels if bands is None else len(bands)


def _unfreeze(options: TrainOptions, network: Network, talk: Talk) -> int | None:
    blocks = network.model.spec.blocks
    if options.unfreeze == "all" or options.from_scratch:
        return None
    if options.unfreeze is None:
        return min(2, blocks)
    if options.unfreeze > blocks:
        raise UsageError(
            f"--unfreeze {options.unfreeze}: {network.model.spec.name} has {blocks} blocks; "
            f"give 0 to {blocks}, or all"
        )
    return options.unfreeze
