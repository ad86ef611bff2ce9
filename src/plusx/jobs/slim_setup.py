"""What slimming begins with: the parent, its images, and what each of them may say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx.data import Augmentation, Listing, Sample, drop, read_listing, split_listing
from plusx.data.classes import quoted
from plusx.data.records import target_array
from plusx.errors import ArtifactError, DataError, UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.selection import halves
from plusx.fit.loop import Hardware
from plusx.fit.recipe import Recipe, default_lr
from plusx.fit.removal import removable
from plusx.fit.rows import sample
from plusx.fit.trunk import Rows
from plusx.jobs.auditing import auditor
from plusx.jobs.fitting import validation
from plusx.jobs.leaks import divide
from plusx.jobs.material import Material
from plusx.jobs.options import TrainOptions
from plusx.jobs.run import read_config
from plusx.jobs.setup import Setup
from plusx.jobs.slim_options import SlimOptions
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count, resolve_device, resolve_precision
from plusx.weights import Artifact, Network, load_artifact

RANKED = 128
"""Images that rank, at most: each round runs half of the network on them for every block left."""

FEWEST = 64
"""Where fewer choose, training images rank beside them: a rank needs likelihoods, not accuracy."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Who is slimmed, on which images.

    Positions are those in ``setup.listing.samples``.

    Attributes:
        options: as asked for.
        parent: the artifact to slim; stays as it is.
        setup: as a training of the parent has it.
        material: which images cannot be read.
        train: to tune on.
        ranks: to rank blocks on.
        chooses: to judge the allowance on.
        reports: that take no part in slimming.
        tested: whether these are a test split; else they are a half of validation.
        trained: the options of the training, as ``config.toml`` has them.
    """

    options: SlimOptions
    parent: Artifact
    setup: Setup
    material: Material
    train: Rows
    ranks: Rows
    chooses: Rows
    reports: Rows
    tested: bool
    trained: dict[str, Any]

    def samples(self, rows: Rows) -> list[Sample]:
        """Those at ``rows``."""
        return [self.setup.listing.samples[p] for p in rows]

    def targets(self, rows: Rows) -> np.ndarray:
        """(n,) int64."""
        return target_array(self.samples(rows), len(self.parent.classes), "single")

    def unanswered(self, rows: Rows) -> Predictions:
        """The images at ``rows`` as predictions without answers."""
        return validation(self.setup.listing, rows)

    @property
    def views(self) -> int:
        """Of each training image; never more than epochs, of which each shows one."""
        few = min(8, max(2, 4_000 // max(1, len(self.train))))
        return min(self.options.views or few, self.setup.recipe.epochs)

    @property
    def who_reports(self) -> str:
        """In words."""
        if self.tested:
            return "the test split, which took no part"
        return "the half of validation that did not choose (there is no test split)"


def plan(options: SlimOptions, talk: Talk) -> Plan:
    """Read the parent and its images; give each image its part.

    Raises:
        PlusxError: the run cannot be slimmed, or its images cannot be used.
    """
    parent = load_artifact(Path(options.run))
    if parent.task != "single":
        raise UsageError(f"{options.run}: gives several labels an image; slim needs one")
    if not removable(parent.model):
        raise UsageError(
            f"{options.run}: {parent.spec.name} has no block that can go: only a residual block "
            "that keeps the shape, with an identity for its shortcut and company in its stage, can"
        )
    asked = _asked(options, parent)
    given = read_listing(asked.data)
    _check_classes(asked.data, given, parent)
    audit = auditor(asked, talk)(given, parent.preprocessing)
    listing = divide(
        audit,
        lambda one: split_listing(one, seed=asked.seed, val_fraction=asked.val_fraction),
        allow_leaks=asked.allow_leaks,
        talk=talk,
    )
    for item in audit.bad:
        talk.note(f"left out: {item.path}: {item.reason}")
    drop(listing, audit.bad)  # raises where nothing usable is left
    material = Material(audit.bad)
    rows = {split: material.positions(listing, split) for split in ("train", "val", "test")}
    _compare_with_training(options, listing, rows, talk)
    return _with_parts(options, parent, asked, _setup(options, asked, parent, listing),
                       material=material, rows=rows)  # fmt: skip


def _asked(options: SlimOptions, parent: Artifact) -> TrainOptions:
    """The training's options, with the data to use now."""
    config = parent.path.parent / "config.toml"
    tables = read_config(config) if config.is_file() else {}
    told = tables.get("asked") or tables.get("trained") or {}
    data = options.data or told.get("data")
    if data is None:
        raise UsageError(f"{options.run}: does not say what it was trained on; give DATA: "
                         f"plusx slim {options.run} DATA")  # fmt: skip
    if options.data is None and not Path(data).exists():
        raise DataError(
            f"{data}: the images that {options.run} was trained on are gone; give DATA: "
            f"plusx slim {options.run} DATA"
        )
    now = {"data": data, "out": None, "overwrite": False, "folds": 0, "device": options.device,
           "precision": options.precision, "threads": options.threads}  # fmt: skip
    known = {field.name for field in dataclasses.fields(TrainOptions)}
    try:
        return TrainOptions(**({k: v for k, v in told.items() if k in known} | now))
    except TypeError as error:
        raise ArtifactError(f"{config}: is damaged: {error}") from error


def _check_classes(data: str, given: Listing, parent: Artifact) -> None:
    if given.task != "single" or given.classes != parent.classes:
        raise DataError(
            f"{data}: has the classes {quoted(given.classes[:10])}, the model "
            f"{quoted(parent.classes[:10])}; give images of the model's classes"
        )


def default_epochs(images: int, batch_size: int) -> int:
    """Of the tuning: few images are seen often, so that there are steps enough to learn in."""
    return min(40, max(4, round(150 / max(1, images // batch_size))))


def _setup(options: SlimOptions, asked: TrainOptions, parent: Artifact, listing: Listing) -> Setup:
    images = len(listing.part("train"))
    batch = min(options.batch_size, images)
    device = resolve_device(options.device)
    size, channels = parent.preprocessing.size, parent.preprocessing.channels
    return Setup(
        options=asked,
        listing=listing,
        network=Network(
            parent.model,
            parent.preprocessing,
            f"run:{Path(options.run).name}",
            parent.sha256,
            parent.classes,
            (),
        ),
        preprocessing=parent.preprocessing,
        augmentation=Augmentation.light(images, size=size, channels=channels),
        unfreeze=None,
        recipe=Recipe(
            epochs=options.epochs or default_epochs(min(images, options.tune_images), batch),
            batch_size=batch,
            optimizer="adamw",
            lr=options.lr or default_lr("adamw", batch, scratch=False),
            weight_decay=0.05,
            warmup=0.1,
            label_smoothing=0.0,
            patience=0,
            # Behind a frozen trunk the parent's statistics are the better ones (``resolve_norm``).
            norm="eval",
            clip=1.0,
            seed=options.seed,
        ),
        hardware=Hardware(device, resolve_precision(options.precision, device)),
        threads=options.threads or cpu_count(),
    )


def _with_parts(
    options: SlimOptions,
    parent: Artifact,
    asked: TrainOptions,
    setup: Setup,
    *,
    material: Material,
    rows: dict[str, Rows],
) -> Plan:
    chooses, reports, tested = rows["val"], rows["test"], bool(len(rows["test"]))
    if not tested:
        try:
            side = halves(validation(setup.listing, rows["val"]), seed=options.seed)
        except DataError as error:
            raise DataError(
                f"{asked.data}: no test split, and validation cannot be halved into images that "
                f"choose and images that report: {error}"
            ) from error
        chooses, reports = rows["val"][side == 0], rows["val"][side == 1]
    random = np.random.default_rng(options.seed)

    def some(of: Rows, most: int) -> Rows:
        targets = target_array([setup.listing.samples[p] for p in of], len(parent.classes),
                               "single")  # fmt: skip
        return of[sample(targets, most, random)]

    chooses, train = some(chooses, options.images), some(rows["train"], options.tune_images)
    ranks = some(chooses, RANKED)
    if len(ranks) < FEWEST:
        ranks = np.concatenate([ranks, some(train, FEWEST - len(ranks))])
    return Plan(options, parent, setup, material, train, ranks, chooses, reports, tested,
                dataclasses.asdict(asked))  # fmt: skip


def _compare_with_training(
    options: SlimOptions, listing: Listing, rows: dict[str, Rows], talk: Talk
) -> None:
    """Say it where images that now judge may have been trained on."""
    kept = Path(options.run) / "predictions" / "val.npz"
    if options.data is not None or not kept.is_file():
        return
    known = set(Predictions.load(kept).paths)
    now = {listing.samples[p].path for p in rows["val"]}
    if fresh := now - known:
        talk.note(
            f"{len(fresh)} of {len(now)} validation images were none when {options.run} was "
            "trained (the data have changed): some may have been trained on, which flatters both"
        )
