"""What a comparison is going to do: images with their roles, contestants, numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from plusx.data import (
    Augmentation,
    Listing,
    Sample,
    drop,
    gather_facts,
    read_listing,
    split_listing,
)
from plusx.data.split import relative_name
from plusx.errors import DataError, UsageError
from plusx.evaluate import SCHEMA_VERSION
from plusx.fit.loop import Hardware
from plusx.fit.recipe import Recipe, default_epochs, default_lr
from plusx.jobs.contest_entrants import Entrant, enter
from plusx.jobs.contest_options import ContestOptions
from plusx.jobs.resolving import resolve_norm
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count, resolve_device, resolve_precision
from plusx.weights import Network

HELD_OUT, CHOOSING = 0.3, 0.2
"""Share of the images that report where the data names none; share of the others that choose."""

FEWEST = 4
"""Reporting images: below that no difference could ever be shown."""


@dataclass(frozen=True)
class Plan:
    """Everything resolved.

    Attributes:
        options: as asked for.
        listing: ``train`` learns, ``val`` chooses (rates and epochs), ``test`` reports.
        entrants: the contestants; the first is what the others are compared with.
        epochs: of a training that counts.
        hardware: device and precision.
        threads: for decoding.
        shift: the reporting images that are harmed.
    """

    options: ContestOptions
    listing: Listing
    entrants: tuple[Entrant, ...]
    epochs: int
    hardware: Hardware
    threads: int
    shift: tuple[Sample, ...]

    def rates(self, entrant: Entrant) -> list[float]:
        """Learning rates to try, evenly spaced in their logarithm around the usual one: by up to
        ten times to either side."""
        batch = min(self.options.batch_size, len(self.listing.part("train")))
        usual = default_lr("adamw", batch, scratch=entrant.scratch)
        trials = self.options.trials
        reach = min(1.0, (trials - 1) / 2)
        return [float(f"{usual * 10**x:.3g}") for x in np.linspace(-reach, reach, trials)]

    def seeds(self) -> list[int]:
        """Of the trainings that count; the same for every contestant."""
        return [self.options.seed + i for i in range(self.options.seeds)]

    def setup(
        self, entrant: Entrant, network: Network, *, lr: float, epochs: int, seed: int, talk: Talk
    ) -> Setup:
        """One training, by the recipe of ``plusx train`` but for the rate; it never stops early."""
        images = len(self.listing.part("train"))
        batch = min(self.options.batch_size, images)
        training = self.options.training(entrant.weights)
        unfreeze = None if entrant.scratch or self.options.unfreeze == "all" else min(
            self.options.unfreeze, entrant.spec.blocks)  # fmt: skip
        seen = entrant.preprocessing
        return Setup(
            options=training,
            listing=self.listing,
            network=network,
            preprocessing=seen,
            augmentation=Augmentation.light(images, size=seen.size, channels=seen.channels),
            unfreeze=unfreeze,
            recipe=Recipe(
                epochs=epochs,
                batch_size=batch,
                optimizer="adamw",
                lr=lr,
                weight_decay=training.weight_decay,
                warmup=float(training.warmup),
                label_smoothing=0.1 if entrant.scratch else 0.0,
                patience=0,
                norm=resolve_norm("auto", batch, unfreeze, talk),
                clip=1.0,
                seed=seed,
            ),
            hardware=self.hardware,
            threads=self.threads,
        )

    def settings(self) -> dict[str, Any]:
        """What makes two comparisons the same; more seeds and contestants may join later."""
        return {
            "schema_version": SCHEMA_VERSION,
            "images": _digest(self.listing),
            "budget": f"{self.options.trial_epochs}x{self.options.trials}",
            "epochs": self.epochs,
            "batch_size": self.options.batch_size,
            "image_size": self.entrants[0].preprocessing.size,
            "shift_images": len(self.shift),
            "seed": self.options.seed,
            "unfreeze": self.options.unfreeze,
            "precision": str(self.hardware.dtype).removeprefix("torch."),
        }


def make_plan(options: ContestOptions, talk: Talk) -> Plan:
    """Resolve the options against data and weights.

    Raises:
        PlusxError: the data, a contestant or an option cannot be used.
    """
    listing = give_roles(read_listing(options.data), seed=options.seed, talk=talk)
    entrants = enter(options, len(listing.classes))
    seen = entrants[0].preprocessing
    with talk.phase("reading", len(listing.samples)) as tick:
        facts = gather_facts(
            (sample.path for sample in listing.samples),
            processes=options.threads or cpu_count(),
            tick=lambda n: tick(n, ""),
            channels=seen.channels,
            reading=seen.reading,
        )
    bad = tuple(facts.errors)
    for item in bad:
        talk.note(f"left out: {item.path}: {item.reason}")
    listing = drop(listing, bad)
    _check_enough(listing)
    images = len(listing.part("train"))
    device = resolve_device(options.device)
    return Plan(
        options=options,
        listing=listing,
        entrants=tuple(entrants),
        epochs=options.epochs or default_epochs(images, scratch=True),
        hardware=Hardware(device, resolve_precision(options.precision, device)),
        threads=options.threads or cpu_count(),
        shift=_some(listing.part("test"), options.shift_images, options.seed),
    )


def give_roles(given: Listing, *, seed: int, talk: Talk) -> Listing:
    """``train`` learns, ``val`` chooses, ``test`` reports: different images each.

    A test split reports, else the validation split does (and others choose), else a part is held
    out. What reports chooses nothing.

    Raises:
        UsageError: several labels an image.
        DataError: too few images of a class.
    """
    if given.task != "single":
        raise UsageError(f"{given.source}: gives several labels an image; compare needs one")
    splits = {sample.split for sample in given.samples}
    listing = given
    if "test" in splits:
        source = "the test split"
    elif "val" in splits:
        listing, source = _renamed(given, "val", "test"), "the validation split"
    else:
        _check_three(given)
        listing = _renamed(split_listing(given, seed=seed, val_fraction=HELD_OUT), "val", "test")
        source = f"{HELD_OUT:.0%} of the images, held out"
    listing = split_listing(listing, seed=seed, val_fraction=CHOOSING)
    counts = Counter(sample.split for sample in listing.samples)
    talk.say(
        f"{counts['train']} images learn, {counts['val']} choose learning rates and epochs, "
        f"{counts['test']} report ({source})"
    )
    return listing


def _renamed(listing: Listing, old: str, new: str) -> Listing:
    samples = (replace(s, split=new) if s.split == old else s for s in listing.samples)
    return replace(listing, samples=tuple(samples))


def _check_three(listing: Listing) -> None:
    for number, count in sorted(Counter(s.target for s in listing.samples).items(), key=str):
        if count < 3 and isinstance(number, int):
            raise DataError(
                f"{listing.source}: class {listing.classes[number]!r} has {count} image"
                f"{'s' if count > 1 else ''}; one each must learn, choose and report, so add "
                "images or remove the class"
            )


def _check_enough(listing: Listing) -> None:
    reporting = len(listing.part("test"))
    if reporting < FEWEST:
        raise DataError(
            f"{listing.source}: {reporting} images to report on are too few for a comparison; give "
            f"at least {FEWEST}, and some hundreds to see a difference"
        )


def _some(samples: tuple[Sample, ...], most: int, seed: int) -> tuple[Sample, ...]:
    if len(samples) <= most:
        return samples
    rows = np.random.default_rng(seed).permutation(len(samples))[:most]
    return tuple(samples[i] for i in np.sort(rows))


def _digest(listing: Listing) -> str:
    lines = sorted(
        f"{relative_name(listing, s)}\0{listing.classes[s.targets[0]]}\0{s.split}\n"
        for s in listing.samples
        if s.targets
    )
    text = "".join(lines).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()
