from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import average_precision_score, roc_auc_score

from plusx.errors import UsageError
from plusx.evaluate import Figure, Held, Predictions, evaluate, to_json
from plusx.evaluate.areas import areas, log_odds, mean_area
from plusx.evaluate.discrimination import sensitivity_at, specificity_at

Make = Callable[..., Predictions]


def covers(figure: Figure | None, truth: float) -> bool:
    assert figure is not None
    return figure.low <= truth <= figure.high


def test_areas_of_every_class_equal_scikit_learn(synthetic: Make) -> None:
    p = synthetic(300, 4, signal=1.5)
    e = evaluate(p)
    for k, one in enumerate(e.per_class):
        assert one.auroc is not None
        assert one.average_precision is not None
        score = log_odds(p.logits)[:, k]
        assert one.auroc.value == pytest.approx(roc_auc_score(p.targets == k, score))
        expected = average_precision_score(p.targets == k, score)
        assert one.average_precision.value == pytest.approx(expected)
    assert e.figure("macro_auroc").value == pytest.approx(
        np.mean([one.auroc.value for one in e.per_class if one.auroc])
    )


def test_log_odds_tell_apart_what_rounds_to_one() -> None:
    odds = log_odds(np.array([[60.0, 0.0, -1.0], [70.0, 0.0, -1.0], [0.0, 0.0, -900.0]]))
    assert odds[1, 0] - odds[0, 0] == pytest.approx(10)
    assert odds[2, :2] == pytest.approx(0)
    assert np.isfinite(odds).all()
    assert log_odds(np.array([[1.0, 3.0]])).tolist() == [[-2.0, 2.0]]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("n", "share", "apart"), [(100, 0.5, 1.2), (200, 0.1, 1.5), (60, 0.5, 2)])
def test_intervals_of_areas_hold_the_truth(
    n: int, share: float, apart: float, grouped: bool
) -> None:
    rng = np.random.default_rng(n)
    whole = rng.random(200_000) < share
    found = areas(rng.normal(size=200_000) + apart * whole, whole)
    assert found is not None
    truth = float(ndtr(apart / np.sqrt(2))), found[1].value
    held = np.zeros(2)
    repetitions = 200
    for _ in range(repetitions):
        positive = rng.random(n) < share
        score = rng.normal(size=n) + apart * positive
        groups = None
        if grouped:  # each image three times: no more is known than from one
            positive, score = np.repeat(positive, 3), np.repeat(score, 3)
            groups = np.repeat(np.arange(n), 3)
        found = areas(score, positive, groups)
        assert found is not None
        held += [covers(area.figure, value) for area, value in zip(found, truth, strict=True)]
    # 93-97% and, on either side, two standard errors of 200 repetitions
    assert (held / repetitions >= 0.90).all(), held / repetitions
    assert (held / repetitions <= 0.995).all(), held / repetitions


def test_the_interval_of_a_mean_over_classes_holds_the_truth() -> None:
    rng = np.random.default_rng(3)
    k, n, repetitions, apart = 4, 120, 200, 1.5
    held = 0
    for _ in range(repetitions):
        targets = rng.integers(0, k, n)
        truth = targets[:, None] == np.arange(k)
        scores = apart * truth + rng.normal(size=(n, k))
        found = [areas(scores[:, i], truth[:, i]) for i in range(k)]
        held += covers(mean_area([one[0] for one in found if one]), float(ndtr(apart / 2**0.5)))
    assert 0.90 <= held / repetitions <= 0.995


@pytest.mark.parametrize("tell", [sensitivity_at, specificity_at])
def test_the_interval_of_a_rate_knows_that_its_threshold_was_found_here(
    tell: Callable[..., object],
) -> None:
    rng = np.random.default_rng(0)
    n, apart, rate, repetitions = 100, 2.0, 0.95, 200
    truth = float(ndtr(apart - 1.6449))
    held = 0
    for _ in range(repetitions):
        positive = np.arange(2 * n) < n
        trade = tell(rng.normal(size=2 * n) + apart * positive, positive, rate)
        held += covers(trade.value, truth)  # type: ignore[attr-defined]
    assert 0.90 <= held / repetitions <= 0.995, held / repetitions


def test_two_classes_are_told_at_the_usual_rates_and_more_when_asked(synthetic: Make) -> None:
    e = evaluate(synthetic(600, 2))
    told = [(trade.promised, trade.held_at) for trade in e.per_class[0].trades]
    assert told == [("specificity", 0.95), ("specificity", 0.99), ("sensitivity", 0.95),
                    ("sensitivity", 0.99)]  # fmt: skip
    assert all(0 < trade.threshold < 1 for one in e.per_class for trade in one.trades)
    p = synthetic(400, 3)
    assert evaluate(p).per_class[0].trades == ()
    asked = evaluate(p, held=Held(specificities=(0.9,)))
    plain = json.loads(json.dumps(to_json(asked, split="val", role="report"), allow_nan=False))
    (at,) = plain["per_class"][0]["at"]
    assert (at["promised"], at["held_at"], set(at["sensitivity"])) == (
        "specificity", 0.9, {"value", "low", "high"})  # fmt: skip
    score, positive = log_odds(p.logits)[:, 0], p.targets == 0
    chosen = score > np.log(at["threshold"] / (1 - at["threshold"])) + 1e-9
    assert (~chosen[~positive]).mean() >= 0.9
    assert chosen[positive].mean() == pytest.approx(at["sensitivity"]["value"])
    with pytest.raises(UsageError, match="specificities 95"):
        Held(specificities=(95,))


def test_of_two_classes_the_mean_is_as_sure_as_each(synthetic: Make) -> None:
    e = evaluate(synthetic(300, 2))
    mean, one = e.figure("macro_auroc"), e.per_class[0].auroc
    assert one is not None
    assert (mean.value, mean.low, mean.high) == pytest.approx(
        (one.value, one.low, one.high), abs=2e-3
    )


def test_the_influence_of_an_image_is_what_it_adds() -> None:
    rng = np.random.default_rng(0)
    positive = np.arange(60) % 3 == 0
    score = np.round(rng.normal(size=60) + positive, 1)  # with ties
    found = areas(score, positive)
    assert found is not None
    for row in (0, 1, 2, 30, 59):  # a thousandth of an image more
        weights = np.ones(60)
        weights[row] += 1e-3
        moved = (roc_auc_score(positive, score, sample_weight=weights),
                 average_precision_score(positive, score, sample_weight=weights))  # fmt: skip
        for area, value in zip(found, moved, strict=True):
            assert (value - area.value) / 1e-3 == pytest.approx(area.influence[row], abs=1e-4)


def test_one_image_of_a_class_has_no_area_and_is_left_out_of_the_mean(called: Make) -> None:
    e = evaluate(called([(0, 0)] * 9 + [(1, 1)] * 9 + [(2, 2)], 4))
    assert [one.auroc is None for one in e.per_class] == [False, False, True, True]
    assert "at least 2 images" in e.undefined["per_class.auroc"]
    figure = e.figure("macro_auroc")
    assert figure.value == 1
    assert figure.low < 0.95
    alone = evaluate(called([(0, 0)] * 5, 2))
    assert alone.figures["macro_auroc"] is None
    assert "at least 2 images" in alone.undefined["macro_auroc"]
    json.dumps(to_json(alone, split="val", role="report"), allow_nan=False)
