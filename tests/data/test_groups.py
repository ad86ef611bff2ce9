"""What hangs together is never cut in two."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.data import Listing, Sample, folds, split_listing
from plusx.data.groups import keep_together
from plusx.errors import DataError

CLASSES = ("a", "b", "c")


@st.composite
def listings(draw: st.DrawFn) -> tuple[Listing, list[list[int]]]:
    """A listing, some samples with groups, and links between positions."""
    n = draw(st.integers(4, 40))
    targets = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    names = st.one_of(st.none(), st.sampled_from(["p1", "p2", "p3", "p4"]))
    groups = draw(st.lists(names, min_size=n, max_size=n))
    samples = tuple(
        Sample(f"root/{CLASSES[t]}/{i}.jpg", t, None, g)
        for i, (t, g) in enumerate(zip(targets, groups, strict=True))
    )
    several = st.lists(st.integers(0, n - 1), min_size=1, max_size=5)
    return Listing("root", CLASSES, samples), draw(st.lists(several, max_size=6))


def sides(listing: Listing) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = defaultdict(set)
    for sample in listing.samples:
        if sample.group is not None:
            found[sample.group].add(sample.split)
    return found


@settings(max_examples=150, deadline=None)
@given(listings(), st.integers(0, 99))
def test_groups_and_copies_are_never_split(
    drawn: tuple[Listing, list[list[int]]], seed: int
) -> None:
    listing, linked = drawn
    grouped = keep_together(listing, linked)
    for positions in linked:
        if len(set(positions)) > 1:
            names = {grouped.samples[i].group for i in positions}
            assert len(names) == 1
            assert None not in names
    before: dict[str, set[str | None]] = defaultdict(set)
    for old, new in zip(listing.samples, grouped.samples, strict=True):
        assert (old.path, old.target, old.split) == (new.path, new.target, new.split)
        if old.group is not None:
            before[old.group].add(new.group)
    assert all(len(after) == 1 for after in before.values())  # given groups stay whole
    try:
        divided = split_listing(grouped, seed=seed)
    except DataError:
        return
    assert all(len(side) == 1 for side in sides(divided).values())
    for positions in linked:
        assert len({divided.samples[i].split for i in positions}) == 1


@settings(max_examples=40, deadline=None)
@given(listings(), st.integers(0, 99))
def test_folds_keep_them_whole_too(drawn: tuple[Listing, list[list[int]]], seed: int) -> None:
    listing, linked = drawn
    grouped = keep_together(listing, linked)
    try:
        parts = folds(grouped, 2, seed=seed)
    except DataError:
        return
    where = {int(i): k for k, part in enumerate(parts) for i in part}
    for positions in linked:
        assert len({where[i] for i in positions}) == 1


def test_names() -> None:
    samples = (Sample("r/a/0.jpg", 0, None, "p1"), Sample("r/a/1.jpg", 0), Sample("r/b/2.jpg", 1),
               Sample("r/b/3.jpg", 1, None, "p2"), Sample("r/b/4.jpg", 1))  # fmt: skip
    listing = Listing("r", ("a", "b"), samples)
    assert keep_together(listing, []) is listing
    assert keep_together(listing, [[3]]) is listing
    assert [s.group for s in keep_together(listing, [[0, 1]]).samples] == [
        "p1", "p1", None, "p2", None]  # fmt: skip
    merged = keep_together(listing, [[0, 2], [2, 3]]).samples
    assert len({merged[i].group for i in (0, 2, 3)}) == 1
    assert "p1" not in str(merged[0].group)
    moved = tuple(Sample(f"x/{s.path}", s.target, None, s.group) for s in samples)
    elsewhere = Listing("x/r", ("a", "b"), moved)
    again = keep_together(elsewhere, [[3, 2, 0]]).samples
    assert again[0].group == merged[0].group
