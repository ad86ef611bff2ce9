from __future__ import annotations

import numpy as np
import pytest

from plusx.errors import DataError
from plusx.evaluate import Predictions
from plusx.evaluate.calibration import (
    calibrate,
    calibration_figures,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def drawn(n: int, *, temperature: float, seed: int, classes: int = 3) -> Predictions:
    """Images whose right logits are these times ``temperature``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = (p.cumsum(1) < rng.random((n, 1))).sum(1).astype(np.int64)
    return Predictions((logits * temperature).astype(np.float32), targets,
                       tuple(map(str, range(n))), tuple("abcde"[:classes]))  # fmt: skip


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_is_found(temperature: float) -> None:
    predictions = drawn(20_000, temperature=temperature, seed=0)
    found = fit_temperature(predictions.logits, predictions.targets)
    assert found == pytest.approx(temperature, rel=0.05)


def test_the_fit_is_the_optimum_of_the_smoothed_loss() -> None:
    predictions = drawn(2000, temperature=2.0, seed=1)
    best = fit_temperature(predictions.logits, predictions.targets)
    rows = np.arange(len(predictions))

    def loss(t: float) -> float:
        cooled = Predictions((predictions.logits / np.float32(t)), predictions.targets,
                             predictions.paths, predictions.classes)  # fmt: skip
        return -float(cooled.log_probabilities[rows, predictions.targets].mean())

    assert loss(best) < loss(best * 1.1)
    assert loss(best) < loss(best / 1.1)
    assert loss(best) < loss(1.0)


def test_a_perfect_score_on_few_images_does_not_make_it_certain() -> None:
    targets = np.arange(20) % 2
    logits = np.where(np.arange(2) == targets[:, None], 1.0, 0.0).astype(np.float32)
    assert 0.2 < fit_temperature(logits, targets) < 1.0


def test_calibration_is_judged_on_the_other_half_and_never_ships_worse() -> None:
    shaken = calibrate(drawn(400, temperature=3.0, seed=2))
    assert shaken.temperature > 2
    assert shaken.after["nll"].value < shaken.before["nll"].value
    assert shaken.after["ece"].value < shaken.before["ece"].value
    worse = 0
    for seed in range(20):
        sound = calibrate(drawn(60, temperature=1.0, seed=100 + seed))
        assert sound.after["nll"].value <= sound.before["nll"].value
        worse += sound.temperature == 1.0
        assert bool(sound.why) == (sound.temperature == 1.0)
    assert worse > 0


def test_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="19 images are too few"):
        calibrate(drawn(19, temperature=1.0, seed=0))


def test_the_error_of_a_calibrated_net_is_near_zero_where_the_plain_one_is_not() -> None:
    values, plain = [], []
    for seed in range(30):
        p = drawn(300, temperature=1.0, seed=seed)
        sure = np.exp(p.log_probabilities.max(1))
        right = (p.predicted == p.targets).astype(float)
        values.append(expected_calibration_error(sure, right))
        curve = reliability(p)
        plain.append(float((np.abs(curve.confidence - curve.accuracy) * curve.images).sum()
                           / curve.images.sum()))  # fmt: skip
    assert np.mean(values) < 0.7 * np.mean(plain)


def test_a_known_gap_is_measured() -> None:
    rng = np.random.default_rng(0)
    sure = np.full(20_000, 0.9)
    right = (rng.random(20_000) < 0.7).astype(float)
    assert expected_calibration_error(sure, right) == pytest.approx(0.2, abs=0.01)


def test_figures_hold_their_values_and_groups_widen_them() -> None:
    p = drawn(300, temperature=2.0, seed=5)
    alone = calibration_figures(p)
    doubled = Predictions.concat([p, p])
    paired = Predictions(doubled.logits, doubled.targets, doubled.paths, doubled.classes,
                         groups=tuple(map(str, [*range(300), *range(300)])))  # fmt: skip
    grouped = calibration_figures(paired)
    for name in ("nll", "brier", "ece"):
        assert alone[name].low <= alone[name].value <= alone[name].high
    for name in ("nll", "brier"):
        assert grouped[name].value == pytest.approx(alone[name].value)
        width = alone[name].high - alone[name].low
        assert grouped[name].high - grouped[name].low == pytest.approx(width, rel=0.15)


def test_bins_are_equally_full() -> None:
    curve = reliability(drawn(157, temperature=1.0, seed=3))
    assert curve.images.sum() == 157
    assert curve.images.min() >= 10
    assert curve.images.max() - curve.images.min() <= 1
    assert (np.diff(curve.confidence) >= 0).all()
