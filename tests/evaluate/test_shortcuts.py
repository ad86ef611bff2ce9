"""Planted shortcuts are found, and none where labels say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from plusx.evaluate.shortcuts import FEWEST_IMAGES, MOST_IMAGES, find_shortcuts


def properties(n: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    known = random.random(n) < 0.5
    return {
        "file size": random.lognormal(10, 1, n),
        "image size": random.choice([224.0, 256.0, 500.0], (n, 2)),
        "border colour": random.uniform(0, 255, (n, 3)),
        "date taken": np.where(known, random.integers(0, 900, n), np.nan),
        "camera": random.choice(["", "Canon EOS", "NIKON D70"], n),
        "brightness": np.full(n, 12.0),
    }


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("seed", range(5))
def test_none_where_labels_say_nothing(classes: int, seed: int) -> None:
    n = 400
    targets = np.random.default_rng(seed + 100).integers(0, classes, n)
    tested = find_shortcuts(properties(n, seed), targets, seed=seed)
    assert not any(one.found for one in tested)
    assert "brightness" not in {one.name for one in tested}  # it never varies


@pytest.mark.parametrize("name", ["file size", "border colour", "camera", "date taken"])
def test_a_planted_one_is_found_and_no_other(name: str) -> None:
    random = np.random.default_rng(3)
    targets = random.integers(0, 2, 300)
    found = properties(300, 3)
    hit = random.random(300) < 0.6
    if name == "camera":
        found[name] = np.where(hit & (targets == 1), "Scanner", found[name])
    elif name == "date taken":
        found[name] = np.where(targets == 1, np.nan, found[name])
    elif name == "border colour":
        found[name][hit & (targets == 1), 1] = 0
    else:
        found[name] = found[name] * np.where(hit & (targets == 0), 4, 1)
    tested = find_shortcuts(found, targets)
    assert [one.name for one in tested if one.found] == [name]
    best = tested[0]
    assert best.limit is not None
    assert best.balanced_accuracy > best.limit > best.chance == 0.5


def test_groups_are_not_counted_as_independent() -> None:
    """20 patients, each with a camera colour and a label of their own, 20 pictures each."""
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(20), 20)
    colour = random.uniform(0, 255, 20)[patient] + random.normal(0, 0.1, 400)
    targets = (random.permutation(20) % 2)[patient]
    alone = find_shortcuts({"border colour": colour}, targets)
    together = find_shortcuts({"border colour": colour}, targets, groups=[str(p) for p in patient])
    assert alone[0].found  # pictures of one patient on both sides: memory, not a shortcut
    assert not together[0].found


def test_small_classes_and_large_data() -> None:
    few = np.array([0] * (FEWEST_IMAGES - 1) + [1] * 500)
    assert find_shortcuts({"file size": np.arange(len(few)) * 1.0}, few) == ()
    random = np.random.default_rng(0)
    targets = np.where(random.random(60_000) < 0.01, 1, 0)
    size = random.normal(0, 1, 60_000) + 3 * targets
    (one,) = find_shortcuts({"file size": size}, targets)
    assert one.found
    assert one.images <= MOST_IMAGES
    assert one.clearest_recall > 0.8


def test_unlabelled_images_take_no_part() -> None:
    targets = np.array([-1] * 50 + [0] * 50 + [1] * 50)
    size = np.where(targets == 1, 9.0, 1.0)
    size[:50] = 9.0
    (one,) = find_shortcuts({"file size": size}, targets)
    assert one.images == 100
    assert one.balanced_accuracy == 1.0
