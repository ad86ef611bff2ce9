from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from plusx.errors import DataError, PlusxError
from plusx.evaluate import Predictions
from plusx.evaluate.selection import figure_then_nll, halves

Make = Callable[..., Predictions]


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
    half = halves(called([(0, 0), (0, 0), (1, 1), (1, 0)], 3), seed=0)
    assert sorted(half[:2]) == sorted(half[2:]) == [0, 1]
    with pytest.raises(DataError, match=r"class 'c1' has 1 image"):
        halves(called([(0, 0), (0, 0), (1, 1)], 2), seed=0)


def test_one_group_or_no_image_cannot_be_halved(called: Make) -> None:
    p = called([(0, 0), (0, 0), (1, 1), (1, 0)], 2)
    grouped = Predictions(p.logits, p.targets, p.paths, p.classes, groups=("a",) * 4)
    with pytest.raises(DataError, match="1 groups cannot make two halves"):
        halves(grouped, seed=0)
    with pytest.raises(PlusxError, match="0 images"):
        halves(p.take([]), seed=0)


def test_unlabelled_images_are_refused_by_name(called: Make) -> None:
    p = called([(0, 0), (0, 0), (1, 1), (1, 0)], 2)
    unlabelled = Predictions(p.logits, np.array([0, 0, -1, 1]), p.paths, p.classes)
    with pytest.raises(DataError, match=r"2\.jpg: has no label"):
        halves(unlabelled, seed=0)


def test_the_score_is_the_figure_and_then_the_likelihood(called: Make) -> None:
    p = called([(0, 0), (0, 1), (1, 1), (1, 1)], 2)
    top1, likelihood = figure_then_nll(p)
    assert top1 == 0.75
    assert likelihood < 0
    surer = Predictions(p.logits * 2, p.targets, p.paths, p.classes)
    assert figure_then_nll(surer)[0] == 0.75


def test_multi_scores_the_order_of_the_images_and_then_the_likelihood() -> None:
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    names, classes = tuple("abcd"), ("x", "y", "never")
    right = np.where(targets, 2, -2).astype(np.float32)
    good = figure_then_nll(Predictions(right, targets, names, classes, "multi"))
    bad = figure_then_nll(Predictions(-right, targets, names, classes, "multi"))
    dull = figure_then_nll(Predictions(right / 4, targets, names, classes, "multi"))
    assert good[0] == dull[0] == 1.0
    assert bad[0] < 0.6
    assert good > dull > bad
