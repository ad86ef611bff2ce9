from __future__ import annotations

import numpy as np
import pytest

from plusx.errors import DataError, UsageError
from plusx.evaluate.abstain import (
    risk_coverage,
    threshold_for_coverage,
    threshold_for_precision,
    threshold_for_sensitivity,
)
from plusx.evaluate.conformal import class_thresholds, sets


def answers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sureness, and answers right just as often."""
    rng = np.random.default_rng(seed)
    sure = 0.5 + 0.5 * rng.beta(3, 1, n)
    return sure, rng.random(n) < sure


def test_risk_and_coverage_of_a_small_case() -> None:
    curve = risk_coverage(np.array([0.9, 0.8, 0.8, 0.6]), np.array([True, True, False, False]))
    assert curve.coverage.tolist() == [0.25, 0.75, 0.75, 1.0]
    assert curve.risk == pytest.approx([0.0, 1 / 3, 1 / 3, 0.5])
    assert curve.area == pytest.approx(np.mean([0, 1 / 3, 1 / 3, 0.5]))


def test_a_promised_precision_is_kept_on_new_images() -> None:
    kept, share = [], []
    for seed in range(200):
        sure, right = answers(400, seed)
        threshold = threshold_for_precision(sure, right, 0.9)
        new, ok = answers(20_000, 1000 + seed)
        kept.append(ok[new >= threshold].mean() >= 0.9)
        share.append((new >= threshold).mean())
    assert np.mean(kept) >= 0.85, np.mean(kept)
    assert np.mean(share) > 0.2


def test_a_precision_out_of_reach_is_refused() -> None:
    sure, right = answers(200, 0)
    with pytest.raises(DataError, match=r"no sureness gives a precision of 99\.9%"):
        threshold_for_precision(sure, right, 0.999)
    with pytest.raises(UsageError, match=r"precision 95 must"):
        threshold_for_precision(sure, right, 95)


def test_a_wanted_coverage_is_met_exactly() -> None:
    sure, _ = answers(1000, 3)
    threshold = threshold_for_coverage(sure, 0.8)
    assert (sure >= threshold).mean() == pytest.approx(0.8, abs=0.002)
    assert threshold_for_coverage(sure, 1.0) == sure.min()


def test_a_promised_sensitivity_is_kept_on_average() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        score = rng.normal(size=120)
        threshold = threshold_for_sensitivity(score, np.ones(120, bool), 0.95)
        found.append((rng.normal(size=5000) >= threshold).mean())
    assert 0.95 <= np.mean(found) <= 0.97
    with pytest.raises(DataError, match="10 images of the class are too few"):
        threshold_for_sensitivity(score, np.arange(120) < 10, 0.95)


@pytest.mark.parametrize("per_class", [False, True])
def test_sets_cover_as_often_as_promised(per_class: bool) -> None:
    rng = np.random.default_rng(1)
    covered, sizes = [], []

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        logits = rng.normal(size=(n, 4)) * 2
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return p, (p.cumsum(1) < rng.random((n, 1))).sum(1)

    for _ in range(100):
        p, y = draw(400)
        thresholds = class_thresholds(p, y, coverage=0.9, per_class=per_class)
        q, z = draw(4000)
        inside = sets(q, thresholds)
        if per_class:
            covered.append(min(inside[z == k, k].mean() for k in range(4)) + 0.02)
        else:
            covered.append(inside[np.arange(4000), z].mean())
        sizes.append(inside.sum(1).mean())
    assert 0.885 <= np.mean(covered) <= 0.925
    assert 1 < np.mean(sizes) < 3


def test_too_few_images_for_the_coverage_are_refused() -> None:
    p = np.full((8, 2), 0.5)
    with pytest.raises(DataError, match="8 images are too few for sets of 90% coverage"):
        class_thresholds(p, np.zeros(8, int), coverage=0.9)
    with pytest.raises(UsageError, match="coverage 90"):
        class_thresholds(p, np.zeros(8, int), coverage=90)
