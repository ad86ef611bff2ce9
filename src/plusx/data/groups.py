"""Images that must stay on one side of a split: given groups, and whatever links them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from plusx.data.records import Listing
from plusx.data.split import relative_name


def keep_together(listing: Listing, linked: Iterable[Sequence[int]]) -> Listing:
    """The listing with one group for all that hangs together through groups and ``linked``.

    Where a copy of one patient's image lies among another's, the two patients become one group.
    A set of images with one given group among them takes its name; else the name is a digest of
    the images' names relative to the root, so that it tells nobody who the patients are, and is
    the same wherever the folder lies.

    Args:
        listing: its samples may have groups already.
        linked: positions of samples that belong together, such as copies of one image.

    Returns:
        The listing itself where nothing is linked.
    """
    parent = list(range(len(listing.samples)))

    def top(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    touched: set[int] = set()
    for positions in linked:
        if len(positions) > 1:
            touched.update(int(i) for i in positions)
            first = top(int(positions[0]))
            for i in positions[1:]:
                parent[top(int(i))] = first
    if not touched:
        return listing
    first_of: dict[str, int] = {}
    for i, sample in enumerate(listing.samples):
        if sample.group is not None:
            parent[top(i)] = top(first_of.setdefault(sample.group, i))
    roots = {top(i) for i in touched}
    sets: dict[int, list[int]] = {}
    for i in range(len(parent)):
        if (root := top(i)) in roots:
            sets.setdefault(root, []).append(i)
    samples = list(listing.samples)
    for members in sets.values():
        name = _name(listing, members)
        for i in members:
            if samples[i].group != name:
                samples[i] = replace(samples[i], group=name)
    return replace(listing, samples=tuple(samples))


def _name(listing: Listing, members: Sequence[int]) -> str:
    given = {group for i in members if (group := listing.samples[i].group) is not None}
    if len(given) == 1:
        return given.pop()
    names = sorted(relative_name(listing, listing.samples[i]) for i in members)
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return f"same-{hashlib.sha256(text).hexdigest()[:16]}"
