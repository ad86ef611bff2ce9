from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from plusx.errors import DataError, PlusxError, UsageError
from plusx.evaluate import Predictions, cross_fit, evaluate
from plusx.evaluate.selection import halves, top1_then_nll

Make = Callable[..., Predictions]


def relit(p: Predictions, logits: np.ndarray) -> Predictions:
    return Predictions(logits.astype(np.float32), p.targets, p.paths, p.classes, p.task, p.groups)


def chance(p: Predictions, count: int) -> list[Predictions]:
    """Candidates that know nothing: logits drawn at random."""
    rng = np.random.default_rng(5)
    return [relit(p, rng.normal(size=p.logits.shape)) for _ in range(count)]


def test_a_clear_winner_is_chosen_on_both_halves(synthetic: Make) -> None:
    weak, strong = synthetic(100, 4, signal=0.5), synthetic(100, 4, signal=6.0)
    fit = cross_fit([weak, strong, weak], seed=0)
    assert fit.chosen == (1, 1)
    assert fit.best == 1
    np.testing.assert_array_equal(fit.predictions.logits, strong.logits)
    assert fit.predictions.paths == strong.paths
    assert fit.predictions.features is None


def test_each_half_is_judged_by_what_the_other_chose(synthetic: Make) -> None:
    p = synthetic(60, 3)
    half = halves(p, seed=3)
    truth = np.eye(3)[p.targets] * 5
    good = [relit(p, np.where((half == side)[:, None], truth, -truth)) for side in (0, 1)]
    fit = cross_fit(good, seed=3)
    np.testing.assert_array_equal(fit.half, half)
    assert fit.chosen == (0, 1)
    # What is perfect on one half is all wrong on the other: honest top1 is 0, the naive one 1/2.
    assert evaluate(fit.predictions).figure("top1").value == 0


def test_choosing_among_candidates_that_know_nothing_gains_nothing(synthetic: Make) -> None:
    p = synthetic(400, 2)
    candidates = chance(p, 200)
    fit = cross_fit(candidates, seed=0)
    naive = evaluate(candidates[fit.best]).figure("top1").value
    assert naive > 0.55
    honest = evaluate(fit.predictions).figure("top1")
    assert honest.low < 0.5 < honest.high


def test_ties_go_to_lower_nll_and_then_to_the_earlier(synthetic: Make) -> None:
    p = synthetic(40, 2, signal=8.0)
    assert (p.predicted == p.targets).all()
    surer = relit(p, p.logits * 2)
    assert cross_fit([p, surer], seed=0).best == 1
    assert cross_fit([p, p, p], seed=0).best == 0
    assert cross_fit([p, p, p], seed=0).chosen == (0, 0)


def test_another_score_may_choose(synthetic: Make) -> None:
    weak, strong = synthetic(50, 2, signal=0.5), synthetic(50, 2, signal=6.0)
    fit = cross_fit([weak, strong], seed=0, score=lambda p: tuple(-x for x in top1_then_nll(p)))
    assert fit.best == 0


@pytest.mark.parametrize(("n", "k"), [(101, 2), (100, 7), (999, 30)])
def test_halves_are_stratified_and_seeded(synthetic: Make, n: int, k: int) -> None:
    p = synthetic(n, k)
    half = halves(p, seed=1)
    assert abs(int(half.sum()) - n / 2) <= 0.5
    for c in range(k):
        of_class = half[p.targets == c]
        assert abs(of_class.sum() - len(of_class) / 2) <= 0.5
    np.testing.assert_array_equal(half, halves(p, seed=1))
    assert (half != halves(p, seed=2)).any()


def test_groups_stay_together_and_halves_stay_even(synthetic: Make) -> None:
    p = synthetic(300, 3)
    rng = np.random.default_rng(0)
    names = tuple(f"g{i}" for i in rng.integers(0, 40, 300))
    p = Predictions(p.logits, p.targets, p.paths, p.classes, groups=names)
    half = halves(p, seed=0)
    for name in set(names):
        assert len(set(half[[i for i, g in enumerate(names) if g == name]])) == 1
    assert 0.42 < half.mean() < 0.58
    for c in range(3):
        assert 0.35 < half[p.targets == c].mean() < 0.65


def test_groups_of_one_class_each_are_spread_over_the_halves(called: Make) -> None:
    p = called([(i // 20, 0) for i in range(80)], 4)
    names = tuple(f"g{i // 5}" for i in range(80))
    half = halves(Predictions(p.logits, p.targets, p.paths, p.classes, groups=names), seed=0)
    assert [half[p.targets == c].mean() for c in range(4)] == [0.5] * 4


def test_two_images_per_class_suffice_and_one_does_not(called: Make) -> None:
    fit = cross_fit([called([(0, 0), (0, 0), (1, 1), (1, 0)], 3)], seed=0)
    assert sorted(fit.half[:2]) == sorted(fit.half[2:]) == [0, 1]
    with pytest.raises(DataError, match=r"class 'c1' has 1 image"):
        cross_fit([called([(0, 0), (0, 0), (1, 1)], 2)], seed=0)


def test_one_group_or_no_image_cannot_be_halved(called: Make) -> None:
    p = called([(0, 0), (0, 0), (1, 1), (1, 0)], 2)
    grouped = Predictions(p.logits, p.targets, p.paths, p.classes, groups=("a",) * 4)
    with pytest.raises(DataError, match="1 groups cannot make two halves"):
        cross_fit([grouped], seed=0)
    with pytest.raises(PlusxError, match="0 images"):
        cross_fit([p.take([])], seed=0)


def test_unlabelled_images_are_refused_by_name(called: Make) -> None:
    p = called([(0, 0), (0, 0), (1, 1), (1, 0)], 2)
    unlabelled = Predictions(p.logits, np.array([0, 0, -1, 1]), p.paths, p.classes)
    with pytest.raises(DataError, match=r"2\.jpg: has no label"):
        cross_fit([unlabelled], seed=0)


def test_candidates_must_be_of_the_same_images(synthetic: Make) -> None:
    p = synthetic(20, 2)
    with pytest.raises(UsageError, match=r"candidates\[1\]\.paths differs"):
        cross_fit([p, p.take(list(range(19, -1, -1)))], seed=0)
    other = Predictions(p.logits, 1 - p.targets, p.paths, p.classes)
    with pytest.raises(UsageError, match=r"candidates\[1\]\.targets differ"):
        cross_fit([p, other], seed=0)
    with pytest.raises(UsageError, match="empty"):
        cross_fit([], seed=0)


def test_multi_chooses_by_nll(synthetic: Make) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((40, 3)) < 0.4
    paths, classes = tuple(map(str, range(40))), ("a", "b", "c")
    good = Predictions(
        np.where(targets, 2, -2).astype(np.float32), targets, paths, classes, "multi"
    )
    fit = cross_fit([relit(good, -good.logits), good], seed=0)
    assert (fit.best, fit.chosen) == (1, (1, 1))
