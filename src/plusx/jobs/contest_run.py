"""The trainings of a comparison: each leaves a record, and one that has its record is not repeated.

``runs/CONTESTANT/trial-K.json`` is a learning rate that was tried, ``seed-N.json`` a training that
counts, ``seed-N.npz`` its answers on the images that report.
"""

from __future__ import annotations

import csv
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from plusx.errors import Diverged
from plusx.jobs import wording
from plusx.jobs.beginning import Fitted
from plusx.jobs.contest_entrants import Entrant
from plusx.jobs.contest_plan import Plan
from plusx.jobs.contest_shift import KINDS, right_under_shift
from plusx.jobs.decision import score
from plusx.jobs.fitting import fit
from plusx.jobs.material import Material, gather
from plusx.jobs.run import read_json, write_json
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.weights import Network, load_artifact, save_artifact

Record = dict[str, Any]


@dataclass
class Course:
    """How far a comparison is: trainings, and seconds an epoch of each contestant so far.

    Attributes:
        total: trainings, those of an earlier part included.
        done: of them.
        left: contestant -> epochs that are still to be trained.
        spent: contestant -> epochs that were, and their seconds.
    """

    total: int
    done: int = 0
    left: dict[str, int] = field(default_factory=dict)
    spent: dict[str, tuple[int, float]] = field(default_factory=dict)

    def finished(self, name: str, epochs: int, seconds: float) -> None:
        """Count a training that ran just now."""
        self.done += 1
        self.left[name] -= epochs
        before, spent = self.spent.get(name, (0, 0.0))
        self.spent[name] = (before + epochs, spent + seconds)

    def line(self) -> str:
        """``3 of 24 trainings done, about 5 min 10 s left``."""
        text = f"{self.done} of {self.total} trainings done"
        if not self.spent:
            return text
        pace = {name: seconds / epochs for name, (epochs, seconds) in self.spent.items()}
        usual = sum(pace.values()) / len(pace)
        left = sum(epochs * pace.get(name, usual) for name, epochs in self.left.items())
        return f"{text}, about {wording.duration(left)} left"


def run_all(plan: Plan, folder: Path, talk: Talk) -> list[tuple[list[Record], list[Record]]]:
    """The records of every contestant's trials and of its trainings that count."""
    course = Course(len(plan.entrants) * (plan.options.trials + plan.options.seeds))
    for entrant in plan.entrants:
        epochs = {f"trial-{i}": plan.options.trial_epochs for i in range(plan.options.trials)}
        epochs |= {f"seed-{seed}": plan.epochs for seed in plan.seeds()}
        runs = folder / "runs" / entrant.slug
        left = [n for name, n in epochs.items() if not (runs / f"{name}.json").exists()]
        course.left[entrant.name] = sum(left)
        course.done += len(epochs) - len(left)
    return [_Contestant(plan, entrant, folder, course, talk).run() for entrant in plan.entrants]


class _Voice(Talk):
    """What one training has to say, with the contestant's name; a trial keeps its notes to
    itself: they are about a network that nobody will use."""

    def __init__(self, talk: Talk, name: str, *, notes: bool) -> None:
        super().__init__(quiet=talk.quiet)
        self._talk, self._name, self._aloud = talk, name, notes

    def say(self, text: str) -> None:
        """See ``Talk``."""
        self._talk.say(f"{self._name}: {text}")

    def note(self, text: str) -> None:
        """See ``Talk``."""
        if self._aloud:
            self._talk.note(f"{self._name}: {text}")


class _Contestant:
    """One contestant's trainings."""

    def __init__(
        self, plan: Plan, entrant: Entrant, folder: Path, course: Course, talk: Talk
    ) -> None:
        self._plan, self._entrant, self._course, self._talk = plan, entrant, course, talk
        self._folder = folder / "runs" / entrant.slug
        self._folder.mkdir(parents=True, exist_ok=True)
        self._ready: tuple[Network, Material, float] | None = None

    def run(self) -> tuple[list[Record], list[Record]]:
        """Find a rate, then train with it from every seed."""
        plan, trials, counted = self._plan, [], []
        try:
            rates = plan.rates(self._entrant)
            for number, lr in enumerate(rates):
                label = f"learning rate {lr:g}, trial {number + 1} of {len(rates)}"
                make = partial(self._trial, number, lr)
                name, epochs = f"trial-{number}", plan.options.trial_epochs
                trials.append(self._once(name, label, epochs, make))
            best = best_rate(trials)
            for number, seed in enumerate(plan.seeds()):
                label = f"seed {seed}, training {number + 1} of {plan.options.seeds}"
                make = partial(self._counted, seed, best)
                counted.append(self._once(f"seed-{seed}", label, plan.epochs, make))
        finally:
            shutil.rmtree(self._folder / "cache", ignore_errors=True)
        return trials, counted

    def _once(self, name: str, label: str, epochs: int, make: Callable[[], Record]) -> Record:
        """The record of that name; it is made where an earlier part did not leave it."""
        path = self._folder / f"{name}.json"
        record = read_json(path)
        if not record:
            self._talk.say(f"{self._entrant.name}: {label} ({self._course.line()})")
            started = time.perf_counter()
            record = make()
            write_json(path, record)
            shutil.rmtree(self._folder / f"{name}.part", ignore_errors=True)
            self._course.finished(self._entrant.name, epochs, time.perf_counter() - started)
        return record

    def _trial(self, number: int, lr: float) -> Record:
        """The first seed alone; its best epoch on the images that choose says what a rate is
        worth. The start is left out: it is the same for every rate."""
        options = self._plan.options
        record, _, fitted = self._train(
            f"trial-{number}", lr=lr, epochs=options.trial_epochs, seed=options.seed
        )
        tops = [(row["val_top1"], -(row["val_nll"] or 0.0)) for row in record["curve"]
                if row["epoch"] and row["val_top1"] is not None]  # fmt: skip
        return record | {"score": list(max(tops)) if fitted is not None and tops else None}

    def _counted(self, seed: int, lr: float | None) -> Record:
        name = f"seed-{seed}"
        if lr is None:
            return {"seed": seed, "lr": None, "diverged": True, "curve": [], "ships": None,
                    "why": "no learning rate of the budget trained"}  # fmt: skip
        record, setup, fitted = self._train(name, lr=lr, epochs=self._plan.epochs, seed=seed)
        if fitted is not None:
            record["shift"] = self._answers(name, setup, fitted)
        return record | {"seed": seed}

    def _train(
        self, name: str, *, lr: float, epochs: int, seed: int
    ) -> tuple[Record, Setup, Fitted | None]:
        voice = _Voice(self._talk, self._entrant.name, notes=name.startswith("seed"))
        network, material, start = self._prepared(seed)
        setup = self._plan.setup(
            self._entrant, network, lr=lr, epochs=epochs, seed=seed, talk=voice
        )
        part = self._folder / f"{name}.part"
        part.mkdir(exist_ok=True)  # what a killed run left of its checkpoint is gone on from
        fitted, why = None, None
        try:
            fitted = fit(setup, material, self._plan.listing, part, voice)
        except Diverged as error:
            why = str(error)
            voice.say(f"diverged: {error}")
        start += voice.seconds.get("probe", 0.0)
        curve = read_curve(part / "history.csv", start)
        if why is None and rose(curve, len(self._plan.listing.classes)):
            why = "the training loss ended far above where it began, and above that of guessing"
        record: Record = {
            "lr": lr,
            "diverged": why is not None,
            "why": why,
            "ships": None if fitted is None else fitted.ships,
            "batch_size": (setup if fitted is None else fitted).recipe.batch_size,
            "curve": curve,
        }
        return record, setup, fitted

    def _prepared(self, seed: int) -> tuple[Network, Material, float]:
        """The network, what its frozen part gave, and the seconds that took. Random weights are
        drawn anew for every seed."""
        if self._entrant.scratch:
            return self._entrant.build(seed), Material(()), 0.0
        if self._ready is None:
            network = self._entrant.build(seed)
            cache = self._folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            setup = self._plan.setup(
                self._entrant, network, lr=1.0, epochs=self._plan.epochs, seed=seed, talk=self._talk
            )
            started = time.perf_counter()
            material = gather(setup, cache, self._talk, reuse=False)
            self._ready = network, material, time.perf_counter() - started
        return self._ready

    def _answers(self, name: str, setup: Setup, fitted: Fitted) -> dict[str, str] | None:
        """Answers on the reporting images, through the model on disk; kept beside the record."""
        plan, talk = self._plan, self._talk
        model = self._folder / f"{name}.part" / "model"
        save_artifact(
            model, fitted.model, classes=plan.listing.classes,
            preprocessing=setup.preprocessing, provenance={}, card="",
        )  # fmt: skip
        predictions = score(setup, model, plan.listing.part("test"), "scoring", talk)
        predictions.save(self._folder / f"{name}.npz")
        if not plan.shift:
            return None
        with talk.phase("harmed images", len(plan.shift) * len(KINDS)) as tick:
            return right_under_shift(
                load_artifact(model), plan.shift, device=plan.hardware.device,
                threads=plan.threads, tick=tick,
            )  # fmt: skip


def best_rate(trials: list[Record]) -> float | None:
    """The rate of the best trial that ended; of equals the smaller one."""
    usable = [one for one in trials if one["score"]]
    if not usable:
        return None
    return float(max(usable, key=lambda one: (one["score"], -one["lr"]))["lr"])


def read_curve(path: Path, start: float) -> list[dict[str, float | None]]:
    """The epochs of ``history.csv`` with the seconds since the start, ``start`` included."""
    if not path.exists():
        return []
    keys = ("epoch", "val_top1", "val_nll", "train_loss", "lr")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: list[dict[str, float | None]] = []
    for row in rows:
        if row["epoch"] != "0":  # the state before the first step: its score costs no training
            start += float(row["seconds"])
        values = {key: float(row[key]) if row[key] else None for key in keys}
        found.append({key: v if v is not None and math.isfinite(v) else None
                      for key, v in values.items()} | {"seconds": round(start, 4)})  # fmt: skip
    return found


def rose(curve: list[dict[str, float | None]], classes: int) -> bool:
    """Whether the training loss ended at half as much again as where it began, and as guessing."""
    losses = [loss for row in curve if (loss := row["train_loss"]) is not None]
    return len(losses) > 1 and losses[-1] > 1.5 * max(losses[0], math.log(classes))
