"""Splits: stratified, the same each time, groups whole."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.data import Listing, Sample, folds, split_listing
from plusx.errors import DataError, UsageError


def listing(*counts: int, root: str = "/photos", group: str | None = None) -> Listing:
    classes = tuple(f"c{i}" for i in range(len(counts)))
    samples = tuple(
        Sample(f"{root}/{classes[c]}/{i}.png", c, None, group)
        for c, n in enumerate(counts)
        for i in range(n)
    )
    return Listing(root, classes, samples)


def sides(data: Listing) -> dict[str, str | None]:
    return {s.path.removeprefix(data.root): s.split for s in data.samples}


def test_stratified() -> None:
    data = split_listing(listing(100, 50, 7, 2), seed=0)
    val = Counter(s.target for s in data.part("val"))
    assert val == {0: 20, 1: 10, 2: 1, 3: 1}
    assert len(data.part("train")) == 159 - 32


def test_same_whatever_the_order_and_the_place() -> None:
    here, there = listing(30, 20), listing(30, 20, root="/mnt/elsewhere/x")
    shuffled = list(here.samples)
    random.Random(1).shuffle(shuffled)
    expected = sides(split_listing(here, seed=3))
    assert sides(split_listing(there, seed=3)) == expected
    assert sides(split_listing(replace(here, samples=tuple(shuffled)), seed=3)) == expected
    assert sides(split_listing(here, seed=4)) != expected


def test_the_split_of_a_seed_never_changes() -> None:
    data = split_listing(listing(10, 5), seed=0)
    assert [s.path for s in data.part("val")] == [
        "/photos/c0/1.png",
        "/photos/c0/8.png",
        "/photos/c1/2.png",
    ]


def test_one_more_image_moves_few_others() -> None:
    before, after = (sides(split_listing(listing(n, 20), seed=0)) for n in (100, 101))
    moved = [path for path, side in before.items() if after[path] != side]
    assert len(moved) <= 1


def test_given_splits_stay() -> None:
    samples = (Sample("1", 0, "train"), Sample("2", 1, "train"), Sample("3", 0, "val"))
    data = Listing(".", ("a", "b"), samples)
    assert split_listing(data, seed=0) is data


def test_val_is_taken_from_train_and_test_stays() -> None:
    data = listing(10, 10)
    samples = tuple(
        replace(s, split="test" if i % 10 < 4 else "train") for i, s in enumerate(data.samples)
    )
    done = split_listing(replace(data, samples=samples), seed=0, val_fraction=0.5)
    assert Counter(s.split for s in done.samples) == {"test": 8, "train": 6, "val": 6}
    assert [s.split == "test" for s in done.samples] == [s.split == "test" for s in samples]


def test_a_single_image_cannot_be_split() -> None:
    with pytest.raises(DataError, match="'c1' has 1 image"):
        split_listing(listing(5, 1), seed=0)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_fraction_must_make_sense(fraction: float) -> None:
    with pytest.raises(UsageError, match="val_fraction"):
        split_listing(listing(5, 5), seed=0, val_fraction=fraction)


def test_one_group_for_all_cannot_be_split() -> None:
    with pytest.raises(DataError, match="group"):
        split_listing(listing(5, 5, group="one"), seed=0)


def grouped(draw: list[tuple[int, int]]) -> Listing:
    samples = tuple(Sample(f"/r/{i}.png", c, None, f"g{g}") for i, (c, g) in enumerate(draw))
    return Listing("/r", ("a", "b", "c"), samples)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=6, max_size=80),
    st.integers(0, 1000),
)
def test_groups_stay_whole(draw: list[tuple[int, int]], seed: int) -> None:
    data = grouped(draw)
    try:
        done = split_listing(data, seed=seed)
    except DataError:
        return
    side: dict[str | None, set[str | None]] = {}
    for sample in done.samples:
        side.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in side.values())
    everything = {s.target for s in data.samples}
    assert {s.target for s in done.part("train")} == everything
    assert {s.target for s in done.part("val")} == everything


def test_groups_meet_the_fraction() -> None:
    data = grouped([(i % 3, i // 9) for i in range(900)])
    done = split_listing(data, seed=0)
    assert Counter(s.target for s in done.part("val")) == {0: 60, 1: 60, 2: 60}


def test_a_class_of_two_big_groups_still_reaches_val() -> None:
    data = grouped([(0, g) for g in range(50)] + [(1, 100 + i // 10) for i in range(20)])
    done = split_listing(data, seed=0)
    assert Counter(s.target for s in done.part("val")) == {0: 10, 1: 10}


def test_a_group_with_all_of_a_class_never_leaves_train() -> None:
    data = grouped([(0, g) for g in range(100)] + [(0, 200)] * 3 + [(1, 200)] * 2)
    for seed in range(20):
        with pytest.raises(DataError, match="'b' cannot be in train and val"):
            split_listing(data, seed=seed)


def test_folds_are_a_stratified_partition() -> None:
    parts = folds(listing(50, 25, 5), 5, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(80))
    data = listing(50, 25, 5)
    for part in parts:
        assert part.dtype == np.int64
        assert Counter(data.samples[i].target for i in part) == {0: 10, 1: 5, 2: 1}


def test_folds_do_not_depend_on_order_or_place() -> None:
    data, there = listing(20, 10), listing(20, 10, root="/else")
    shuffled = list(data.samples)
    random.Random(1).shuffle(shuffled)
    mixed = replace(data, samples=tuple(shuffled))

    def named(of: Listing, seed: int) -> list[set[str]]:
        parts = folds(of, 5, seed=seed)
        return [{of.samples[i].path.removeprefix(of.root) for i in part} for part in parts]

    assert named(data, 7) == named(mixed, 7) == named(there, 7)
    assert named(data, 7) != named(data, 8)


def test_folds_leave_test_out() -> None:
    data = listing(10, 10)
    samples = tuple(replace(s, split="test" if i < 3 else "train")
                    for i, s in enumerate(data.samples))  # fmt: skip
    parts = folds(replace(data, samples=samples), 2, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(3, 20))


def test_grouped_folds_stay_whole() -> None:
    data = grouped([(i % 3, i // 6) for i in range(180)])
    parts = folds(data, 5, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(180))
    seen = [{data.samples[i].group for i in part} for part in parts]
    assert sum(len(groups) for groups in seen) == 30
    for part in parts:
        assert max(Counter(data.samples[i].target for i in part).values()) <= 14


@pytest.mark.parametrize(
    ("data", "k", "word"),
    [
        (listing(10, 4), 5, "'c1' has 4 images"),
        (grouped([(i % 2, i % 3) for i in range(30)]), 5, "3 groups"),
        (grouped([(g % 2, 0 if g % 2 else g) for g in range(60)]), 3, "'b'"),
    ],
)
def test_folds_that_cannot_be(data: Listing, k: int, word: str) -> None:
    with pytest.raises(DataError, match=word):
        folds(data, k, seed=0)


def test_one_fold_is_none() -> None:
    with pytest.raises(UsageError, match="folds 1"):
        folds(listing(5, 5), 1, seed=0)
