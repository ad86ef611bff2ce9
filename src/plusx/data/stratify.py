"""Dealing images out to parts so that each class comes in proportion, where an image may have
several classes: iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the
Stratification of Multi-label Data", ECML PKDD, algorithm 1), on whole groups instead of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = Mapping[int, int]
"""Class -> how many of a group's images have it."""

Floats = NDArray[np.float64]


def deal(
    groups: Sequence[Counts], sizes: Sequence[int], *, wanted: Floats, room: Floats
) -> NDArray[np.int64]:
    """Deal groups out to F parts; the rarest class first, each group to the part that lacks most.

    Departs from the paper only in that a group is dealt as a whole, the largest first; of equals
    the first in the order given. No chance is involved: shuffle the groups for another outcome.

    Args:
        groups: the classes of each group.
        sizes: images of each group.
        wanted: (F, K) how many images of each class each part should get.
        room: (F,) how many images each part should get.

    Returns:
        The part of each group.
    """
    wanted, room = wanted.astype(np.float64), room.astype(np.float64)
    part = np.full(len(groups), -1, dtype=np.int64)
    order = sorted(range(len(groups)), key=lambda g: -sizes[g])
    waiting: list[list[int]] = [[] for _ in range(wanted.shape[1])]
    for g in order:
        for k in groups[g]:
            waiting[k].append(g)
    left = np.array([len(each) for each in waiting])
    while left.any():
        rarest = int(np.where(left > 0, left, left.max() + 1).argmin())
        for g in waiting[rarest]:
            if part[g] < 0:
                part[g] = _neediest(wanted[:, rarest], room)
                room[part[g]] -= sizes[g]
                for k, count in groups[g].items():
                    wanted[part[g], k] -= count
                    left[k] -= 1
    for g in order:  # those without any class
        if part[g] < 0:
            part[g] = int(room.argmax())
            room[part[g]] -= sizes[g]
    return part


def deal_evenly(
    groups: Sequence[Counts], sizes: Sequence[int], parts: int, classes: int
) -> NDArray[np.int64]:
    """``deal`` to parts of equal size."""
    total = np.zeros(classes)
    for counts in groups:
        for k, count in counts.items():
            total[k] += count
    wanted = np.tile(total / parts, (parts, 1))
    return deal(groups, sizes, wanted=wanted, room=np.full(parts, sum(sizes) / parts))


def _neediest(lacking: Floats, room: Floats) -> int:
    most = np.flatnonzero(lacking >= lacking.max() - 1e-9)
    return int(most[room[most].argmax()])
