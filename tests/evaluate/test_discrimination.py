from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from plusx.errors import DataError, UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.discrimination import (
    auroc,
    average_precision,
    expected_cost,
    sensitivity_at,
    specificity_at,
)
from plusx.evaluate.paired import compare
from plusx.evaluate.slices import slices


def test_areas_equal_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for n in (20, 300):
        positive = rng.random(n) < 0.3
        score = np.round(rng.normal(size=n) + positive, 1)  # with ties
        assert auroc(score, positive).value == pytest.approx(roc_auc_score(positive, score))
        expected = average_precision_score(positive, score)
        assert average_precision(score, positive).value == pytest.approx(expected)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_the_area_holds_the_truth(grouped: bool) -> None:
    from scipy.special import ndtr

    rng = np.random.default_rng(1)
    truth, held = float(ndtr(1.2 / np.sqrt(2))), 0
    for _ in range(400):
        positive = np.arange(80) < 40
        score = rng.normal(size=80) + 1.2 * positive
        groups = None
        if grouped:  # each image three times: no more is known than from one
            positive, score = np.repeat(positive, 3), np.repeat(score, 3)
            groups = np.repeat(np.arange(80), 3)
        found = auroc(score, positive, groups)
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 400 <= 0.97


def test_a_perfect_area_is_not_certain() -> None:
    found = auroc(np.arange(20.0), np.arange(20) >= 10)
    assert found.value == found.high == 1.0
    assert 0.6 < found.low < 0.8
    with pytest.raises(DataError, match="at least 2 images"):
        auroc(np.arange(4.0), np.ones(4, bool))


def test_one_rate_at_another() -> None:
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.35, 0.5, 0.6, 0.7])
    positive = np.array([False] * 4 + [True] * 4)
    trade = sensitivity_at(score, positive, 0.75)
    assert (trade.threshold, trade.value.value) == (0.3, 1.0)
    trade = sensitivity_at(score, positive, 0.7)
    assert (trade.threshold, trade.value.value) == (0.3, 1.0)
    trade = specificity_at(score, positive, 0.75)
    assert (trade.threshold, trade.value.value) == (0.5, 1.0)
    with pytest.raises(DataError, match=r"specificity 0.9 needs at least 10 images .* not 4"):
        sensitivity_at(score, positive, 0.9)
    with pytest.raises(UsageError, match="specificity 95"):
        sensitivity_at(score, positive, 95)


def two(n: int, right: np.ndarray, groups: tuple[str, ...] | None = None) -> Predictions:
    targets = np.arange(n) % 2
    called = np.where(right, targets, 1 - targets)
    logits = np.where(np.arange(2) == called[:, None], 2.0, 0.0).astype(np.float32)
    return Predictions(logits, targets.astype(np.int64), tuple(map(str, range(n))), ("a", "b"),
                       groups=groups)  # fmt: skip


def test_costs_move_the_decision() -> None:
    predictions = two(100, np.arange(100) % 10 > 0)
    plain, decided = expected_cost(predictions, np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert plain.value == pytest.approx(0.1)
    assert (decided == predictions.predicted).all()
    dear, decided = expected_cost(predictions, np.array([[0.0, 1.0], [50.0, 0.0]]))
    assert (decided == 1).all()
    assert dear.value == pytest.approx(0.5)
    with pytest.raises(UsageError, match="give 2 rows"):
        expected_cost(predictions, np.zeros((3, 3)))


def test_a_difference_is_noise_or_it_is_not() -> None:
    n = 400
    good, poor = np.arange(n) % 20 > 0, np.arange(n) % 20 > 2
    found = compare(two(n, good), two(n, poor))
    assert found.difference.value == pytest.approx(0.1)
    assert found.settled
    assert (found.only_a, found.only_b) == (40, 0)
    assert found.p < 1e-6
    assert set(found.rows_only_a) == set(np.flatnonzero(good & ~poor))
    same = compare(two(n, good), two(n, np.roll(good, 1)))
    assert not same.settled
    assert same.p > 0.5
    with pytest.raises(UsageError, match="same paths"):
        compare(two(n, good), two(n - 2, good[:-2]))


def test_false_differences_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(0)
    settled = [compare(two(200, rng.random(200) < 0.8), two(200, rng.random(200) < 0.8)).settled
               for _ in range(300)]  # fmt: skip
    assert np.mean(settled) < 0.085


def test_a_worse_slice_is_found_and_shuffled_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    n = 600
    camera = np.array(["old", "new", "phone"])[rng.integers(0, 3, n)]
    right = rng.random(n) < np.where(camera == "old", 0.7, 0.93)
    columns = {"camera": camera.tolist(), "brightness": rng.random(n)}
    found = slices(two(n, right), columns)
    assert (found[0].column, found[0].value, found[0].worse) == ("camera", "old", True)
    assert not any(one.worse for one in found[1:])
    assert found[0].n == (camera == "old").sum()
    assert found[0].top1.value == pytest.approx(right[camera == "old"].mean())
    false = 0
    for seed in range(100):
        shuffled = np.random.default_rng(seed).permutation(right)
        false += any(one.worse for one in slices(two(n, shuffled), columns))
    assert false <= 9


def test_slices_of_a_dark_quarter_and_of_too_few_images() -> None:
    rng = np.random.default_rng(2)
    n = 800
    dark = rng.random(n)
    right = rng.random(n) < np.where(dark < 0.25, 0.6, 0.95)
    rare = ["rare" if i < 5 else "common" for i in range(n)]
    found = slices(
        two(n, right), {"brightness": dark, "kind": rare, "name": list(map(str, range(n)))}
    )
    assert (found[0].value, found[0].worse) == ("lowest quarter", True)
    assert {one.column for one in found} == {"brightness"}
