"""What the result is worth: ``metrics.json``, every figure with its split and role.

Figures are computed from image files through the artifact on disk. Images that chose (among the
probe and the epochs) do not report: without a test split, validation is cross-fitted, so that what
one half chose is judged on the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.data import Listing, Sample, groups_of
from plusx.errors import PlusxError
from plusx.evaluate import SCHEMA_VERSION, Predictions, evaluate, to_json
from plusx.fit.choice import Choice
from plusx.fit.probe import cross_validate
from plusx.fit.trunk import Rows
from plusx.jobs.fitting import Fitted
from plusx.jobs.material import Material
from plusx.jobs.setup import Setup, class_weights
from plusx.jobs.talk import Talk
from plusx.predict import Predictor
from plusx.weights import save_artifact

SMALL = 1_000
"""Below this many images the headline of a probe comes from repeated cross-validation."""

REPEATS = 5
"""Of that cross-validation. The luck of the folds is a small part of the interval already: on 396
photographs a repeat has a standard deviation of 0.8 points, their mean of 5 of 0.4."""

Evaluation = dict[str, Any]


def score(
    setup: Setup, artifact: Path, samples: Sequence[Sample], label: str, talk: Talk
) -> Predictions:
    """Predictions of an artifact on disk for labelled image files."""
    predictor = Predictor(artifact, device=str(setup.hardware.device), threads=setup.threads)
    with talk.phase(label, len(samples)) as tick:
        predictions, bad = predictor.predictions(samples, tick=lambda n: tick(n, ""))
    for item in bad:
        talk.note(f"not scored: {item.path}: {item.reason}")
    return predictions


def assess(
    setup: Setup, material: Material, fitted: Fitted, folder: Path, talk: Talk
) -> list[Evaluation]:
    """Every evaluation of a finished training whose artifact stands in ``folder/model``."""
    found = []
    parts = {split: _samples(setup.listing, rows) for split, rows in fitted.positions.items()}
    if parts["test"]:
        predictions = score(setup, folder / "model", parts["test"], "scoring test", talk)
        found.append(entry(predictions, folder, ("test", "report"), "images that took no part"))
    shipped = score(setup, folder / "model", parts["val"], "scoring val", talk)
    if fitted.choice is None:
        found.append(
            entry(shipped, folder, ("val", "report"), "validation images, which chose nothing")
        )
    else:
        method = f"the {len(shipped)} validation images that chose what ships"
        found.append(entry(shipped, folder, ("val", "selection"), method))
        if not parts["test"]:
            found += _cross_fitted(setup, fitted, fitted.choice, shipped, folder, talk)
    found += _cross_validated(setup, material, fitted, talk)
    return found


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
    """All of ``metrics.json``."""
    headline = _headline(fitted, evaluations)
    return {
        "schema_version": SCHEMA_VERSION,
        "plusx_version": __version__,
        "classes": list(setup.listing.classes),
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
            targets = np.array([listing.samples[p].target for p in positions])
            of_class = np.bincount(targets, minlength=len(listing.classes)).tolist()
            counts[split] = dict(zip(listing.classes, of_class, strict=True))
    return counts


def _headline(fitted: Fitted, evaluations: list[Evaluation]) -> dict[str, Any] | None:
    """The figure to quote: the best-founded report figure of what ships, if there is one."""
    order = ["test", "out of fold", "train+val", "val"]
    if fitted.ships != "probe":
        order.remove("train+val")  # the probe's figure: it says little about another model
    reporting = [
        e
        for e in evaluations
        if e["role"] == "report" and e["split"] in order and e["figures"].get("top1")
    ]
    reporting.sort(key=lambda e: order.index(e["split"]))
    if not reporting:
        return None
    best = reporting[0]
    kept = {key: best[key] for key in ("split", "role", "method", "n")}
    return {"figure": "top1", **best["figures"]["top1"], **kept}


def _why(fitted: Fitted) -> str:
    if fitted.choice is None:
        return "the probe: a linear head on the frozen backbone's features"
    best, start = fitted.choice.best, fitted.history[0]
    n = len(best.rows)
    if fitted.probe is None:
        return f"{fitted.ships}: trained from scratch, the best of {len(fitted.history) - 1} epochs"
    if fitted.ships == "probe":
        return (
            f"the probe: fine-tuning did not beat its {start.val_top1:.1%} on the {n} validation "
            "images"
        )
    return (
        f"the fine-tuned network after {fitted.ships}: {best.score[0]:.1%} against the probe's "
        f"{start.val_top1:.1%} on the {n} validation images that chose"
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
        if other.epoch == best.epoch:
            keep = set(_paths(setup, fitted, half.rows))
            judged.append(shipped.take(np.array([p in keep for p in shipped.paths])))
            continue
        fitted.take(other.state)
        work = folder / "work"
        save_artifact(
            work, fitted.model, classes=setup.listing.classes,
            preprocessing=setup.preprocessing, provenance={}, card="",
        )  # fmt: skip
        samples = _samples(setup.listing, fitted.positions["val"][half.rows])
        judged.append(score(setup, work, samples, "scoring a half", talk))
        shutil.rmtree(work)
    fitted.take(best.state)
    method = (
        "validation, cross-fitted: what one half of the images chose is judged on the other half, "
        "and swapped"
    )
    return [
        entry(Predictions.concat(judged), folder, ("val", "report"), method, "val-cross-fitted")
    ]


def _cross_validated(
    setup: Setup, material: Material, fitted: Fitted, talk: Talk
) -> list[Evaluation]:
    """Repeated cross-validation of the probe, where there are few images."""
    rows = np.concatenate([fitted.positions["train"], fitted.positions["val"]])
    if material.first is None or len(rows) >= SMALL:
        return []
    samples = _samples(setup.listing, rows)
    learnt = [setup.listing.samples[p].target for p in fitted.positions["train"]]
    weights = class_weights(setup.options, np.array(learnt), talk)
    try:
        with talk.phase("cross-validation"):
            found = cross_validate(
                material.first.features[rows],
                np.array([sample.target for sample in samples], dtype=np.int64),
                classes=len(setup.listing.classes),
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
         "figures": {"top1": found.top1.to_json()}}
    ]  # fmt: skip


def _samples(listing: Listing, positions: Rows) -> list[Sample]:
    return [listing.samples[p] for p in positions]


def _paths(setup: Setup, fitted: Fitted, rows: Rows) -> list[str]:
    return [s.path for s in _samples(setup.listing, fitted.positions["val"][rows])]
