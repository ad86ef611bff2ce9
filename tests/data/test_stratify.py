"""Several labels an image: each class in proportion, groups whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.data import Listing, Sample, folds, split_listing
from plusx.errors import DataError


def listing(marks: np.ndarray, groups: list[str] | None = None) -> Listing:
    samples = tuple(
        Sample(f"/r/{i}.png", tuple(np.flatnonzero(row).tolist()), None, groups and groups[i])
        for i, row in enumerate(marks)
    )
    classes = tuple(f"c{k}" for k in range(marks.shape[1]))
    return Listing("/r", classes, samples, task="multi")


def count(samples: tuple[Sample, ...]) -> Counter[int]:
    return Counter(k for sample in samples for k in sample.targets)


def draw(n: int, shares: list[float], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, len(shares))) < shares


def test_each_class_gives_its_share() -> None:
    marks = draw(1000, [0.5, 0.3, 0.1, 0.02])
    done = split_listing(listing(marks), seed=0)
    val, total = count(done.part("val")), marks.sum(0)
    assert abs(len(done.part("val")) - 200) <= 4
    for k in range(4):
        assert abs(val[k] - 0.2 * total[k]) <= 2


def test_it_depends_on_the_seed_and_not_on_the_order() -> None:
    data = listing(draw(200, [0.5, 0.3]))
    mixed = replace(data, samples=tuple(reversed(data.samples)))
    one, other, third = (
        {s.path for s in split_listing(d, seed=seed).part("val")}
        for d, seed in ((data, 1), (mixed, 1), (data, 2))
    )
    assert one == other != third


def test_the_rarest_class_is_on_both_sides() -> None:
    marks = draw(100, [0.5, 0.5])
    marks = np.column_stack([marks, np.arange(100) < 2])
    for seed in range(5):
        done = split_listing(listing(marks), seed=seed)
        assert count(done.part("val"))[2] == count(done.part("train"))[2] == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 80), st.integers(2, 5), st.integers(2, 12))
def test_groups_stay_whole_and_every_class_is_on_both_sides(
    seed: int, n: int, k: int, groups: int
) -> None:
    rng = np.random.default_rng(seed)
    data = listing(rng.random((n, k)) < 0.3, [f"g{g}" for g in rng.integers(0, groups, n)])
    try:
        done = split_listing(data, seed=seed)
    except DataError:
        return
    side: dict[str | None, set[str | None]] = {}
    for sample in done.samples:
        side.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in side.values())
    assert (
        set(count(done.part("train"))) == set(count(done.part("val"))) == set(count(data.samples))
    )


def test_folds_share_out_every_class() -> None:
    marks = draw(300, [0.5, 0.2, 0.05])
    parts = folds(listing(marks), 5, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(300))
    for part in parts:
        assert abs(len(part) - 60) <= 3
        assert (np.abs(marks[part].sum(0) - marks.sum(0) / 5) <= 2).all()


def test_grouped_folds_stay_whole() -> None:
    groups = [f"g{i // 6}" for i in range(180)]
    parts = folds(listing(draw(180, [0.5, 0.3]), groups), 5, seed=0)
    seen = [{groups[i] for i in part} for part in parts]
    assert sum(len(names) for names in seen) == 30
    assert all(24 <= len(part) <= 48 for part in parts)


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(DataError, match="'c1' has 1 image; training and validation need one each"):
        split_listing(listing(np.array([[1, 0], [1, 1], [0, 0]])), seed=0)
    with pytest.raises(DataError, match="'c0' cannot be in train and val"):
        split_listing(listing(np.ones((4, 1), bool), ["g"] * 4), seed=0)
    with pytest.raises(DataError, match="'c0' has 3 images, too few for 5 folds"):
        folds(listing(np.arange(20)[:, None] < 3), 5, seed=0)
