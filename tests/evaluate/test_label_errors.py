"""Flipped labels stand first; far images stand out."""

from __future__ import annotations

import numpy as np
import pytest

from plusx.decide import log_softmax
from plusx.errors import UsageError
from plusx.evaluate.label_errors import find_label_errors
from plusx.evaluate.outliers import FEWEST_IMAGES, MOST_COMPARED, NEIGHBOURS, find_outliers


def judged(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, n)
    logits = random.normal(0, 1, (n, classes))
    logits[np.arange(n), targets] += 4
    return logits, targets


@pytest.mark.parametrize("classes", [2, 7])
def test_flipped_labels_stand_first(classes: int) -> None:
    logits, targets = judged(400, classes, 0)
    flipped = np.random.default_rng(1).choice(400, 20, replace=False)
    wrong = targets.copy()
    wrong[flipped] = (wrong[flipped] + 1) % classes
    found = find_label_errors(logits, wrong)
    assert np.isin(flipped, found.ranking[:20]).mean() >= 0.8
    assert np.isin(found.likely, flipped).mean() >= 0.8
    assert (found.suggested[found.likely] != wrong[found.likely]).all()
    assert (np.diff(found.quality[found.likely]) >= 0).all()
    assert sorted(found.ranking) == list(range(400))


@pytest.mark.parametrize(("classes", "seed"), [(2, 0), (5, 1), (40, 2)])
def test_the_figures_are_those_of_cleanlab(classes: int, seed: int) -> None:
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    logits, targets = judged(600, classes, seed)
    logits *= 0.7  # unsure, so that several classes pass their bounds, or none
    flipped = np.random.default_rng(seed).choice(600, 60, replace=False)
    targets[flipped] = (targets[flipped] + 1) % classes
    found = find_label_errors(logits, targets)
    probabilities = np.exp(log_softmax(logits))
    theirs = find_label_issues(targets, probabilities, filter_by="confident_learning", n_jobs=1)
    assert 20 < len(found.likely) < 150
    assert sorted(found.likely) == np.flatnonzero(theirs).tolist()
    np.testing.assert_allclose(found.quality, get_label_quality_scores(targets, probabilities))


def test_sure_and_right_labels_are_left_alone() -> None:
    targets = np.arange(100) % 4
    found = find_label_errors(np.eye(4)[targets] * 9, targets)
    assert len(found.likely) == 0


def test_a_class_without_images_is_no_trouble() -> None:
    logits, targets = judged(200, 5, 2)
    keep = targets != 3
    found = find_label_errors(logits[keep], targets[keep])
    assert found.quality.shape == (int(keep.sum()),)


def test_one_class_has_no_errors() -> None:
    assert len(find_label_errors(np.zeros((9, 2)), np.zeros(9, np.int64)).likely) == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="do not fit"):
        find_label_errors(np.zeros((3, 2)), np.zeros(4, np.int64))
    with pytest.raises(UsageError, match=r"0\.\.1"):
        find_label_errors(np.zeros((3, 2)), np.array([0, 1, 2]))


@pytest.mark.parametrize("n", [200, MOST_COMPARED + 500])
def test_far_images_are_outliers(n: int) -> None:
    random = np.random.default_rng(0)
    directions = random.normal(0, 1, (3, 16))
    features = directions[random.integers(0, 3, n)] + random.normal(0, 0.2, (n, 16))
    far = random.choice(n, 5, replace=False)
    features[far] = random.normal(0, 1, (5, 16))
    found = find_outliers(features.astype(np.float32))
    assert set(far) <= set(found.far[:8])
    assert len(found.far) < 0.03 * n
    assert found.typical < found.distance[far].min()


def test_a_few_copies_do_not_hide_an_outlier() -> None:
    random = np.random.default_rng(1)
    features = np.abs(random.normal(1, 0.1, (100, 8)))
    features[:3] = [1, 0, 0, 0, 0, 0, 0, 0]
    assert set(find_outliers(features).far) == {0, 1, 2}
    assert NEIGHBOURS > 3


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match=str(FEWEST_IMAGES)):
        find_outliers(np.zeros((5, 4)))
