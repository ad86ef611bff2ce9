"""The cheap properties of each image by which a shortcut might tell its class."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH120

from __future__ import annotations

import os
import re

import numpy as np
import numpy.typing as npt

from plusx.data import Listing, groups_of
from plusx.data.facts import FactTable
from plusx.evaluate.shortcuts import Shortcut, find_shortcuts
from plusx.jobs.audit_findings import Finding, Item

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")


def shortcuts(listing: Listing, table: FactTable, *, seed: int) -> tuple[Shortcut, ...]:
    """Every property that varies, tried as a classifier; see ``find_shortcuts``."""
    usable = zip(listing.samples, table.readable.tolist(), strict=True)
    targets = np.array([s.target if good and isinstance(s.target, int) else -1
                        for s, good in usable], np.int64)  # fmt: skip
    groups = groups_of(listing.samples)
    return find_shortcuts(properties(listing, table), targets, groups=groups, seed=seed)


def shortcut_findings(listing: Listing, tested: tuple[Shortcut, ...]) -> list[Finding]:
    """One finding for all properties that predict the class well above chance."""
    hits = [one for one in tested if one.found]
    if not hits:
        return []
    said = [
        f"{one.name} ({100 * one.balanced_accuracy:.0f}% balanced accuracy, clearest for "
        f"{listing.classes[one.clearest]!r})"
        for one in hits
    ]
    head = "1 property tells" if len(hits) == 1 else f"{len(hits)} properties tell, each alone,"
    text = f"{head} the class well above chance ({100 * hits[0].chance:.0f}%): {'; '.join(said)}"
    return [Finding("shortcut", len(hits), text, tuple(Item((), line) for line in said))]


def properties(listing: Listing, table: FactTable) -> dict[str, npt.NDArray[np.generic]]:
    """Name -> (n,) or (n, d); see ``find_shortcuts`` for what is unknown."""
    rows = table.rows
    size = np.stack([rows["width"], rows["height"]], axis=1).astype(np.float64)
    pixels = np.maximum(size.prod(axis=1), 1)
    taken = rows["taken"].astype("datetime64[D]")
    kind = rows[["format", "mode", "bit_depth"]]
    return {
        "file size": rows["size_bytes"].astype(np.float64),
        "bytes per pixel": rows["size_bytes"] / pixels,
        "image size": size,
        "aspect ratio": size[:, 0] / np.maximum(size[:, 1], 1),
        "border colour": rows["border"].astype(np.float64),
        "brightness": rows["mean"].astype(np.float64),
        "file format": np.unique(kind, return_inverse=True)[1].ravel(),
        "grey or colour": rows["grey"].astype(np.int8),
        "camera": rows["camera"],
        "date taken": np.where(np.isnat(taken), np.nan, taken.astype(np.int64)),
        "date of the folder": _folder_dates(listing),
    }


def _folder_dates(listing: Listing) -> npt.NDArray[np.float64]:
    """(n,) day of a date in the name of a folder below the root, NaN where none stands."""
    known: dict[str, float] = {}
    days = np.empty(len(listing.samples))
    for i, sample in enumerate(listing.samples):
        folder = os.path.dirname(sample.path)
        if folder not in known:
            dates = _DATE.findall(os.path.relpath(folder, listing.root))
            known[folder] = _day("-".join(dates[-1])) if dates else np.nan
        days[i] = known[folder]
    return days


def _day(text: str) -> float:
    try:
        return float(np.datetime64(text, "D").astype(np.int64))
    except ValueError:  # 30 February
        return np.nan
