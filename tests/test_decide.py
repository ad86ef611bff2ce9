"""Thresholds: chosen, applied, stored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from plusx.decide import Decision
from plusx.errors import ArtifactError, UsageError
from plusx.evaluate import Predictions, evaluate
from plusx.evaluate.thresholds import (
    FEWEST,
    NEARLY,
    best_thresholds,
    cross_decided,
    decided,
    few,
)
from plusx.weights import load_artifact, write_decision


def predictions(n: int, k: int = 2, *, shift: float = 0.0, seed: int = 0) -> Predictions:
    """A model that ranks well and is off by ``shift`` in how probable it says a class is."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n, k)) < 0.3
    logits = (rng.normal(size=(n, k)) + 2 * targets - 1 + shift).astype(np.float32)
    names = tuple(f"c{i}" for i in range(k))
    return Predictions(logits, targets, tuple(map(str, range(n))), names, task="multi")


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(30, 80), st.sampled_from([0.05, 0.1, 0.5]))
def test_no_threshold_has_a_much_higher_f1(seed: int, n: int, step: float) -> None:
    p = predictions(n, 1, shift=-2, seed=seed)
    p = Predictions(np.round(p.logits / step) * np.float32(step), *vars_of(p))  # many are equal
    decision = best_thresholds(p)
    if few(p):
        assert decision.thresholds == (0.5,)
        return
    found = f1_score(p.targets[:, 0], decided(p, decision).marks[:, 0])
    every = [f1_score(p.targets[:, 0], p.probabilities[:, 0] >= t) for t in p.probabilities[:, 0]]
    assert found >= NEARLY * max(every) - 1e-9


def vars_of(p: Predictions) -> tuple[object, ...]:
    return p.targets, p.paths, p.classes, p.task


def test_a_threshold_mends_what_a_shift_breaks() -> None:
    p = predictions(400, shift=-3)
    before = evaluate(p).figure("macro_f1").value
    after = evaluate(decided(p, best_thresholds(p))).figure("macro_f1").value
    assert after > before + 0.2
    assert evaluate(decided(p, best_thresholds(p))).figure("mean_average_precision") == (
        evaluate(p).figure("mean_average_precision")
    )


def test_of_nearly_equal_ones_it_is_nearest_to_half_the_f1() -> None:
    """Two images of 100 decide where the highest F1 lies; the rule does not follow them far."""
    probabilities = np.linspace(0.02, 0.98, 100)
    targets = (probabilities > 0.5)[:, None].copy()
    targets[[2, 97], 0] = True, False
    logits = np.log(probabilities / (1 - probabilities)).astype(np.float32)[:, None]
    p = Predictions(logits, targets, tuple(map(str, range(100))), ("a",), task="multi")
    (threshold,) = best_thresholds(p).thresholds or ()
    assert 0.44 < threshold < 0.5


def test_few_images_keep_the_usual_threshold() -> None:
    targets = np.zeros((60, 3), bool)
    targets[: FEWEST - 1, 0] = targets[:FEWEST, 1] = targets[FEWEST - 1 :, 2] = True
    logits = np.where(targets, -1, -3).astype(np.float32)
    p = Predictions(logits, targets, tuple(map(str, range(60))), ("a", "b", "c"), task="multi")
    first, second, third = best_thresholds(p).thresholds or ()
    assert first == third == 0.5
    assert 0.05 < second < 0.27
    assert few(p) == ("a", "c")


def test_cross_decided_halves_never_set_their_own_thresholds() -> None:
    """Labels by chance: thresholds of their own images gain F1, those of the other half do not."""
    rng = np.random.default_rng(0)
    gains = []
    for seed in range(10):
        p = predictions(60, 6, seed=seed)
        p = Predictions(p.logits, rng.random((60, 6)) < 0.3, *vars_of(p)[1:])
        crossed = cross_decided(p, seed=seed)
        assert crossed is not None
        assert crossed.paths == p.paths
        gains.append(
            evaluate(decided(p, best_thresholds(p))).figure("macro_f1").value
            - evaluate(crossed).figure("macro_f1").value
        )
    assert np.mean(gains) > 0.02
    assert cross_decided(predictions(1), seed=0) is None


def test_json_and_back() -> None:
    for decision in (Decision(), Decision((0.25, 0.1 + 0.2))):
        assert Decision.from_dict(json.loads(json.dumps(decision.to_dict())), 2) == decision
    for values, words in (
        ({"thresholds": [0.5]}, "1 thresholds for 2 classes"),
        ({"thresholds": [0.5, 2]}, "between 0 and 1"),
        ({"thresholds": "high"}, "list of numbers"),
    ):
        with pytest.raises(UsageError, match=words):
            Decision.from_dict(values, 2)


def test_an_artifact_keeps_its_decision(tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    assert load_artifact(folder).decision == Decision()
    decision = Decision((0.1, 0.2, 0.3, 0.4, 0.5))
    write_decision(folder, decision)
    assert load_artifact(folder).decision == decision
    write_decision(folder, Decision((0.5,)))
    with pytest.raises(ArtifactError, match="1 thresholds for 5 classes"):
        load_artifact(folder)
