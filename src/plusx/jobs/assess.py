"""What the result is worth: ``metrics.json``, every figure with its split and role.

Figures are computed from image files through the artifact on disk. Images that chose (among the
probe and the epochs) do not report: without a test split, validation is cross-fitted, so that what
one half chose is judged on the other.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.data import Listing, Sample, Task, groups_of
from plusx.data.records import target_array
from plusx.errors import PlusxError
from plusx.evaluate import SCHEMA_VERSION, Predictions, evaluate, to_json
from plusx.evaluate.thresholds import best_thresholds, cross_decided, decided
from plusx.fit.choice import Choice, Winner
from plusx.fit.probe import cross_validate
from plusx.fit.trunk import Rows
from plusx.jobs.decision import score, score_and_decide
from plusx.jobs.fitting import Fitted
from plusx.jobs.material import Material
from plusx.jobs.setup import Setup, class_weights
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
    multi = setup.listing.task == "multi"
    # First: it sets the thresholds that all later scoring goes by.
    shipped, fitted.decision = score_and_decide(
        setup, folder / "model", parts["val"], "scoring val", talk
    )
    if parts["test"]:
        predictions = score(setup, folder / "model", parts["test"], "scoring test", talk)
        found.append(entry(predictions, folder, ("test", "report"), "images that took no part"))
    if fitted.choice is None:
        found.append(_nothing_chosen(setup, shipped, folder))
    else:
        method = f"the {len(shipped)} validation images that chose what ships"
        method += " and its thresholds" if multi else ""
        found.append(entry(shipped, folder, ("val", "selection"), method))
        if not parts["test"]:
            found += _cross_fitted(setup, fitted, fitted.choice, shipped, folder, talk)
    found += _cross_validated(setup, material, fitted, talk)
    return found


def _nothing_chosen(setup: Setup, shipped: Predictions, folder: Path) -> Evaluation:
    """Of a probe alone: validation chose nothing but, for task multi, the thresholds."""
    method = "validation images, which chose nothing"
    if shipped.task == "single":
        return entry(shipped, folder, ("val", "report"), method)
    crossed = cross_decided(shipped, seed=setup.recipe.seed)
    if crossed is None:
        method = "validation images, which set the thresholds and chose nothing else"
        return entry(shipped, folder, ("val", "calibration"), method)
    method += " but the thresholds: those of each half come from the other"
    return entry(crossed, folder, ("val", "report"), method)


def entry(
    predictions: Predictions, folder: Path, about: tuple[str, str], method: str, name: str = ""
) -> Evaluation:
    """One evaluation of ``metrics.json``; its predictions are kept beside it."""
    split, role = about
    file = folder / "predictions" / f"{name or split}.npz"
    file.parent.mkdir(exist_ok=True)
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
    fitted: Fitted,
    choice: Choice,
    shipped: Predictions,
    folder: Path,
    talk: Talk,
) -> list[Evaluation]:
    """Each half of validation judged by the candidate that the other half chose."""
    if choice.why_not_halves:
        talk.note(f"no figure of the choice itself: {choice.why_not_halves}")
        return []
    best, *winners = choice.winners
    others = [winners[1], winners[0]]
    judged: list[Predictions] = []
    for half, other in zip(winners, others, strict=True):
        keep, chose = (set(_paths(setup, fitted, w.rows)) for w in (half, other))
        found = shipped
        if other.epoch != best.epoch:
            fitted.take(other.state)
            found = _scored_again(setup, fitted, half if shipped.task == "single" else best,
                                  folder=folder, talk=talk)  # fmt: skip
        mine = found.take(np.array([p in keep for p in found.paths]))
        if shipped.task == "multi":
            decision = best_thresholds(found.take(np.array([p in chose for p in found.paths])))
            mine = decided(mine, decision)
        judged.append(mine)
    fitted.take(best.state)
    method = (
        "validation, cross-fitted: what one half of the images chose is judged on the other half, "
        "and swapped"
    )
    method += "; its thresholds too" if shipped.task == "multi" else ""
    return [
        entry(Predictions.concat(judged), folder, ("val", "report"), method, "val-cross-fitted")
    ]


def _scored_again(
    setup: Setup, fitted: Fitted, images: Winner, *, folder: Path, talk: Talk
) -> Predictions:
    """The state that ``fitted`` holds now, from files, on the validation images of ``images``."""
    work = folder / "work"
    save_artifact(
        work, fitted.model, classes=setup.listing.classes, preprocessing=setup.preprocessing,
        task=setup.listing.task, provenance={}, card="",
    )  # fmt: skip
    samples = _samples(setup.listing, fitted.positions["val"][images.rows])
    found = score(setup, work, samples, "scoring a half", talk)
    shutil.rmtree(work)
    return found


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
