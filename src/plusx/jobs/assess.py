"""What the result is worth: ``metrics.json``, every figure with its split and role.

Figures are computed from image files through the artifact on disk. Images that chose (among the
probe and the epochs) do not report: without a test split, validation is cross-fitted, so that what
one half chose is judged on the other.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.data import Listing, Sample, Task, groups_of
from plusx.data.records import target_array
from plusx.errors import PlusxError
from plusx.evaluate import SCHEMA_VERSION, Predictions, evaluate, to_json
from plusx.evaluate.deciding import Part, cross_parts, half_part, worth
from plusx.evaluate.wish import Wish
from plusx.fit.choice import Winner
from plusx.fit.probe import cross_validate
from plusx.fit.trunk import Rows
from plusx.jobs.beginning import Fitted
from plusx.jobs.decision import (
    Features,
    decide,
    score,
    stated,
    training_features,
    wants_features,
)
from plusx.jobs.material import Material
from plusx.jobs.resolving import class_weights
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.weights import save_artifact

SMALL = 1_000
"""Below this many images the headline of a probe comes from repeated cross-validation."""

HEADLINE: dict[Task, str] = {"single": "top1", "multi": "mean_average_precision"}
"""The figure to quote; neither depends on a threshold."""

REPEATS = 5
"""Of that cross-validation. The luck of the folds is a small part of the interval already: on 396
photographs a repeat has a standard deviation of 0.8 points, their mean of 5 of 0.4."""

Evaluation = dict[str, Any]


def assess(
    setup: Setup, material: Material, fitted: Fitted, folder: Path, talk: Talk
) -> list[Evaluation]:
    """Every evaluation of a finished training whose artifact stands in ``folder/model``."""
    found = []
    parts = {split: _samples(setup.listing, rows) for split, rows in fitted.positions.items()}
    model, features = folder / "model", wants_features(setup)
    epoch = 0 if fitted.choice is None else fitted.choice.best.epoch
    # First: what is fitted on validation is in the artifact before all later scoring.
    bank = training_features(setup, material, fitted, epoch, model, talk=talk)
    raw = score(setup, model, parts["val"], "scoring val", talk, features=features)
    wish, seed = Wish.parse(setup.options.decide), setup.recipe.seed
    shipped, fitted.decision = decide(model, raw, wish, bank=bank, seed=seed, talk=talk)
    judges: list[Part] = []
    if parts["test"]:
        predictions = score(setup, model, parts["test"], "scoring test", talk, features=features)
        found.append(entry(predictions, folder, ("test", "report"), "images that took no part"))
        judges = [(fitted.decision, predictions)]
    if fitted.choice is None:
        crossed = cross_parts(raw, wish, fitted.decision, bank=bank, seed=seed)
        found.append(_nothing_chosen(shipped, crossed, folder))
    else:
        multi = setup.listing.task == "multi"
        method = f"the {len(shipped)} validation images that chose what ships"
        method += " and its thresholds" if multi else ", and its temperature"
        found.append(entry(shipped, folder, ("val", "selection"), method))
        crossed = []
        if not parts["test"]:
            crossed = _cross_fitted(setup, material, fitted, raw, folder, bank=bank, talk=talk)
        if crossed:
            found.append(_crossed(crossed, folder))
    _state_worth(fitted, judges or crossed, "test" if judges else "val")
    found += _cross_validated(setup, material, fitted, talk)
    return found


def _state_worth(fitted: Fitted, judges: list[Part], split: str) -> None:
    """What the decision is worth, on images that did not fit it: ``fitted.worth``."""
    if fitted.task == "multi":
        return
    if not judges:
        fitted.worth = stated({}, fitted.decision)
        return
    method = "images that took no part"
    if split == "val":
        method = (
            "validation, cross-fitted: what one half fitted is judged on the other, and swapped"
        )
    about = {"split": split, "role": "report", "method": method, **worth(judges)}
    fitted.worth = stated(about, fitted.decision)


def _nothing_chosen(shipped: Predictions, crossed: list[Part], folder: Path) -> Evaluation:
    """Of a probe alone: validation chose nothing, it only fitted the decision."""
    single = shipped.task == "single"
    method = "validation images, which chose nothing"
    if not crossed:
        if single:  # too few to make halves: none fitted a temperature
            return entry(shipped, folder, ("val", "report"), method)
        method = "validation images, which set the thresholds and chose nothing else"
        return entry(shipped, folder, ("val", "calibration"), method)
    what = "the temperature: that" if single else "the thresholds: those"
    come = "comes" if single else "come"
    method += f" but {what} of each half {come} from the other"
    pooled = Predictions.concat([part for _, part in crossed])
    return entry(pooled, folder, ("val", "report"), method)


def entry(
    predictions: Predictions, folder: Path, about: tuple[str, str], method: str, name: str = ""
) -> Evaluation:
    """One evaluation of ``metrics.json``; its predictions are kept beside it."""
    split, role = about
    file = folder / "predictions" / f"{name or split}.npz"
    file.parent.mkdir(exist_ok=True)
    predictions = replace(predictions, features=None)  # as large as the images, and not needed
    predictions.save(file)
    found = to_json(evaluate(predictions), split=split, role=role)
    return found | {"method": method, "predictions": file.relative_to(folder).as_posix()}


def metrics(
    setup: Setup, fitted: Fitted, evaluations: list[Evaluation], material: Material, talk: Talk
) -> dict[str, Any]:
    """All of ``metrics.json``, once ``assess`` has run."""
    headline = _headline(fitted, evaluations)
    return {
        "schema_version": SCHEMA_VERSION,
        "plusx_version": __version__,
        "task": setup.listing.task,
        "classes": list(setup.listing.classes),
        "thresholds": _thresholds(fitted, setup.listing.classes),
        "decision": fitted.worth,
        "counts": _counts(setup.listing, fitted),
        "headline": headline,
        "chosen": {"name": fitted.ships, "text": _why(fitted)},
        "evaluations": evaluations,
        "bad_images": [{"path": item.path, "reason": item.reason} for item in material.bad],
        "notes": list(talk.notes),
        "seconds": dict(talk.seconds),
    }


def _counts(listing: Listing, fitted: Fitted) -> dict[str, dict[str, int]]:
    """Readable images by split and class."""
    counts: dict[str, dict[str, int]] = {}
    for split, positions in fitted.positions.items():
        if len(positions):
            of_class = Counter(k for p in positions for k in listing.samples[p].targets)
            counts[split] = {name: of_class[k] for k, name in enumerate(listing.classes)}
    return counts


def _thresholds(fitted: Fitted, classes: Sequence[str]) -> dict[str, float]:
    """By class; empty for task single."""
    values = fitted.decision.thresholds
    return {} if values is None else dict(zip(classes, values, strict=True))


def _headline(fitted: Fitted, evaluations: list[Evaluation]) -> dict[str, Any] | None:
    """The figure to quote: the best-founded report figure of what ships, if there is one."""
    figure = HEADLINE[fitted.task]
    order = ["test", "out of fold", "train+val", "val"]
    if fitted.ships != "probe":
        order.remove("train+val")  # the probe's figure: it says little about another model
    reporting = [
        e
        for e in evaluations
        if e["role"] == "report" and e["split"] in order and e["figures"].get(figure)
    ]
    reporting.sort(key=lambda e: order.index(e["split"]))
    if not reporting:
        return None
    best = reporting[0]
    kept = {key: best[key] for key in ("split", "role", "method", "n")}
    return {"figure": figure, **best["figures"][figure], **kept}


def _why(fitted: Fitted) -> str:
    if fitted.choice is None:
        return "the probe: a linear head on the frozen backbone's features"
    best, start = fitted.choice.best, fitted.history[0]
    n = len(best.rows)
    what = "" if fitted.task == "single" else " mean average precision"
    if fitted.went_on:
        return (
            f"{fitted.ships}: {best.score[0]:.1%}{what} against the {start.score:.1%} with which "
            f"it began, on the {n} validation images that chose"
        )
    if fitted.probe is None:
        return f"{fitted.ships}: trained from scratch, the best of {len(fitted.history) - 1} epochs"
    if fitted.ships == "probe":
        return (
            f"the probe: fine-tuning did not beat its {start.score:.1%}{what} on the {n} "
            "validation images"
        )
    return (
        f"the fine-tuned network after {fitted.ships}: {best.score[0]:.1%}{what} against the "
        f"probe's {start.score:.1%} on the {n} validation images that chose"
    )


def _cross_fitted(
    setup: Setup,
    material: Material,
    fitted: Fitted,
    shipped: Predictions,
    folder: Path,
    *,
    bank: Features | None,
    talk: Talk,
) -> list[Part]:
    """Each half of validation with what the other half chose: an epoch, and then a decision."""
    choice = fitted.choice
    assert choice is not None
    if choice.why_not_halves:
        talk.note(f"no figure of the choice itself: {choice.why_not_halves}")
        return []
    best, *winners = choice.winners
    wish = Wish.parse(setup.options.decide)
    parts: list[Part] = []
    for half, other in zip(winners, reversed(winners), strict=True):
        keep = set(_paths(setup, fitted, half.rows))
        found, near = shipped, bank
        if other.epoch != best.epoch:
            fitted.take(other.state)
            found, near = _scored_again(setup, material, fitted, other, folder=folder, talk=talk)
        fits = np.array([path not in keep for path in found.paths])
        parts.append(half_part(found, fits, wish, fitted.decision, bank=near))
    fitted.take(best.state)
    return parts


def _crossed(parts: list[Part], folder: Path) -> Evaluation:
    pooled = Predictions.concat([part for _, part in parts])
    method = (
        "validation, cross-fitted: what one half of the images chose is judged on the other half, "
        "and swapped; its " + ("temperature" if pooled.task == "single" else "thresholds") + " too"
    )
    return entry(pooled, folder, ("val", "report"), method, "val-cross-fitted")


def _scored_again(
    setup: Setup, material: Material, fitted: Fitted, winner: Winner, *, folder: Path, talk: Talk
) -> tuple[Predictions, Features | None]:
    """The winner's state, which ``fitted`` holds now, from files on all validation images; and its
    features of training images."""
    work = folder / "work"
    save_artifact(
        work, fitted.model, classes=setup.listing.classes, preprocessing=setup.preprocessing,
        task=setup.listing.task, provenance={}, card="",
    )  # fmt: skip
    samples = _samples(setup.listing, fitted.positions["val"])
    features = wants_features(setup)
    found = score(setup, work, samples, "scoring a half", talk, features=features)
    bank = training_features(setup, material, fitted, winner.epoch, work, talk=talk)
    shutil.rmtree(work)
    return found, bank


def _cross_validated(
    setup: Setup, material: Material, fitted: Fitted, talk: Talk
) -> list[Evaluation]:
    """Repeated cross-validation of the probe, where there are few images."""
    rows = np.concatenate([fitted.positions["train"], fitted.positions["val"]])
    if material.first is None or len(rows) >= SMALL:
        return []
    samples = _samples(setup.listing, rows)
    classes, task = len(setup.listing.classes), setup.listing.task
    learnt = _samples(setup.listing, fitted.positions["train"])
    weights = class_weights(setup.options, target_array(learnt, classes, task), talk)
    try:
        with talk.phase("cross-validation"):
            found = cross_validate(
                material.first.features[rows],
                target_array(samples, classes, task),
                classes=classes,
                repeats=REPEATS,
                seed=setup.recipe.seed,
                groups=groups_of(samples),
                class_weights=None if weights is None else weights.double().numpy(),
            )
    except PlusxError as error:
        talk.note(f"no cross-validation of the probe: {error}")
        return []
    repeats, folds = found.penalties.shape
    method = (
        f"{repeats} x {folds}-fold cross-validation of the probe on frozen features "
        f"(spread over repeats {found.spread:.4f})"
    )
    return [
        {"split": "train+val", "role": "report", "method": method, "n": len(rows),
         "figures": {HEADLINE[task]: found.figure.to_json()}}
    ]  # fmt: skip


def _samples(listing: Listing, positions: Rows) -> list[Sample]:
    return [listing.samples[p] for p in positions]


def _paths(setup: Setup, fitted: Fitted, rows: Rows) -> list[str]:
    return [s.path for s in _samples(setup.listing, fitted.positions["val"][rows])]
