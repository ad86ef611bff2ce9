"""Thresholds: chosen, applied, stored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from plusx.decide import Decision, Sets, Unknown, normalised
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
from plusx.weights.decision_file import DECISION


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


def bank(rows: int = 30, numbers: int = 32, seed: int = 0) -> np.ndarray:
    return normalised(np.random.default_rng(seed).normal(size=(rows, numbers))).astype(np.float16)


def whole() -> Decision:
    return Decision(
        temperature=1.7, sureness=0.6, favoured=(1, 0.25), sets=Sets(0.9, (0.2,) * 5),
        unknown=Unknown(0.5, 0.05, 10, bank()),
    )  # fmt: skip


def test_json_and_back() -> None:
    for decision in (Decision(), Decision((0.25, 0.1 + 0.2))):
        assert Decision.from_dict(json.loads(json.dumps(decision.to_dict())), 2) == decision
    text = json.dumps(whole().to_dict())
    assert Decision.from_dict(json.loads(text), 5, bank=bank()) == whole()
    for values, words in (
        ({"thresholds": [0.5]}, "1 thresholds for 2 classes"),
        ({"thresholds": [0.5, 2]}, "between 0 and 1"),
        ({"thresholds": "high"}, "list of numbers"),
        ({"temperature": 0}, "temperature 0.0 must be above 0"),
        ({"temperature": "hot"}, "a value is damaged"),
        ({"sureness": float("nan")}, "between 0 and 1"),
        ({"favoured": {"index": 2, "threshold": 0.5}}, "favoured class 2 is none of 2"),
        ({"favoured": {"index": "a", "threshold": 0.5}}, "a value is damaged"),
        ({"sets": {"coverage": 0.9, "thresholds": [0.5]}}, "1 thresholds for 2 classes"),
        ({"sets": {"thresholds": [0.5, 0.5]}}, "a value is damaged"),
        ({"unknown": {"threshold": 0.1, "false_reject": 0.05, "neighbours": 3}}, "missing"),
        ({"ensemble": 3}, "ensemble: not known to this plusx"),
    ):
        with pytest.raises(UsageError, match=words):
            Decision.from_dict(values, 2)


def test_probabilities_are_the_softmax_of_the_tempered_logits() -> None:
    logits = np.array([[1000.0, 998.0], [-3.0, 1.0]], np.float32)
    shares, answers = Decision(temperature=2.0).apply(logits, None)
    np.testing.assert_allclose(shares[:, 0], 1 / (1 + np.exp([-1, 2])), rtol=1e-5)
    assert answers.called.tolist() == [0, 1]
    assert answers.answered.all()
    assert answers.sets is answers.scores is None


def test_a_favoured_class_is_the_answer_from_its_threshold_on() -> None:
    shares = np.array([[0.7, 0.3, 0.0], [0.5, 0.2, 0.3], [0.1, 0.24, 0.66]], np.float32)
    answers = Decision(favoured=(1, 0.25)).settle(shares, None)
    assert answers.called.tolist() == [1, 0, 2]
    shares = np.array([[0.2, 0.5, 0.3]], np.float32)  # the most probable, and still not called
    assert Decision(favoured=(1, 0.6)).settle(shares, None).called.tolist() == [2]


def test_deciding_can_be_taken_off() -> None:
    plain = whole().without_deciding()
    assert plain == Decision(temperature=1.7)
    assert Decision((0.3,)).without_deciding() == Decision((0.3,))


def test_the_score_is_the_distance_to_the_nearest() -> None:
    rows = bank(50)
    unknown = Unknown(0.5, 0.05, 3, rows)
    fresh = np.random.default_rng(1).normal(size=(2000, 32)).astype(np.float32)
    wide = rows.astype(np.float64)
    alike = np.sort(fresh / np.linalg.norm(fresh, axis=1, keepdims=True) @ wide.T, axis=1)
    np.testing.assert_allclose(unknown.score(fresh), 1 - alike[:, -3:].mean(1), atol=1e-5)
    np.testing.assert_allclose(unknown.score(fresh * 1e25), unknown.score(fresh), atol=1e-5)
    np.testing.assert_allclose(unknown.score(fresh * 1e-25), unknown.score(fresh), atol=1e-5)


def test_features_that_say_nothing_are_far_away() -> None:
    strange = np.zeros((3, 32), np.float32)
    strange[1, 0], strange[2, 0] = np.nan, np.inf
    assert Unknown(0.5, 0.05, 3, bank()).score(strange).tolist() == [1.0, 2.0, 2.0]
    with pytest.raises(UsageError, match="features have 4 numbers, those of the bank 32"):
        Unknown(0.5, 0.05, 3, bank()).score(np.zeros((1, 4), np.float32))


@pytest.mark.parametrize("changes", [{"neighbours": 31}, {"neighbours": 0}, {"threshold": -1.0},
                                     {"false_reject": 2.0}, {"bank": bank()[0]},
                                     {"bank": bank() * np.float16(np.inf)}])  # fmt: skip
def test_an_impossible_score(changes: dict[str, object]) -> None:
    values = {"threshold": 0.5, "false_reject": 0.05, "neighbours": 10, "bank": bank()}
    with pytest.raises(UsageError):
        Unknown(**(values | changes))  # type: ignore[arg-type]


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


def test_an_artifact_keeps_the_features_beside_it(tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    write_decision(folder, whole())
    found = load_artifact(folder).decision
    assert found == whole()
    assert found.unknown is not None
    np.testing.assert_array_equal(found.unknown.bank, bank())
    write_decision(folder, Decision())
    assert not (folder / DECISION).exists()
    assert load_artifact(folder).decision == Decision()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is not the file that"),
        (lambda path: path.write_bytes(b""), "is not the file that"),
    ],
)
def test_features_of_another_model(
    tiny_weights: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    write_decision(folder, whole())
    damage(folder / DECISION)
    with pytest.raises(ArtifactError, match=f"decision.safetensors: {said}.* as a whole"):
        load_artifact(folder)


def test_features_of_another_size(tiny_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_weights, folder)
    write_decision(folder, Decision(unknown=Unknown(0.5, 0.05, 3, bank(numbers=8))))
    with pytest.raises(ArtifactError, match=r"features \(30, 8\) for a network that gives 32"):
        load_artifact(folder)
