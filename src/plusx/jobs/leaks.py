"""No image on both sides of a split: stopped where the data says so, avoided where plusx splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from plusx.data import Listing, drop
from plusx.data.groups import keep_together
from plusx.errors import DataError
from plusx.jobs.audit import Audit
from plusx.jobs.audit_words import many
from plusx.jobs.talk import Talk

Split = Callable[[Listing], Listing]


def stop_at_leaks(audit: Audit) -> None:
    """Refuse to train where identical images lie in two given splits.

    Raises:
        DataError: they do; says how many, names a pair and the remedies.
    """
    leak = audit.find("copies_across_splits")
    if leak is None:
        return
    shown: dict[str | None, str] = {}
    for row in leak.items[0].rows:
        sample = audit.listing.samples[row]
        shown.setdefault(sample.split, sample.path)
    raise DataError(
        f"{audit.listing.source}: {leak.text}, such as {' and '.join(list(shown.values())[:2])}: "
        "figures on images that were trained on are false; keep each on one side (plusx scan "
        f"{audit.listing.source} --fix OUT.csv writes such a list), or give --allow-leaks"
    )


def divide(audit: Audit, split: Split, *, allow_leaks: bool, talk: Talk) -> Listing:
    """The readable images with splits; copies, near duplicates and groups on one side each.

    Near duplicates are given up where a class would not be left with images on either side.

    Args:
        audit: of the listing to divide.
        split: divides a listing along its groups; leaves one alone that has its splits.
        allow_leaks: leave copies where they fall.
        talk: where the result is said.

    Raises:
        DataError: no such split is possible, or nothing readable is left of a class.
    """
    if allow_leaks:
        return split(drop(audit.listing, audit.bad))
    try:
        divided = _along(audit, audit.exact + audit.near, split)
    except DataError:
        try:
            divided = split(drop(keep_together(audit.listing, audit.exact), audit.bad))
        except DataError as error:
            if not audit.exact:
                raise
            raise DataError(f"{error}; identical images are one group (--allow-leaks: they are "
                            "not)") from error  # fmt: skip
        if audit.near:
            talk.note(
                "near duplicates hold so much of a class that they cannot all lie on one side of a "
                "split: only identical images do"
            )
        kept: Sequence[Sequence[int]] = audit.exact
    else:
        kept = audit.exact + audit.near
    given = {sample.split for sample in audit.listing.samples}
    if kept and "val" not in given:
        talk.note(
            f"{_said(audit, kept)} kept on one side of the split: val has {_shares(divided)} of "
            "each class"
        )
    return divided


def _along(audit: Audit, links: Sequence[tuple[int, ...]], split: Split) -> Listing:
    grouped = drop(keep_together(audit.listing, links), audit.bad)
    units: dict[int, set[str]] = {}
    for sample in grouped.samples:
        if sample.split in (None, "train") and sample.target is not None:
            for target in np.atleast_1d(np.array(sample.target, np.int64)).tolist():
                units.setdefault(target, set()).add(sample.group or sample.path)
    if any(len(names) < 2 for names in units.values()):
        raise DataError(f"{audit.listing.source}: a class has one group only")
    return split(grouped)


def _said(audit: Audit, kept: Sequence[Sequence[int]]) -> str:
    exact, near = len(audit.exact), len(kept) - len(audit.exact)
    parts = [(exact, "identical images"), (near, "near duplicates")]
    said = [f"{many(count, 'group')} of {what}" for count, what in parts if count]
    return f"{' and '.join(said)} {'is' if len(kept) == 1 else 'are'}"


def _shares(listing: Listing) -> str:
    """``18% to 22%``: the share of val among train and val, least and most over the classes."""
    counts = np.zeros((2, len(listing.classes)))
    for sample in listing.samples:
        if sample.split in ("train", "val") and sample.target is not None:
            np.add.at(counts[int(sample.split == "val")], np.array(sample.target, np.int64), 1)
    total = counts.sum(axis=0)
    share = 100 * counts[1][total > 0] / total[total > 0]
    low, high = f"{share.min():.0f}%", f"{share.max():.0f}%"
    return low if low == high else f"{low} to {high}"
