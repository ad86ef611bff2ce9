"""The linear head and the loss where an image may have several classes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from plusx.errors import UsageError
from plusx.fit import softmax
from plusx.fit.criterion import make_criterion
from plusx.fit.probe import cross_validate, fit_probe
from plusx.fit.rows import deal_folds, sample


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with softmax.one_thread_if_small(0):
        yield


def marked(
    n: int = 200, d: int = 30, k: int = 3, *, signal: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features in which every class has a direction of its own, and the marks (n, k)."""
    rng = np.random.default_rng(seed)
    marks = rng.random((n, k)) < np.linspace(0.2, 0.6, k)
    features = rng.normal(size=(n, d)) + signal * marks @ rng.normal(size=(k, d)) / np.sqrt(d)
    return features.astype(np.float32), marks


@pytest.mark.parametrize(("n", "d"), [(60, 150), (150, 30)])
@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_each_class_is_scikit_learns_logistic_regression(n: int, d: int, penalty: float) -> None:
    features, marks = marked(n, d)
    rows = softmax.Design.of(features, np.arange(n))
    problem = softmax.Problem(rows, marks, 3, np.ones((n, 1)))
    ours = rows.times(problem.solve(penalty, tolerance=1e-6)[:, :, 0]).numpy()
    wide = features.astype(np.float64)
    deviation = wide.std(0)
    x = (wide - wide.mean(0)) / np.sqrt(np.maximum(deviation, 0.01 * deviation.mean()))
    x = x / np.sqrt((x**2).sum(1).mean())
    x = np.hstack([x, np.full((n, 1), np.sqrt(penalty / softmax.BIAS_PENALTY))])
    for k in range(3):
        model = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-8, max_iter=20_000)
        theirs = x @ model.fit(x, marks[:, k]).coef_[0]
        np.testing.assert_allclose(ours[:, k], theirs, atol=0.02)


def test_the_probe_finds_every_class_and_its_head_acts_on_raw_features() -> None:
    features, marks = marked(400, signal=12.0)
    fitted = fit_probe(features, marks, classes=3)
    logits = fitted.head.logits(features)
    assert ((logits > 0) == marks).mean() > 0.95
    assert max(fitted.cv_right) > 0.9
    new, truth = marked(400, signal=12.0)
    assert ((fitted.head.logits(new) > 0) == truth).mean() > 0.9


def test_cross_validation_tells_noise_from_signal() -> None:
    features, marks = marked(150, signal=6.0)
    known = cross_validate(features, marks, classes=3, repeats=2)
    assert known.figure.low > marks.mean() + 0.1
    assert known.figure.value == pytest.approx(np.mean(known.by_repeat))
    rng = np.random.default_rng(1)
    noise = cross_validate(rng.normal(size=(150, 30)), marks, classes=3, repeats=2)
    assert noise.figure.low < marks.mean(0).mean() < noise.figure.high


def test_groups_are_never_cut() -> None:
    features, marks = marked(120)
    groups = np.repeat(np.arange(24), 5)
    found = cross_validate(features, marks, classes=3, repeats=2, groups=groups.tolist())
    for fold in found.folds:
        assert all(len(set(fold[groups == g])) == 1 for g in range(24))


def test_class_weights_pull_the_answers_up() -> None:
    features, marks = marked(200, signal=1.0)
    plain = fit_probe(features, marks, classes=3).head.logits(features)
    heavy = fit_probe(features, marks, classes=3, class_weights=np.array([9.0, 1.0, 1.0]))
    pulled = heavy.head.logits(features)
    assert pulled[:, 0].mean() > plain[:, 0].mean() + 1
    assert abs(pulled[:, 2].mean() - plain[:, 2].mean()) < 0.3


def test_samples_keep_both_kinds_of_every_class() -> None:
    marks = np.zeros((5000, 2), bool)
    marks[:3, 0] = marks[4:, 1] = True
    kept = sample(marks, 100, np.random.default_rng(0))
    assert 100 <= len(kept) <= 110
    assert marks[kept, 0].sum() >= 2
    assert (~marks[kept, 1]).sum() >= 2


def test_folds_are_stratified_by_every_class() -> None:
    _, marks = marked(300)
    dealt = deal_folds(marks, np.arange(300), 5, np.random.default_rng(0))
    for fold in range(5):
        assert (np.abs(marks[dealt == fold].sum(0) - marks.sum(0) / 5) <= 2).all()


def test_what_cannot_be_fitted_is_said() -> None:
    features, marks = marked(20)
    with pytest.raises(UsageError, match="all images agree on a class"):
        fit_probe(features, marks & False, classes=3)
    with pytest.raises(UsageError, match=r"must be \(n, 4\) bool"):
        fit_probe(features, marks, classes=4)


def test_the_loss_is_torchs() -> None:
    logits, marks = torch.randn(8, 3), torch.rand(8, 3) < 0.4
    torch.testing.assert_close(
        make_criterion("multi")(logits, marks),
        torch.nn.functional.binary_cross_entropy_with_logits(logits, marks.float()),
    )
    weights = torch.tensor([2.0, 1.0, 5.0])
    torch.testing.assert_close(
        make_criterion("multi", class_weights=weights, label_smoothing=0.1)(logits, marks),
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits, marks.float() * 0.9 + 0.05, pos_weight=weights
        ),
    )
