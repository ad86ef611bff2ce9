"""Candidates for near duplicates among a million pictures, without comparing each with each.

A coarse quantiser: the pictures are dealt to about 2 sqrt(n) cells by the nearest of so many of
them; each is then compared with the pictures of the cells nearest to it, its inner part and its
mirror image (Jégou et al. 2011, "Product quantization for nearest neighbor search", section IV).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.data.likeness import DIMENSIONS, Floats, least, short, structure

EXHAUSTIVE = 6000
"""Up to so many, each is compared with each."""

PROBES = 4
"""Nearest cells that are looked into for each view of a picture."""

MOST = 16
"""Of more candidates for one picture the nearest are taken."""

BLOCK = 2048
_SIDE = round(DIMENSIONS**0.5)
_SLACK = 0.06
_SCALE = 127 / 0.5

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shorts:
    """Short descriptions of n pictures.

    Attributes:
        whole, inner: (n, 225) int8, memory-mapped.
        level: (n,) how much structure each has, in grey levels.
        bound: (n,) the correlation that each asks of its copies.
    """

    whole: npt.NDArray[np.int8]
    inner: npt.NDArray[np.int8]
    level: Floats
    bound: Floats

    def view(self, which: int, rows: Ints | slice) -> Floats:
        """View 0: whole, 1: inner, 2 and 3: mirrored; of these rows, (m, 225), length about 1."""
        source = self.inner if which % 2 else self.whole
        found: Floats = np.asarray(source[rows], dtype=np.float32) / np.float32(_SCALE)
        if which >= 2:
            found = found.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(len(found), -1)
        return found


def describe(thumbs: npt.NDArray[np.uint8], gain: Floats, rows: Ints, asymptote: float) -> Shorts:
    """Short descriptions of ``rows``, in blocks and on disk, so that memory stays flat."""
    level = np.zeros(len(rows), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="plusx-") as file:
        # A file of no bytes cannot be mapped.
        shape = (2, max(len(rows), 1), DIMENSIONS)
        both = np.memmap(file, np.int8, "w+", shape=shape)[:, : len(rows)]
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        found = structure(thumbs[part], gain[part])
        level[start : start + BLOCK] = found.level
        for place, pictures in zip(both, (found.whole, found.inner), strict=True):
            flat = short(pictures).reshape(len(part), -1) * np.float32(_SCALE)
            place[start : start + BLOCK] = np.rint(flat).clip(-127, 127)
    return Shorts(both[0], both[1], level, least(level, asymptote))


def candidates(shorts: Shorts) -> Iterator[Ints]:
    """(m, 2) positions, in parts, of pictures that may be copies; a pair may come repeatedly."""
    n = len(shorts.bound)
    if n <= EXHAUSTIVE:
        everything = np.arange(n)
        for view in range(4):
            for start in range(0, n, BLOCK):
                yield _compare(shorts, everything, everything[start : start + BLOCK], view)
        return
    near = _cells(shorts)
    home = near[0][:, 0]
    members = _sorted_by(home)
    count = int(home.max()) + 1
    for view in range(4):
        askers = _sorted_by(near[view].ravel())
        for cell in range(count):
            inside = _slice(members, cell)
            asking = _slice(askers, cell) // PROBES
            for start in range(0, len(asking), BLOCK):
                yield _compare(shorts, inside, asking[start : start + BLOCK], view)


def _compare(shorts: Shorts, inside: Ints, asking: Ints, view: int) -> Ints:
    if not len(inside) or not len(asking):
        return np.zeros((0, 2), dtype=np.int64)
    likeness = shorts.view(view, asking) @ shorts.view(0, inside).T
    # One look at each of what may be billions of numbers; the bounds of pairs come after.
    ours, theirs = shorts.bound[asking] - _SLACK, shorts.bound[inside] - _SLACK
    one, other = np.nonzero(likeness >= min(ours.min(), theirs.min()))
    alike = likeness[one, other]
    # The bound of a pair is that of its fainter picture.
    enough = (alike >= np.minimum(ours[one], theirs[other])) & (asking[one] != inside[other])
    one, other = _nearest(one[enough], other[enough], alike[enough])
    pairs = np.stack([asking[one], inside[other]], 1)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)


def _nearest(one: Ints, other: Ints, alike: Floats) -> tuple[Ints, Ints]:
    """For each of ``one``, which rises, at most `MOST` of ``other``, the most alike."""
    if not len(one) or np.bincount(one).max() <= MOST:
        return one, other
    order = np.lexsort((-alike, one))
    one, other = one[order], other[order]
    place = np.arange(len(one)) - np.searchsorted(one, one)
    return one[place < MOST], other[place < MOST]


def _cells(shorts: Shorts) -> list[npt.NDArray[np.int32]]:
    """For each view the (n, PROBES) nearest cells, the nearest first."""
    n = len(shorts.bound)
    rng = np.random.Generator(np.random.PCG64(0))
    chosen = np.sort(rng.choice(n, round(2 * n**0.5), replace=False))
    centres = shorts.view(0, chosen).T
    near = [np.zeros((n, PROBES), dtype=np.int32) for _ in range(4)]
    for start in range(0, n, BLOCK):
        rows = slice(start, min(start + BLOCK, n))
        for view in range(4):
            likeness = shorts.view(view, rows) @ centres
            every = np.arange(len(likeness))
            for probe in range(PROBES):  # several times quicker than a partition
                best = likeness.argmax(axis=1)
                near[view][rows, probe] = best
                likeness[every, best] = -2
    return near


def _sorted_by(label: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Positions in the order of their labels; and where each label's part begins and ends."""
    order = np.argsort(label, kind="stable")
    return order, np.searchsorted(label[order], np.arange(int(label.max()) + 2))


def _slice(parts: tuple[Ints, Ints], cell: int) -> Ints:
    order, starts = parts
    if cell + 1 >= len(starts):
        return order[:0]
    return order[starts[cell] : starts[cell + 1]]
