"""What an audit finds in files, classes and copies: from facts alone, no network needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data import Listing, Sample
from plusx.data.facts import FactTable
from plusx.jobs.audit_words import WORDS, Severity, many, sentence

Rows = npt.NDArray[np.int64]
Groups = Sequence[tuple[int, ...]]

UNIFORM_STD = 2.5
"""Grey levels; an image that varies less shows nothing."""

USUAL = 0.25
"""Share of a class; where more of its images are nearly uniform, that is what it looks like."""

TINY = 32
"""Pixels of the shorter side, where most images have twice as many."""

HUGE_MEGAPIXELS = 50.0
LONG = 3.0
"""Longer over shorter side; beyond, the square that a network sees shows a third at most."""

UNEVEN = 10.0
"""Images of the largest class over those of another."""

FEW = 10
"""Images; with fewer, a class is hardly learnt and its figures say next to nothing."""


@dataclass(frozen=True)
class Item:
    """One image, or several that belong together.

    Attributes:
        rows: positions in the listing.
        why: in a few words.
    """

    rows: tuple[int, ...]
    why: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Attributes:
        kind: a key of ``WORDS``, which has its severity and remedy.
        count: of images, of groups of images, or of classes, as ``text`` says.
        text: one sentence.
        items: the images, worst first.
    """

    kind: str
    count: int
    text: str
    items: tuple[Item, ...] = ()

    @property
    def severity(self) -> Severity:
        """``error``, ``warning`` or ``note``."""
        return WORDS[self.kind].severity

    @property
    def remedy(self) -> str:
        """What to do."""
        return WORDS[self.kind].remedy


def found(kind: str, items: Sequence[Item], more: str = "") -> list[Finding]:
    """One finding of these items; none where there are none."""
    if not items:
        return []
    return [Finding(kind, len(items), sentence(kind, len(items)) + more, tuple(items))]


def label_of(listing: Listing, sample: Sample) -> str:
    """What an image is labelled, several labels joined by ``;``; empty where it has none."""
    return _names(listing.classes, sample.target)


def _names(classes: Sequence[str], target: object) -> str:
    if isinstance(target, tuple):
        return ";".join(classes[int(one)] for one in target)
    return classes[target] if isinstance(target, int) else ""


def file_findings(listing: Listing, table: FactTable) -> list[Finding]:
    """Files that cannot be read, and images that are odd by themselves."""
    rows, readable = table.rows, table.readable
    width, height = rows["width"].astype(np.float64), rows["height"].astype(np.float64)
    short, long = np.minimum(width, height), np.maximum(width, height)
    usual = float(np.median(short[readable])) if readable.any() else 0.0
    aspect = np.divide(long, short, out=np.ones_like(long), where=short > 0)
    bad = sorted(table.reasons)
    cut = [i for i in bad if "truncated" in table.reasons[i]]

    def size(i: int) -> str:
        return f"{rows['width'][i]} x {rows['height'][i]} pixels"

    def spread(i: int) -> str:
        return f"grey levels spread by {rows['std'][i]:.1f}"

    def worst(kind: str, chosen: npt.NDArray[np.bool_], key: Any, why: Callable[[int], str]) -> Any:
        index = np.flatnonzero(readable & chosen)
        order = index[np.argsort(key[index], kind="stable")].tolist()
        return found(kind, [Item((i,), why(i)) for i in order])

    return [
        *found("unreadable", [Item((i,), table.reasons[i]) for i in bad if i not in set(cut)]),
        *found("truncated", [Item((i,), table.reasons[i]) for i in cut]),
        *worst("uniform", _uniform(listing, table), rows["std"], spread),
        *worst("tiny", (short < TINY) & (short < usual / 2), short, size),
        *worst("huge", width * height > HUGE_MEGAPIXELS * 1e6, -width * height, size),
        *worst("long", aspect > LONG, -aspect, size),
    ]


def _uniform(listing: Listing, table: FactTable) -> npt.NDArray[np.bool_]:
    """(n,) nearly of one colour, in a class where that is not usual (open sea from above is)."""
    flat = table.readable & (table.rows["std"] < UNIFORM_STD)
    if not flat.any():
        return flat
    label = np.unique([label_of(listing, s) for s in listing.samples], return_inverse=True)[1]
    share = np.bincount(label, flat) / np.maximum(np.bincount(label, table.readable), 1)
    return np.asarray(flat & (share[label] <= USUAL))


def class_findings(listing: Listing, readable: npt.NDArray[np.bool_]) -> list[Finding]:
    """Uneven and nearly empty classes, counted where training learns them."""
    counts = counts_by_class(listing, readable, _learnt(listing))
    largest = max(counts.values(), default=0)
    few = {name: n for name, n in counts.items() if n < FEW}
    uneven = {name: n for name, n in counts.items() if name not in few and n * UNEVEN <= largest}
    found = []
    for kind, names in (("few", few), ("imbalance", uneven)):
        if names:
            order = sorted(names, key=lambda name: (names[name], name))
            said = ", ".join(f"{name}: {names[name]}" for name in order[:10])
            more = f", and {len(order) - 10:,} more" if len(order) > 10 else ""
            text = f"{sentence(kind, len(names))} ({said}{more}; the largest has {largest:,})"
            found.append(Finding(kind, len(names), text))
    return found


def counts_by_class(
    listing: Listing, readable: npt.NDArray[np.bool_], splits: Sequence[str | None]
) -> dict[str, int]:
    """Readable images of each class in these splits."""
    counts = np.zeros(len(listing.classes), np.int64)
    for sample, good in zip(listing.samples, readable.tolist(), strict=True):
        if good and sample.split in splits and sample.target is not None:
            np.add.at(counts, np.array(sample.target, np.int64), 1)
    return dict(zip(listing.classes, counts.tolist(), strict=True))


def _learnt(listing: Listing) -> tuple[str | None, ...]:
    splits = {sample.split for sample in listing.samples}
    return ("train",) if "train" in splits else tuple(splits)


def copy_findings(listing: Listing, exact: Groups, near: Groups) -> list[Finding]:
    """Identical images and near duplicates: across splits, across labels, or neither.

    A group that crosses both is in both; one of near duplicates that are all identical is left to
    the identical ones.
    """
    same = {i: number for number, rows in enumerate(exact) for i in rows}
    close = [rows for rows in near if len({same.get(i, -1 - i) for i in rows}) > 1]
    return [*crossing(listing, "copies", exact), *crossing(listing, "near_copies", close)]


def crossing(listing: Listing, name: str, groups: Groups) -> list[Finding]:
    """Findings of these groups: ``NAME_across_splits``, ``NAME_across_labels`` and ``NAME``."""
    kinds: dict[str, list[Item]] = {}
    for rows in groups:
        samples = [listing.samples[i] for i in rows]
        splits = sorted({sample.split or "no split" for sample in samples})
        labels = sorted({label_of(listing, sample) or "no label" for sample in samples})
        where = [("_across_splits", splits), ("_across_labels", labels)]
        crossed = [(end, names) for end, names in where if len(names) > 1]
        for end, names in crossed:
            kinds.setdefault(name + end, []).append(Item(rows, ", ".join(names)))
        if not crossed:
            kinds.setdefault(name, []).append(Item(rows))
    results = []
    for kind, items in kinds.items():
        images = sum(len(item.rows) for item in items)
        results += found(kind, items, f" ({many(images, 'image')})")
    return results


def statistics(table: FactTable) -> dict[str, Any]:
    """Sizes and modes of the readable images, as plain data."""
    rows = table.rows[table.readable]
    about: dict[str, Any] = {"images": len(table), "readable": len(rows)}
    about["bytes"] = int(np.maximum(table.rows["size_bytes"], 0).sum())
    for name in ("width", "height"):
        low, middle, high = np.quantile(rows[name], (0, 0.5, 1)) if len(rows) else (0, 0, 0)
        about[name] = {"least": int(low), "median": int(middle), "most": int(high)}
    for name in ("format", "mode"):
        values, counts = np.unique(rows[name], return_counts=True)
        pairs = zip(values.tolist(), counts.tolist(), strict=True)
        about[f"{name}s"] = {value.decode("ascii") or "other": count for value, count in pairs}
    about["turned_by_exif"] = int((rows["orientation"] > 1).sum())
    about["colour_profiles"] = int(rows["has_icc"].sum())
    about["many_frames"] = int((rows["frames"] > 1).sum())
    about["cameras"] = len(np.unique(rows["camera"][rows["camera"] > 0]))
    return about
