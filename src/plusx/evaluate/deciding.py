"""Fitting a decision on labelled predictions, and what it is worth on others (task single)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.decide import FARTHEST, Answers, Decision, Sets, Unknown, normalised
from plusx.errors import DataError
from plusx.evaluate.abstain import (
    threshold_for_coverage,
    threshold_for_precision,
    threshold_for_sensitivity,
)
from plusx.evaluate.calibration import calibrate, calibration_figures, fit_temperature
from plusx.evaluate.conformal import class_thresholds
from plusx.evaluate.intervals import (
    Figure,
    bootstrap_mean,
    effective_sizes,
    group_numbers,
    proportion,
)
from plusx.evaluate.predictions import Predictions
from plusx.evaluate.selection import halves
from plusx.evaluate.thresholds import best_thresholds, decided
from plusx.evaluate.wish import Wish

NEIGHBOURS = 10
"""Nearest training images that the unknown score looks at; all where there are fewer."""

Features = npt.NDArray[np.floating]
Part = tuple[Decision, Predictions]
"""A decision, and calibrated predictions of images that did not fit it."""


def fit_decision(
    predictions: Predictions,
    wish: Wish,
    *,
    bank: Features | None,
    temperature: float | None = None,
    seed: int = 0,
) -> tuple[Decision, list[str]]:
    """A decision, and why parts of it are left out.

    Args:
        predictions: (N, K) of images that were not trained on, logits as the network gives them;
            with features where there is a bank. Of task multi they set the thresholds alone.
        wish: the parts to fit.
        bank: (M, D) features of training images under the same network; None for no unknown score.
        temperature: by default that of :func:`calibrate`, which is 1 where it does not help.
        seed: of the halves that judge the temperature.
    """
    if predictions.task == "multi":
        return best_thresholds(predictions), []
    why: list[str] = []
    if temperature is None:
        temperature = 1.0
        try:
            temperature = calibrate(predictions, seed=seed).temperature
        except DataError as error:
            why.append(f"probabilities are not calibrated: {error}")
    decision = Decision(temperature=temperature)
    calibrated = judged(predictions, decision).probabilities
    targets = predictions.targets
    most = calibrated.max(axis=1).astype(np.float64)
    right = predictions.predicted == targets
    found: dict[str, Any] = {}
    try:
        found["sets"] = _sets(calibrated, targets, wish)
    except DataError as error:
        why.append(f"no sets of classes: {error}")
    try:
        found["unknown"] = _unknown(predictions.features, bank, wish)
    except DataError as error:
        why.append(f"no image is called unknown: {error}")
    try:
        if wish.precision is not None:
            found["sureness"] = threshold_for_precision(most, right, wish.precision)
        elif wish.coverage is not None:
            found["sureness"] = threshold_for_coverage(most, wish.coverage)
    except DataError as error:
        why.append(f"every image is answered: {error}")
    try:
        if wish.sensitivity is not None:
            k = predictions.classes.index(wish.sensitivity[0])
            own = calibrated[:, k].astype(np.float64)
            least = threshold_for_sensitivity(own, targets == k, wish.sensitivity[1])
            found["favoured"] = (k, least)
    except DataError as error:
        why.append(f"no class is favoured: {error}")
    return replace(decision, **found), why


def cross_parts(
    predictions: Predictions, wish: Wish, shipped: Decision, *, bank: Features | None, seed: int
) -> list[Part]:
    """Each half with the decision that the other fits; empty where there are no halves.

    The temperature of a half is 1 where that of ``shipped`` is: nothing helped.
    """
    try:
        side = halves(predictions, seed=seed)
    except DataError:
        return []
    return [half_part(predictions, side != here, wish, shipped, bank=bank) for here in (0, 1)]


def half_part(
    predictions: Predictions,
    fits: npt.NDArray[np.bool_],
    wish: Wish,
    shipped: Decision,
    *,
    bank: Features | None,
) -> Part:
    """What the images ``fits`` (N,) say about all others."""
    mine = predictions.take(fits)
    temperature = None
    if predictions.task == "single":
        same = shipped.temperature == 1
        temperature = 1.0 if same else fit_temperature(mine.logits, mine.targets)
    decision, _ = fit_decision(mine, wish, bank=bank, temperature=temperature)
    return decision, judged(predictions.take(~fits), decision)


def judged(predictions: Predictions, decision: Decision) -> Predictions:
    """The same calibrated (single), or with the classes that each image is said to have (multi)."""
    if predictions.task == "multi":
        return decided(predictions, decision)
    return replace(predictions, logits=decision.temper(predictions.logits))


def worth(parts: Sequence[Part], *, before: bool = True, seed: int = 0) -> dict[str, Any]:
    """What decisions are worth on images that did not fit them, pooled; JSON, without NaN.

    Keys: ``calibration`` (``before`` and ``after``: nll, brier, ece), ``sets`` (coverage, mean
    size), ``unknown`` (share of these images, all of known classes, that is called so),
    ``answered`` (share of images, accuracy among them), ``favoured`` (sensitivity, precision);
    None for what was not fitted.

    Args:
        parts: decisions with calibrated predictions of task single.
        before: also say what calibration changed.
        seed: of the bootstrap.
    """
    pooled = Predictions.concat([found for _, found in parts])
    answers = [decision.settle(found.probabilities, found.features) for decision, found in parts]
    about = _About(pooled, [decision for decision, _ in parts], answers, seed)
    found: dict[str, Any] = {"n": len(pooled), "calibration": None}
    if before and any(decision.temperature != 1 for decision, _ in parts):
        raw = [replace(p, logits=p.logits * np.float32(d.temperature)) for d, p in parts]
        found["calibration"] = {
            name: {key: one.to_json() for key, one in calibration_figures(each, seed=seed).items()}
            for name, each in (("before", Predictions.concat(raw)), ("after", pooled))
        }
    return found | {
        "sets": about.sets(),
        "unknown": about.unknown(),
        "answered": about.answered(),
        "favoured": about.favoured(),
    }


@dataclass(frozen=True, eq=False)
class _About:
    """Pooled predictions, the decisions of their parts and the answers."""

    pooled: Predictions
    decisions: Sequence[Decision]
    answers: Sequence[Answers]
    seed: int

    def sets(self) -> dict[str, Any] | None:
        found = [one.sets for one in self.answers if one.sets is not None]
        sets = self.decisions[0].sets
        if sets is None or len(found) < len(self.answers):
            return None
        inside = np.concatenate(found)
        held = inside[np.arange(len(inside)), self.pooled.targets]
        sizes = inside.sum(axis=1).astype(np.float64)
        groups = group_numbers(self.pooled.groups)
        return {
            "promised": sets.coverage,
            "per_class": sets.per_class,
            "coverage": self._share(held),
            "mean_size": bootstrap_mean(sizes, groups=groups, seed=self.seed).to_json(),
            "empty": float((sizes == 0).mean()),
            "single": float((sizes == 1).mean()),
        }

    def unknown(self) -> dict[str, Any] | None:
        first = self.decisions[0].unknown
        if first is None or any(one.scores is None for one in self.answers):
            return None
        flags = np.concatenate([one.unknown for one in self.answers])
        return {"promised": first.false_reject, "share": self._share(flags)}

    def answered(self) -> dict[str, Any] | None:
        """None where all are answered."""
        if all(d.sureness is None for d in self.decisions) and self.unknown() is None:
            return None
        given = np.concatenate([one.answered for one in self.answers])
        right = np.concatenate([one.called for one in self.answers]) == self.pooled.targets
        accuracy = self._share(right, given) if given.any() else None
        return {"coverage": self._share(given), "accuracy": accuracy}

    def favoured(self) -> dict[str, Any] | None:
        first = self.decisions[0].favoured
        if first is None or any(d.favoured is None for d in self.decisions):
            return None
        called = np.concatenate([one.called for one in self.answers]) == first[0]
        own = self.pooled.targets == first[0]
        return {
            "class": self.pooled.classes[first[0]],
            "sensitivity": self._share(called, own) if own.any() else None,
            "precision": self._share(own, called) if called.any() else None,
        }

    def _share(
        self, success: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_] | None = None
    ) -> dict[str, float]:
        """With its interval; groups widen it."""
        rows = np.flatnonzero(np.ones_like(success) if among is None else among)
        groups = group_numbers(self.pooled.groups)
        size = effective_sizes(
            success[rows], np.zeros(len(rows), dtype=np.int64), 1,
            None if groups is None else groups[rows],
        )  # fmt: skip
        figure: Figure = proportion(float(success[rows].mean()), float(size[0]))
        return figure.to_json()


def _sets(
    probabilities: npt.NDArray[np.float32], targets: npt.NDArray[np.int64], wish: Wish
) -> Sets | None:
    if wish.sets is None:
        return None
    found = class_thresholds(
        probabilities.astype(np.float64), targets, coverage=wish.sets, per_class=wish.per_class
    )
    return Sets(wish.sets, tuple(found.tolist()), wish.per_class)


def _unknown(features: Features | None, bank: Features | None, wish: Wish) -> Unknown | None:
    """Its threshold is the finite-sample quantile of the scores: of new images like these at most
    the wished share is called unknown, on average (Vovk et al. 2005, as for the sets)."""
    if wish.unknown is None or bank is None or features is None:
        return None
    n = len(features)
    rank = int(np.ceil((n + 1) * (1 - wish.unknown) - 1e-9))
    if rank > n:
        raise DataError(
            f"{n} images are too few for a share of {wish.unknown:.1%} "
            f"({int(np.ceil(1 / wish.unknown - 1e-9)) - 1} are needed)"
        )
    kept = normalised(bank).astype(np.float16)
    score = Unknown(FARTHEST, wish.unknown, min(NEIGHBOURS, len(kept)), kept)
    threshold = float(np.sort(score.score(features))[rank - 1])
    return replace(score, threshold=threshold)
