"""Images that are there twice: the same bytes, or resized, recompressed, cropped, mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.facts import FactTable
from plusx.data.likeness import FAINT, LEAST, SPREAD, Floats, correlation, structure
from plusx.data.neighbours import BLOCK, candidates, describe

Pairs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearGroup:
    """Images that show the same picture.

    Attributes:
        members: positions in the table, rising; at least two.
        distance: 0 (alike to the pixel) to 1, of the least alike pair that joins the group.
    """

    members: tuple[int, ...]
    distance: float


@dataclass(frozen=True)
class NearPairs:
    """Pairs of images that show the same picture.

    Attributes:
        pairs: (m, 2) positions in the table, the smaller first, in order.
        distance: (m,) 1 less the correlation of their fine structure.
    """

    pairs: Pairs
    distance: npt.NDArray[np.float32]


def exact_groups(table: FactTable) -> list[tuple[int, ...]]:
    """Positions of images whose files, or whose decoded pixels, are the same; each group rises,
    groups in the order of their first member."""
    return groups_of_pairs(_exact_links(table))


def near_pairs(table: FactTable, *, asymptote: float = LEAST) -> NearPairs:
    """Pairs of which one is the other resized, recompressed, cropped by up to about 5% of each
    side, mirrored, or several of these; how that is judged says ``plusx.data.likeness``.

    Images without structure (of one colour, or nearly) are never near duplicates: nothing can
    tell them apart. Of exact duplicates the first stands for all; of an image with many copies the
    nearest are reported, enough to join them in a group. The time grows with n^1.5,
    memory holds about 150 bytes an image.

    Args:
        table: with thumbnails.
        asymptote: correlation asked of well-structured pictures, 0..1; lower finds look-alikes.
    """
    gain = table.rows["thumb_gain"]
    rows = np.setdiff1d(np.flatnonzero(table.readable), _exact_links(table)[:, 1])
    shorts = describe(table.thumbs, gain, rows, asymptote)
    parts = [_plausible(part, shorts.level) for part in candidates(shorts)]
    found = np.unique(np.concatenate([*parts, np.zeros((0, 2), np.int64)]), axis=0)
    likeness = np.empty(len(found), dtype=np.float32)
    for start in range(0, len(found), BLOCK):
        sides = (rows[side] for side in found[start : start + BLOCK].T)
        one, other = (structure(table.thumbs[side], gain[side]) for side in sides)
        likeness[start : start + BLOCK] = correlation(one, other)
    good = likeness >= shorts.bound[found].min(1)
    return NearPairs(rows[found[good]], (1 - likeness[good]).clip(0, 1))


def _plausible(pairs: Pairs, level: Floats) -> Pairs:
    """Pairs of which both have structure, and about as much of it."""
    low, high = level[pairs].min(1), level[pairs].max(1)
    kept: Pairs = pairs[(low >= FAINT) & (high <= SPREAD * low)]
    return kept


def near_groups(table: FactTable, near: NearPairs | None = None) -> list[NearGroup]:
    """What near pairs join, exact duplicates of their images included; groups of exact duplicates
    alone are left out. ``near`` is what ``near_pairs`` gave; it is found where it is not given."""
    near = near_pairs(table) if near is None else near
    groups = groups_of_pairs(np.concatenate([near.pairs, _exact_links(table)]))
    place = {i: number for number, members in enumerate(groups) for i in members}
    farthest: dict[int, float] = {}
    for (one, _), distance in zip(near.pairs.tolist(), near.distance.tolist(), strict=True):
        number = place[one]
        farthest[number] = max(farthest.get(number, 0.0), distance)
    return [NearGroup(groups[number], far) for number, far in sorted(farthest.items())]


def groups_of_pairs(pairs: Pairs) -> list[tuple[int, ...]]:
    """(m, 2) positions -> what hangs together, as rising tuples in the order of their first."""
    parent: dict[int, int] = {}  # a graph library would take longer to import than this to run

    def root(i: int) -> int:
        while (above := parent.setdefault(i, i)) != i:
            parent[i] = i = parent[above]  # halves the way for the next one
        return i

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    members: dict[int, list[int]] = {}
    for i in sorted(parent):
        members.setdefault(root(i), []).append(i)
    return [tuple(group) for group in members.values()]


def _exact_links(table: FactTable) -> Pairs:
    """(m, 2): the first image of each group of exact duplicates with each other one."""
    found = np.flatnonzero(table.readable)
    parts = [_chains(_words(table.rows[name][found])) for name in ("file_hash", "content_hash")]
    groups = groups_of_pairs(found[np.concatenate(parts)])
    links = [(group[0], other) for group in groups for other in group[1:]]
    return np.array(links, dtype=np.int64).reshape(-1, 2)


def _words(hashes: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The first 8 of 16 bytes as numbers; two of a million agree by chance once in 10^7 scans."""
    words: npt.NDArray[np.uint64] = np.ascontiguousarray(hashes).view("<u8").reshape(-1, 2)[:, 0]
    return words


def _chains(label: npt.NDArray[np.uint64]) -> Pairs:
    """(m, 2): each position with the next of the same label."""
    order = np.argsort(label, kind="stable")
    same = np.flatnonzero(label[order[1:]] == label[order[:-1]])
    return np.stack([order[same], order[same + 1]], 1)
