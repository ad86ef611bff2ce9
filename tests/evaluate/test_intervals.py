from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from plusx.evaluate.intervals import (
    Figure,
    bootstrap_mean,
    design_effects,
    effective_sizes,
    group_numbers,
    proportion,
    wilson,
)
from plusx.evaluate.metrics import _macro, _share


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (20, 20), (0, 20), (7, 9), (950, 1000)])
def test_wilson_equals_scipy(hits: int, n: int) -> None:
    low, high = wilson(hits / n, n)
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_perfect_score_on_20_images_is_not_certain() -> None:
    figure = proportion(1.0, 20)
    assert figure.high == 1.0
    assert figure.low == pytest.approx(0.8389, abs=1e-4)


def test_wilson_of_no_images_is_everything() -> None:
    assert tuple(map(float, wilson(0.3, 0.0))) == (0.0, 1.0)


def test_a_figure_as_json() -> None:
    assert Figure(0.5, 0.25, 0.75).to_json() == {"value": 0.5, "low": 0.25, "high": 0.75}


def test_groups_of_one_image_are_images() -> None:
    right = np.array([True, False, True, True])
    zero = np.zeros(4, dtype=np.int64)
    assert effective_sizes(right, zero, 1, np.array([3, 1, 0, 2])).tolist() == [4.0]


def test_a_perfect_score_counts_groups_not_images() -> None:
    groups = np.repeat(np.arange(30), 8)
    size = effective_sizes(np.ones(240, dtype=bool), np.zeros(240, dtype=np.int64), 1, groups)[0]
    assert 25 < size < 30  # 30 groups, less what Student's t takes for their small number


def test_one_group_says_nothing_about_others() -> None:
    groups = np.zeros(50, dtype=np.int64)
    size = effective_sizes(np.ones(50, dtype=bool), groups, 1, groups)[0]
    assert proportion(1.0, float(size)) == Figure(1.0, 0.0, 1.0)


def test_design_effects_are_per_subset() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 5)
    subset = np.repeat([0, 1], 1000)
    alike = np.repeat(rng.normal(size=200), 5)  # all images of a group are the same
    residuals = np.concatenate([alike, rng.normal(size=1000)])
    effects = design_effects(residuals, subset, 2, groups)
    assert effects[0] == pytest.approx(5, rel=0.05)
    assert effects[1] == pytest.approx(1, abs=0.3)


def test_group_numbers_follow_first_appearance() -> None:
    assert group_numbers(None) is None
    numbers = group_numbers(("b", "a", "b"))
    assert numbers is not None
    assert numbers.tolist() == [0, 1, 0]


def test_bootstrap_of_a_mean_agrees_with_theory_and_its_seed() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    figure = bootstrap_mean(values, groups=None, seed=1)
    assert figure.value == pytest.approx(values.mean())
    assert figure.high - figure.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert figure == bootstrap_mean(values, groups=None, seed=1)
    assert figure != bootstrap_mean(values, groups=None, seed=2)


def test_bootstrap_resamples_whole_groups() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 10)
    alone = bootstrap_mean(values, groups=None, seed=0)
    grouped = bootstrap_mean(values, groups=np.repeat(np.arange(50), 10), seed=0)
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)


def covers(figure: Figure, truth: float) -> bool:
    return figure.low <= truth <= figure.high


def population(recalls: list[float], shares: list[float]) -> np.ndarray:
    """(K, K) probabilities of (true, predicted); wrong images spread evenly."""
    k = len(recalls)
    cells = np.tile((1 - np.array(recalls))[:, None] / (k - 1), (1, k))
    np.fill_diagonal(cells, recalls)
    return cells * np.array(shares)[:, None]


@pytest.mark.parametrize("n", [50, 100, 200, 500])
@pytest.mark.parametrize(
    ("recalls", "shares"),
    [([0.9, 0.9], [0.5, 0.5]), ([0.95, 0.8], [0.7, 0.3]), ([0.95, 0.85, 0.7], [0.5, 0.3, 0.2])],
)
def test_intervals_hold_the_truth_95_times_in_100(
    recalls: list[float], shares: list[float], n: int
) -> None:
    cells = population(recalls, shares)
    k, repetitions = len(recalls), 200
    f1 = 2 * np.diag(cells) / (cells.sum(axis=0) + cells.sum(axis=1))
    rng = np.random.default_rng(n)
    held = np.zeros(3)
    for _ in range(repetitions):
        true, called = np.divmod(rng.choice(k * k, size=n, p=cells.ravel()), k)
        confusion = np.bincount(true * k + called, minlength=k * k).reshape(k, k)
        held += [
            covers(_share(true == called, None), np.trace(cells)),
            covers(_macro(confusion, "recall", (true, called), None), np.mean(recalls)),
            covers(_macro(confusion, "f1", (true, called), None), f1.mean()),
        ]
    # The promise is 93-97%. The share held is one draw, with a standard error of
    # sqrt(.05 x .95 / 200) = 1.5 points: two of these more on either side.
    assert (held / repetitions >= 0.90).all(), held / repetitions
    assert (held / repetitions <= 0.995).all(), held / repetitions


def test_group_intervals_hold_the_truth_where_image_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    count, repetitions, truth = 40, 200, 0.85
    held = np.zeros(3)
    for _ in range(repetitions):
        groups = np.repeat(np.arange(count), rng.integers(2, 9, count))
        rate = rng.beta(truth * 3, (1 - truth) * 3, count)  # intraclass correlation 1/4
        right = rng.random(len(groups)) < rate[groups]
        true = rng.integers(0, 2, count)[groups]
        called = np.where(right, true, 1 - true)
        confusion = np.bincount(true * 2 + called, minlength=4).reshape(2, 2)
        held += [
            covers(_share(right, groups), truth),
            covers(_macro(confusion, "recall", (true, called), groups), truth),
            covers(_share(right, None), truth),
        ]
    assert (held[:2] / repetitions >= 0.90).all(), held / repetitions
    assert held[2] / repetitions < 0.88, held / repetitions
