"""Images that must stay on one side of a split: given groups, and whatever links them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from plusx.data.dicom import may_be_dicom, patient_group
from plusx.data.duplicates import groups_of_pairs
from plusx.data.records import Listing
from plusx.data.split import relative_name
from plusx.errors import UnreadableImage


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
    pairs = [(int(rows[0]), int(i)) for rows in linked for i in rows[1:]]
    touched = {i for pair in pairs for i in pair}
    if not touched:
        return listing
    first_of: dict[str, int] = {}
    for i, sample in enumerate(listing.samples):
        if sample.group is not None:
            pairs.append((first_of.setdefault(sample.group, i), i))
    samples = list(listing.samples)
    for members in groups_of_pairs(np.array(pairs, np.int64)):
        if len(members) > 1 and not touched.isdisjoint(members):
            name = _name(listing, members)
            for i in members:
                samples[i] = replace(samples[i], group=name)
    return replace(listing, samples=tuple(samples))


def group_patients(listing: Listing) -> Listing:
    """DICOM images without a group get their patient's, under a name that does not show who it is.

    Looked at are files called .dcm, and those whose names have no extension of another format; of
    these, the header alone. A header that cannot be read gives none: reading the image says why.
    """
    samples = list(listing.samples)
    for i, sample in enumerate(samples):
        if sample.group is None and may_be_dicom(sample.path):
            with suppress(UnreadableImage):
                samples[i] = replace(sample, group=patient_group(sample.path))
    changed = tuple(samples)
    return listing if changed == listing.samples else replace(listing, samples=changed)


def _name(listing: Listing, members: Sequence[int]) -> str:
    given = {group for i in members if (group := listing.samples[i].group) is not None}
    if len(given) == 1:
        return given.pop()
    names = sorted(relative_name(listing, listing.samples[i]) for i in members)
    text = "\0".join(names).encode("utf-8", "surrogateescape")
    return f"same-{hashlib.sha256(text).hexdigest()[:16]}"
