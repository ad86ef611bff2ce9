"""Images that are there twice: the same bytes, or resized, recompressed, cropped, mirrored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.facts import FactTable

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


def exact_groups(table: FactTable) -> list[tuple[int, ...]]:
    """Positions of images whose files, or whose decoded pixels, are the same; each group rises,
    groups in the order of their first member."""
    found = np.flatnonzero(table.readable)
    parts = []
    for name in ("file_hash", "content_hash"):
        _, label = np.unique(_words(table.rows[name][found]), return_inverse=True)
        parts.append(_chains(label.ravel()))
    pairs = found[np.concatenate(parts)]
    return groups_of_pairs(pairs)


def groups_of_pairs(pairs: Pairs) -> list[tuple[int, ...]]:
    """(m, 2) positions -> what hangs together, as rising tuples in the order of their first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    names, inside = np.unique(pairs, return_inverse=True)
    a, b = inside.reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(names), len(names)))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    groups = [tuple(part.tolist()) for part in np.split(names[order], cuts)]
    return sorted(groups)


def _words(hashes: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """The first 8 of 16 bytes as numbers; two of a million agree by chance once in 10^7 scans."""
    return np.ascontiguousarray(hashes).view("<u8").reshape(-1, 2)[:, 0]


def _chains(label: npt.NDArray[np.int64]) -> Pairs:
    """(m, 2): each position with the next of the same label."""
    order = np.argsort(label, kind="stable")
    same = np.flatnonzero(np.diff(label[order]) == 0)
    return np.stack([order[same], order[same + 1]], 1)
