"""The linear probe: the right minimum, an honest cross-validation, sane at the edges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from plusx.errors import UsageError
from plusx.fit import probe, softmax
from plusx.fit.probe import GRID, Head, cross_validate, fit_probe
from plusx.fit.rows import deal_folds


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the probe itself does for little data: threads would only wait for each other."""
    with softmax.one_thread_if_small(0):
        yield


def blobs(
    n: int = 120, d: int = 40, classes: int = 3, *, gap: float = 2.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features with a shift, uneven scales and a dead column; targets in no order."""
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(n) % classes)
    centres = rng.normal(size=(classes, d)) * gap / np.sqrt(d)
    features = centres[targets] + rng.normal(size=(n, d))
    features = features * np.exp(rng.normal(size=d)) + 5
    features[:, 0] = 1.5
    return features.astype(np.float32), targets.astype(np.int64)


def scaled(features: np.ndarray) -> np.ndarray:
    """The scaling the docstring states, written down a second time."""
    wide = features.astype(np.float64)
    deviation = wide.std(0)
    out = (wide - wide.mean(0)) / np.sqrt(np.maximum(deviation, 0.01 * deviation.mean()))
    return out / np.sqrt((out**2).sum(1).mean())


def objective(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, penalty: float
) -> float:
    logits = torch.from_numpy(x @ weight.T + bias)
    nll = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")
    ridge = penalty * (weight**2).sum() + softmax.BIAS_PENALTY * (bias**2).sum()
    return float(nll) + 0.5 * float(ridge)


def reference(
    x: np.ndarray, y: np.ndarray, penalty: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's minimum; the bias is a constant column so that it is penalised alike."""
    height = np.sqrt(penalty / softmax.BIAS_PENALTY)
    wide = np.hstack([x, np.full((len(x), 1), height)])
    classes = int(y.max()) + 1
    strength = 1 / penalty if classes > 2 else 2 / penalty  # two classes share one weight there
    model = LogisticRegression(C=strength, fit_intercept=False, tol=1e-7, max_iter=20_000)
    coef = model.fit(wide, y, sample_weight=weights).coef_
    if classes == 2:
        coef = np.vstack([-coef / 2, coef / 2])
    return coef[:, :-1], coef[:, -1] * height


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(60, 150), (150, 30)])
@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_solution_is_scikit_learns(n: int, d: int, classes: int, penalty: float) -> None:
    features, y = blobs(n, d, classes)
    x = scaled(features)
    rows = softmax.Design.of(features, np.arange(n))
    problem = softmax.Problem(rows, y, classes, np.ones((n, 1)))
    coefficients = problem.solve(penalty, tolerance=1e-5)[:, :, 0]
    head = Head(*rows.unturned(coefficients))
    weight, bias = reference(x, y, penalty)
    best = objective(x, y, weight, bias, penalty)
    ours = coefficients.numpy()
    logits = rows.times(coefficients)
    nll = float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum"))
    ridge = penalty * (ours[:-1] ** 2).sum() + softmax.BIAS_PENALTY * (ours[-1] ** 2).sum()
    assert nll + 0.5 * ridge == pytest.approx(best, rel=1e-5)
    expected = x @ weight.T + bias
    expected = expected - expected.mean(1, keepdims=True)
    got = head.logits(features)
    np.testing.assert_allclose(got - got.mean(1, keepdims=True), expected, atol=0.02)
    assert (got.argmax(1) == expected.argmax(1)).all()


def test_all_folds_at_once_equal_each_fold_alone() -> None:
    features, y = blobs()
    rows = softmax.Design.of(features, np.arange(len(y)))
    masks = np.stack([np.arange(len(y)) % 5 != f for f in range(5)], 1).astype(np.float64)
    together = softmax.Problem(rows, y, 3, masks).solve(0.01, tolerance=1e-6)
    for f in range(5):
        alone = softmax.Problem(rows, y, 3, masks[:, f : f + 1]).solve(0.01, tolerance=1e-6)
        torch.testing.assert_close(together[:, :, f], alone[:, :, 0], atol=2e-4, rtol=0)


def test_the_penalty_is_the_strongest_within_one_standard_error() -> None:
    losses = np.array([[9.0, 9, 9, 9], [2, 1, 0, 2], [1, 1, 0, 1], [1, 1, 0, 0], [3, 3, 3, 3]])
    total, squares = losses.sum(1), (losses**2).sum(1)
    # least: 2.0, standard error of the sum sqrt(4 * var) = 1: 3.0 is within, 5.0 is not
    assert probe._strongest(total, squares, np.array(4)) == 2


def test_the_penalty_is_strong_on_hard_data_and_weak_on_easy() -> None:
    hard, easy = (fit_probe(*blobs(300, gap=gap), classes=3) for gap in (0.5, 12.0))
    assert hard.penalty > 10 * easy.penalty
    for fitted in (hard, easy):
        nll = dict(zip(fitted.grid, fitted.cv_nll, strict=True))
        assert fitted.grid == GRID
        assert len(fitted.cv_right) == len(GRID)
        assert nll[fitted.penalty] < min(fitted.cv_nll) + 0.1
        assert fitted.penalty >= min(nll, key=nll.__getitem__)
    assert easy.cv_right[GRID.index(easy.penalty)] > 0.97
    assert easy.head.weight.shape == (3, 40)
    assert easy.head.weight.dtype == easy.head.bias.dtype == np.float32


def test_cross_validated_top1_tells_what_new_images_give() -> None:
    features, y = blobs(1500, 20)
    train, rest = slice(0, 300), slice(300, None)
    result = cross_validate(features[train], y[train], classes=3)
    head = fit_probe(features[train], y[train], classes=3).head
    new = (head.logits(features[rest]).argmax(1) == y[rest]).mean()
    assert result.figure.low < new < result.figure.high
    assert result.figure.value == pytest.approx(np.mean(result.by_repeat))
    assert result.spread == pytest.approx(np.std(result.by_repeat, ddof=1))
    assert result.logits.shape == (10, 300, 3)
    width = result.figure.high - result.figure.low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(new * (1 - new) / 300), rel=0.2)


def test_pure_noise_stays_at_chance() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    found = [
        cross_validate(rng.normal(size=(100, 300)), y, classes=2, repeats=3).figure
        for _ in range(8)
    ]
    assert 0.44 < np.mean([figure.value for figure in found]) < 0.56
    assert sum(figure.low < 0.5 < figure.high for figure in found) >= 6


def test_neither_head_nor_penalty_sees_the_held_out_labels() -> None:
    """Other labels for one fold leave that fold's penalty and predictions as they were."""
    features, y = blobs()
    groups = np.arange(len(y))
    fold = np.arange(len(y))[None] % 4
    changed = y.copy()
    changed[fold[0] == 1] = (changed[fold[0] == 1] + 1) % 3
    rows = softmax.Design.of(features, groups)
    found = []
    for labels in (y, changed):
        cost = np.ones((len(y), 1))
        choice = probe._nested_choice(rows, labels, 3, cost, fold, 4)
        found.append((choice, probe._out_of_fold(rows, labels, 3, cost, fold, choice)))
    (choice, logits), (choice_changed, logits_changed) = found
    assert choice[0, 1] == choice_changed[0, 1]
    held = fold[0] == 1
    np.testing.assert_allclose(logits[0, held], logits_changed[0, held], atol=5e-3)
    assert np.abs(logits[0, ~held] - logits_changed[0, ~held]).max() > 0.5


def test_groups_stay_whole_and_widen_the_interval() -> None:
    features, y = blobs(120, 40, 3, gap=0.0)
    rng = np.random.default_rng(1)
    names = [f"patient {i // 6}" for i in range(120)]
    patient = np.arange(120) // 6
    features += rng.normal(size=(20, 40))[patient] * 5  # every patient looks like himself
    y = np.array([0, 1, 2] * 7)[:20][patient]
    alone = cross_validate(features, y, classes=3, repeats=2)
    whole = cross_validate(features, y, classes=3, repeats=2, groups=names)
    assert alone.figure.value > 0.9  # a leak
    assert whole.figure.value < 0.6
    for repeat in whole.folds:
        assert all(len(set(repeat[patient == p])) == 1 for p in range(20))
    count, value = 120, whole.figure.value
    assert whole.figure.high - whole.figure.low > 3.5 * np.sqrt(value * (1 - value) / count)
    leaky, honest = (fit_probe(features, y, classes=3, groups=g) for g in (None, names))
    assert min(leaky.cv_nll) < 0.5 < min(honest.cv_nll)


@given(st.lists(st.integers(1, 30), min_size=2, max_size=6), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_folds_are_stratified(counts: list[int], seed: int) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    dealt = deal_folds(y, np.arange(len(y)), 5, np.random.default_rng(seed))
    sizes = np.bincount(dealt, minlength=5)
    assert sizes.max() - sizes.min() <= 1
    for label in range(len(counts)):
        held = np.bincount(dealt[y == label], minlength=5)
        assert held.max() - held.min() <= 1


def test_same_seed_same_bits_on_any_number_of_threads() -> None:
    features, y = blobs()
    before = torch.get_num_threads()
    heads, logits = [], []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            heads.append(fit_probe(features, y, classes=3, seed=3).head)
            logits.append(cross_validate(features, y, classes=3, repeats=2, seed=3).logits)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)
    np.testing.assert_array_equal(logits[0], logits[1])
    other = cross_validate(features, y, classes=3, repeats=2, seed=4)
    assert not np.array_equal(other.logits, logits[0])


def test_many_images_are_read_in_blocks_and_give_the_same_head(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    features, y = blobs(3000, 30, 4)
    np.save(tmp_path / "features.npy", features.astype(np.float16))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    whole = fit_probe(mapped, y, classes=4)
    monkeypatch.setattr(softmax, "IN_MEMORY", 50_000)
    monkeypatch.setattr(softmax, "BLOCK_ROWS", 700)
    blocks = fit_probe(mapped, y, classes=4)
    assert blocks.penalty == whole.penalty
    assert blocks.images_fitted == 3000
    np.testing.assert_allclose(
        blocks.head.logits(mapped), whole.head.logits(mapped), atol=5e-3, rtol=0
    )


def test_the_penalty_is_chosen_on_a_sample_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    features, y = blobs(2000, 20, 4)
    monkeypatch.setattr(probe, "CHOOSE_IMAGES", 200)
    monkeypatch.setattr(probe, "FIT_LOGITS", 1000 * 4)
    fitted = fit_probe(features, y, classes=4)
    assert (fitted.images_choosing, fitted.images_fitted) == (200, 1000)


def test_class_weights_are_scikit_learns_sample_weights() -> None:
    features, y = blobs(200, 20, 2, gap=1.0)
    keep = (y == 0) | (np.arange(200) % 4 == 0)
    features, y = features[keep], y[keep]
    given = np.array([0.5, 4.0])
    fitted = fit_probe(features, y, classes=2, class_weights=given)
    cost = given[y] / given[y].mean()
    weight, bias = reference(scaled(features), y, fitted.penalty, cost)
    expected = scaled(features) @ weight.T + bias
    np.testing.assert_allclose(
        np.diff(fitted.head.logits(features)), np.diff(expected), atol=5e-3, rtol=0
    )
    plain = fit_probe(features, y, classes=2).head.logits(features)
    assert (fitted.head.logits(features).argmax(1) == 1).sum() > (plain.argmax(1) == 1).sum()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_scale_and_shift_of_the_features_do_not_matter(scale: float) -> None:
    features, y = blobs()
    plain = fit_probe(features, y, classes=3)
    other = fit_probe(features.astype(np.float64) * scale + scale, y, classes=3)
    assert other.penalty == plain.penalty
    got = other.head.weight @ (features.T.astype(np.float64) * scale + scale)
    np.testing.assert_allclose(
        got.T + other.head.bias, plain.head.logits(features), atol=5e-2, rtol=0
    )


def test_a_class_of_one_image_and_a_class_of_none() -> None:
    features, y = blobs(40, 10, 2)
    y[0] = 2
    head = fit_probe(features, y, classes=4).head
    assert np.isfinite(head.weight).all()
    assert np.abs(head.bias).max() < 1e3
    assert not (head.logits(features).argmax(1) == 3).any()
    assert np.isfinite(cross_validate(features, y, classes=4, repeats=2).logits).all()


def test_two_images_and_constant_features_still_give_a_head() -> None:
    head = fit_probe(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1]), classes=2).head
    assert head.logits(np.array([[0.0, 1.0], [1.0, 0.0]])).argmax(1).tolist() == [0, 1]
    flat = fit_probe(np.ones((10, 4)), np.arange(10) % 5 // 3, classes=2).head
    assert flat.logits(np.ones((1, 4))).argmax() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((5, 3))}, r"features of shape \(5, 3\) do not fit 6 targets"),
        ({"targets": np.array([0, 1, -1, 0, 1, 0])}, "leave unlabelled images out"),
        ({"targets": np.zeros(6, np.int64)}, "one class only"),
        ({"class_weights": np.array([1.0, 0.0])}, "class_weights must be 2 numbers above 0"),
        ({"groups": ["a"] * 6}, "all images are of one group"),
        ({"groups": ["a"] * 5}, "groups has 5 entries for 6 images"),
        ({"features": np.full((6, 3), np.inf)}, "not finite"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"features": np.eye(6)[:, :3], "targets": np.arange(6) % 2}
    given.update(change)
    with pytest.raises(UsageError, match=message):
        fit_probe(given.pop("features"), given.pop("targets"), classes=2, **given)


def test_cross_validation_refuses_what_cannot_work() -> None:
    features, y = blobs(30, 5, 2)
    with pytest.raises(UsageError, match="at least 3 folds"):
        cross_validate(features, y, classes=2, folds=2)
    with pytest.raises(UsageError, match="more than the 4 groups"):
        cross_validate(features, y, classes=2, groups=np.arange(30) % 4)
    with pytest.raises(UsageError, match="too much memory; use fewer repeats"):
        cross_validate(features, y, classes=2, repeats=100_000)


def test_few_large_groups_of_many_images() -> None:
    features, y = blobs(2500, 5, 2, gap=4.0)
    for seed in range(5):  # two groups leave three of the five folds empty
        fitted = fit_probe(features, y, classes=2, seed=seed, groups=np.arange(2500) // 1250)
        assert max(fitted.cv_right) > 0.7


def test_a_sample_for_the_fit_is_not_the_sample_that_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, y = blobs(600, 10, 3, gap=8.0)
    monkeypatch.setattr(probe, "CHOOSE_IMAGES", 150)
    monkeypatch.setattr(probe, "FIT_LOGITS", 10)
    fitted = fit_probe(features, y, classes=3)
    assert fitted.images_fitted == fitted.images_choosing == 150
    assert (fitted.head.logits(features).argmax(1) == y).mean() > 0.9


def test_photographs_as_thumbnails_are_told_apart_a_little(shared_data: Path) -> None:
    """Real data, weak features: 8x8 pixels tell more than chance and less than a network."""
    from PIL import Image

    folder = shared_data / "data" / "hymenoptera"
    files = sorted(folder.glob("*/*/*.jpg"))
    small = [np.asarray(Image.open(f).convert("RGB").resize((8, 8)), np.float32) for f in files]
    y = np.array([f.parent.name == "bees" for f in files], np.int64)
    result = cross_validate(np.stack(small).reshape(len(y), -1), y, classes=2, repeats=2)
    assert len(y) == 396
    assert 0.55 < result.figure.value < 0.85


def test_a_large_group_is_dealt_first_and_balanced_by_the_small() -> None:
    groups = np.concatenate([np.zeros(20, np.int64), np.arange(1, 81)])
    for seed in range(5):
        dealt = deal_folds(np.arange(100) % 2, groups, 5, np.random.default_rng(seed))
        assert np.bincount(dealt, minlength=5).tolist() == [20] * 5


def test_little_data_keeps_to_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with softmax.one_thread_if_small(softmax.ONE_THREAD):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with softmax.one_thread_if_small(softmax.ONE_THREAD + 1):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
