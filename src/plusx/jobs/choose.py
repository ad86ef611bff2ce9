"""``plusx choose``: accuracy on the user's images against latency on the user's machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data import BadImage, Sample, drop
from plusx.data.records import target_array
from plusx.errors import UsageError
from plusx.evaluate.intervals import group_numbers
from plusx.fit.features import Features
from plusx.jobs.bench import describe_machine
from plusx.jobs.bench_timing import Timing, busy_note, cores_in_use
from plusx.jobs.choose_candidates import Net, find_candidates
from plusx.jobs.choose_figures import (
    Advice,
    Judged,
    advise,
    compare_all,
    validate,
)
from plusx.jobs.choose_options import ChooseOptions
from plusx.jobs.choose_page import write_choice
from plusx.jobs.choose_work import (
    Images,
    check_budget,
    find_images,
    gather_features,
    load_nets,
    tie_copies,
    time_nets,
)
from plusx.jobs.run import name_of
from plusx.jobs.talk import Talk

FOUND = "choose.json"


@dataclass(frozen=True, eq=False)
class Choice:
    """Which net to take, and what that rests on.

    Attributes:
        nets: from fast to slow.
        advice: one sentence.
        skipped: nets that could not be looked at -> why.
        bad: images that could not be read.
        about: of the data, the machine and how it was done, as plain values.
        notes: what should be known about the figures.
        path: the folder with page, pictures and ``choose.json``.
    """

    nets: tuple[Judged, ...]
    advice: Advice
    skipped: dict[str, str]
    bad: tuple[BadImage, ...]
    about: dict[str, Any]
    notes: tuple[str, ...]
    path: Path

    @property
    def take(self) -> str:
        """The name of the net to take."""
        return self.advice.take

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "take": self.advice.take,
            "sentence": self.advice.sentence,
            "deeper": self.advice.deeper,
            **self.about,
            "nets": [one.to_json() for one in self.nets],
            "skipped": self.skipped,
            "bad": {item.path: item.reason for item in self.bad},
            "notes": list(self.notes),
        }


def choose(data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any) -> Choice:
    """Find the right net for these images on this machine.

    Each net whose weights are at hand runs once over the training images (features are kept, so a
    second choice is quick); a linear head on its features is cross-validated, on the same folds for
    every net; one image is timed. Images of given validation and test splits are left alone.

    Args:
        data: as for ``plusx train``; one label an image.
        talk: where progress is said; by default stderr.
        **options: see ``ChooseOptions``; ``latency`` may be given as ``"20ms"``.

    Raises:
        UsageError: no net is at hand, or none is as fast as ``latency`` asks.
        PlusxError: the data cannot be used.
    """
    asked, talk = ChooseOptions.of(data, **options), talk or Talk()
    folder = _folder(asked)
    images = find_images(asked, talk)
    candidates, skipped = find_candidates(asked)
    in_use = cores_in_use()
    if note := busy_note(in_use):
        talk.note(note)
    nets, runs = load_nets(candidates, skipped, images, asked, talk)
    times = time_nets(nets, runs, asked, talk)
    runs.clear()
    check_budget(nets, times, asked)
    features, readable, bad = gather_features(nets, images, asked, talk)
    for item in bad:
        talk.note(f"left out: {item.path}: {item.reason}")
    drop(images.listing, bad)  # raises where a class has no image left
    samples = [one for one, read in zip(images.samples, readable, strict=True) if read]
    groups = tie_copies(samples, images.keys[readable])
    targets = target_array(samples, len(images.listing.classes), "single").astype(np.int64)
    judged = _judge(nets, times, features=features, targets=targets, groups=groups, asked=asked,
                    talk=talk)  # fmt: skip
    numbers = group_numbers(groups)
    ordered = compare_all(judged, numbers)
    advice = advise(ordered, numbers, budget_ms=asked.latency_ms)
    about = _about(images, samples, asked, in_use)
    found = Choice(ordered, advice, skipped, bad, about, tuple(talk.notes), folder)
    write_choice(found.to_json(), ordered, folder)
    return found


def _judge(
    nets: Sequence[Net],
    times: dict[str, Timing],
    *,
    features: Sequence[Features],
    targets: npt.NDArray[np.int64],
    groups: tuple[str, ...] | None,
    asked: ChooseOptions,
    talk: Talk,
) -> list[Judged]:
    judged = []
    classes = int(targets.max()) + 1
    with talk.phase("cross-validation", len(nets)) as tick:
        for net, found in zip(nets, features, strict=True):
            top1, right = validate(found, targets, classes=classes, groups=groups, seed=asked.seed)
            judged.append(Judged(net, times[net.name], top1, right))
            tick(1, net.name)
    return judged


def _folder(asked: ChooseOptions) -> Path:
    folder = Path(asked.out) if asked.out is not None else Path(f"choose-{name_of(asked.data)}")
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (folder / FOUND).is_file():
        raise UsageError(f"--out {folder}: holds no choice of plusx; give another name")
    return folder


def _about(
    images: Images, samples: Sequence[Sample], asked: ChooseOptions, in_use: float | None
) -> dict[str, Any]:
    shares = np.bincount([one.targets[0] for one in samples]) / len(samples)
    return {
        "data": asked.data,
        "images": len(samples),
        "role": "selection",
        "which": images.about,
        "classes": list(images.listing.classes),
        "always_one_class": float(shares.max()),
        "latency_budget_ms": asked.latency_ms,
        "engine": asked.engine,
        "precision": asked.precision,
        "machine": describe_machine(asked.device) | {"cores_in_use_before": in_use},
        "seed": asked.seed,
    }
