"""Seeded, stratified splits that are the same wherever the folder lies and however it is read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from plusx.data.classes import SEPARATOR
from plusx.data.records import Listing, Sample
from plusx.data.stratify import deal, deal_evenly
from plusx.errors import DataError, UsageError


def split_listing(listing: Listing, *, seed: int, val_fraction: float = 0.2) -> Listing:
    """Set aside a validation part where the listing has none.

    A listing that has train and val comes back as it is; with train but no val, val is taken
    from train; without splits, every sample becomes train or val. Each class gives
    ``round(n * val_fraction)`` images, at least one and at most n - 1: those whose hash of
    (seed, class, path relative to the root) is smallest. So the split depends neither on the
    order of the listing nor on where the root lies, and adding an image moves few others.
    Samples of one group stay together; then the fraction is met as nearly as the groups allow.
    For task ``multi`` the counts of each class are met as nearly as an image's classes together
    allow (see :mod:`plusx.data.stratify`); a new image may then move others.

    Args:
        listing: the data.
        seed: any integer.
        val_fraction: share of each class for validation, between 0 and 1.

    Raises:
        UsageError: ``val_fraction`` is not between 0 and 1.
        DataError: a class has one image only, or all its images in one group.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction {val_fraction!r} must lie between 0 and 1")
    splits = {sample.split for sample in listing.samples}
    if {"train", "val"} <= splits:
        return listing
    pool = [i for i, s in enumerate(listing.samples) if s.split in (None, "train")]
    choose = _choose if listing.task == "single" else _choose_multi
    chosen = choose(listing, pool, seed, val_fraction)
    inside = set(pool)
    samples = tuple(
        replace(s, split="val" if i in chosen else "train") if i in inside else s
        for i, s in enumerate(listing.samples)
    )
    return replace(listing, samples=samples)


def folds(listing: Listing, k: int, *, seed: int) -> list[np.ndarray]:
    """Cut a listing into k stratified folds; samples of one group share a fold.

    Samples of a test split take no part. The folds do not depend on the listing's order.

    Returns:
        k sorted int64 arrays of positions in ``listing.samples``, disjoint, together all of them.

    Raises:
        UsageError: k is below 2.
        DataError: a class has fewer than k images, there are fewer than k groups, or the groups
            leave a class out of some fold's training part.
    """
    if k < 2:
        raise UsageError(f"folds {k!r} must be at least 2")
    pool = [i for i, sample in enumerate(listing.samples) if sample.split != "test"]
    pool.sort(key=lambda i: _rank(listing, listing.samples[i], seed))
    samples = [listing.samples[i] for i in pool]
    counts = _count(samples)
    for target, count in sorted(counts.items()):
        if count < k:
            raise DataError(
                f"{listing.source}: class {listing.classes[target]!r} has {count} images, too few "
                f"for {k} folds; add images or ask for fewer folds"
            )
    cut = _cut if listing.task == "single" else _cut_multi
    parts = cut(listing, samples, k, seed % 2**32)
    for part in parts:
        held = _count([samples[i] for i in part])
        missing = [target for target, count in sorted(counts.items()) if held[target] == count]
        if missing:
            name = listing.classes[missing[0]]
            raise DataError(
                f"{listing.source}: the groups leave class {name!r} out of a fold's training part; "
                "ask for fewer folds or give the class more groups"
            )
    order = np.array(pool, dtype=np.int64)
    return [np.sort(order[part]) for part in parts]


def relative_name(listing: Listing, sample: Sample) -> str:
    """A sample's path relative to the listing's root, with forward slashes everywhere."""
    below = listing.root + os.sep
    if sample.path.startswith(below):  # the usual case, at a tenth of the time
        path = sample.path[len(below) :]
        if not path.startswith(os.sep) and f"{os.sep}." not in f"{os.sep}{path}":
            return path.replace(os.sep, "/")
    try:
        path = os.path.relpath(sample.path, listing.root)
    except ValueError:  # Windows: another drive
        path = sample.path
    return path.replace(os.sep, "/")


def _cut(listing: Listing, samples: Sequence[Sample], k: int, state: int) -> list[np.ndarray]:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    blank = np.zeros(len(samples))
    targets = np.array([_numbers(sample)[0] for sample in samples])
    if all(sample.group is None for sample in samples):
        plain = StratifiedKFold(k, shuffle=True, random_state=state)
        return [np.asarray(part) for _, part in plain.split(blank, targets)]
    keys = [_group(listing, sample) for sample in samples]
    if len(set(keys)) < k:
        raise DataError(f"{listing.source}: {len(set(keys))} groups are too few for {k} folds")
    grouped = StratifiedGroupKFold(k, shuffle=True, random_state=state)
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    ids = np.array([numbers[key] for key in keys])
    return [np.asarray(part) for _, part in grouped.split(blank, targets, ids)]


def _cut_multi(listing: Listing, samples: Sequence[Sample], k: int, state: int) -> list[np.ndarray]:
    """As ``_cut``; chance enters by the order of the samples, which is that of their hashes."""
    groups = list(_groups(listing, samples).values())
    if len(groups) < k:
        raise DataError(f"{listing.source}: {len(groups)} groups are too few for {k} folds")
    counts = [_count([samples[i] for i in group]) for group in groups]
    fold = deal_evenly(counts, [len(group) for group in groups], k, len(listing.classes))
    return [
        np.array(sorted(i for g in np.flatnonzero(fold == part) for i in groups[g]), dtype=np.int64)
        for part in range(k)
    ]


def _choose_multi(listing: Listing, pool: list[int], seed: int, fraction: float) -> set[int]:
    """As ``_choose``, where a sample may have several classes."""
    pool = sorted(pool, key=lambda i: _rank(listing, listing.samples[i], seed))
    samples = [listing.samples[i] for i in pool]
    total = _count(samples)
    _need_two(listing, total)
    groups = list(_groups(listing, samples).values())
    counts = [_count([samples[i] for i in group]) for group in groups]
    sizes = [len(group) for group in groups]
    wanted = np.zeros((2, len(listing.classes)))
    for target, count in total.items():
        val = _share(count, fraction)
        wanted[:, target] = count - val, val
    val = _share(len(pool), fraction)
    part = deal(groups=counts, sizes=sizes, wanted=wanted, room=np.array([len(pool) - val, val]))
    for target in sorted(total):
        for side in (0, 1):
            _give(part, counts, sizes, target, side)
        if not all(any(c[target] for c, p in zip(counts, part, strict=True) if p == side)
                   for side in (0, 1)):  # fmt: skip
            raise _cannot_be_cut(listing, target)
    return {pool[i] for g in np.flatnonzero(part == 1) for i in groups[g]}


def _give(
    part: np.ndarray, counts: list[Counter[int]], sizes: list[int], target: int, side: int
) -> None:
    """Move the smallest group of the other side that has the class, if this side has none of it
    and the other keeps some image of each of the group's classes."""
    here = [g for g, p in enumerate(part) if p == side]
    if any(counts[g][target] for g in here):
        return
    there = [g for g, p in enumerate(part) if p != side]
    held = sum((counts[g] for g in there), Counter[int]())
    able = [
        g for g in there if counts[g][target] and all(held[k] > n for k, n in counts[g].items())
    ]
    if able:
        part[min(able, key=lambda g: (sizes[g], g))] = side


def _choose(listing: Listing, pool: list[int], seed: int, fraction: float) -> set[int]:
    """Positions of the samples that become val."""
    pool = sorted(pool, key=lambda i: _rank(listing, listing.samples[i], seed))
    samples = [listing.samples[i] for i in pool]
    counts = _count(samples)
    _need_two(listing, counts)
    wanted = {t: _share(n, fraction) for t, n in counts.items()}
    groups = [[pool[i] for i in group] for group in _groups(listing, samples).values()]
    val, taken = _take(listing, groups, wanted, counts)
    for target in sorted(counts):
        if not taken[target]:
            raise _cannot_be_cut(listing, target)
    return val


def _need_two(listing: Listing, counts: Counter[int]) -> None:
    for target, count in sorted(counts.items()):
        if count < 2:
            raise DataError(
                f"{listing.source}: class {listing.classes[target]!r} has {count} image; training "
                "and validation need one each, so add images or remove the class"
            )


def _cannot_be_cut(listing: Listing, target: int) -> DataError:
    return DataError(
        f"{listing.source}: class {listing.classes[target]!r} cannot be in train and val "
        "without cutting a group in two; give it images of more groups"
    )


def _share(count: int, fraction: float) -> int:
    return min(max(round(count * fraction), 1), count - 1)


def _groups(listing: Listing, samples: Sequence[Sample]) -> dict[tuple[str, str], list[int]]:
    """Positions in ``samples`` of what must stay together."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        groups[_group(listing, sample)].append(i)
    return groups


def _take(
    listing: Listing, groups: list[list[int]], wanted: dict[int, int], counts: Counter[int]
) -> tuple[set[int], Counter[int]]:
    """Whole groups, in order, while they bring val nearer to what each class should give; then
    the smallest group that helps for each class still without any."""
    val: set[int] = set()
    taken: Counter[int] = Counter()
    sizes = [_count([listing.samples[i] for i in group]) for group in groups]

    def fits(size: Counter[int]) -> bool:
        return all(taken[t] + n < counts[t] for t, n in size.items())

    def take(group: list[int], size: Counter[int]) -> None:
        val.update(group)
        taken.update(size)

    for group, size in zip(groups, sizes, strict=True):
        gain = sum(
            abs(wanted[t] - taken[t]) - abs(wanted[t] - taken[t] - n) for t, n in size.items()
        )
        if gain > 0 and fits(size):
            take(group, size)
    for target in sorted(counts):
        if not taken[target]:
            able = [
                j
                for j, size in enumerate(sizes)
                if size[target] and groups[j][0] not in val and fits(size)
            ]
            if able:
                best = min(able, key=lambda j: (len(groups[j]), j))
                take(groups[best], sizes[best])
    return val, taken


def _group(listing: Listing, sample: Sample) -> tuple[str, str]:
    """What must stay together: the group, or the sample alone where it has none."""
    if sample.group is not None:
        return "group", sample.group
    return "sample", relative_name(listing, sample)


def _rank(listing: Listing, sample: Sample, seed: int) -> tuple[bytes, str]:
    name = relative_name(listing, sample)
    classes = SEPARATOR.join(listing.classes[number] for number in _numbers(sample))
    text = f"{seed}\0{classes}\0{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest(), name


def _numbers(sample: Sample) -> tuple[int, ...]:
    if sample.target is None:
        raise DataError(f"{sample.path}: has no label, so it cannot be split")
    return sample.targets


def _count(samples: Sequence[Sample]) -> Counter[int]:
    """How many samples each class has."""
    return Counter(number for sample in samples for number in _numbers(sample))
