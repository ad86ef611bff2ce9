"""Look-alikes: images that a network takes for nearly the same and whose thumbnails agree.

Pixels alone find copies that are resized, recompressed, cropped a little or mirrored. Features also
bring together what is cropped more, turned, written on, or taken a moment later; on their own they
bring together all red cars. So both are asked.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plusx.data.duplicates import groups_of_pairs
from plusx.data.likeness import correlation, structure
from plusx.jobs.audit import Audit
from plusx.jobs.audit_findings import Finding, crossing

Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

COSINE, LIKENESS = 0.85, 0.4
"""Least cosine of features and least correlation of thumbnails. With ResNet-18, on 396 photographs
of insects and 1,000 of ImageNet: of 60 originals' copies each (cropped by a tenth or more, turned
by 3 degrees, in other colours, a seventh covered) 0.7 are joined, and no two other images."""

NEIGHBOURS = 4
"""Of each image, the nearest so many are looked at."""

MOST = 20_000
"""Images; of more, each with each would take too long."""

_BLOCK = 1024


def find_lookalikes(
    audit: Audit, features: Features, rows: Ints
) -> tuple[list[Finding], tuple[str, ...]]:
    """Findings, and what was not looked for; near duplicates are not named again.

    Args:
        audit: of n images.
        features: (m, d) of some of them.
        rows: (m,) their positions in the listing.
    """
    first = np.arange(len(audit.listing.samples))
    for group in (*audit.exact, *audit.near):
        first[list(group)] = first[list(group)].min()
    inside = np.sort(np.unique(first[rows], return_index=True)[1])
    if len(inside) > MOST:
        return [], (f"look-alikes are looked for among {MOST:,} images or fewer",)
    pairs = _neighbours(np.asarray(features[inside], np.float32))
    if not len(pairs):
        return [], ()
    where = rows[inside]
    table = audit.table
    likeness = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        one, other = (
            structure(table.thumbs[side], table.rows["thumb_gain"][side])
            for side in where[pairs[start : start + _BLOCK]].T
        )
        likeness[start : start + _BLOCK] = correlation(one, other)
    groups = groups_of_pairs(where[pairs[likeness >= LIKENESS]])
    return crossing(audit.listing, "lookalikes", groups), ()


def _neighbours(features: Features) -> Ints:
    """(p, 2) positions, the smaller first, of images among each other's nearest by the cosine."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    most = min(NEIGHBOURS, len(unit) - 1)
    parts = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(unit) if most > 0 else 0, _BLOCK):
        cosine = unit[start : start + _BLOCK] @ unit.T
        every = np.arange(len(cosine))
        cosine[every, start + every] = -2
        near = np.argpartition(cosine, -most, axis=1)[:, -most:]
        one, place = np.nonzero(np.take_along_axis(cosine, near, 1) >= COSINE)
        parts.append(np.stack([start + one, near[one, place]], 1))
    found: Ints = np.unique(np.sort(np.concatenate(parts), axis=1), axis=0)
    return found
