"""``plusx scan``, and the same before every training: what is wrong with a data set.

Facts of every image come from ``plusx.data.facts``; here they become findings. What needs a
network's features stands in ``audit_features``.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx._version import __version__
from plusx.data import BadImage, Listing, gather_facts, read_listing
from plusx.data.duplicates import exact_groups, near_groups
from plusx.data.facts import FactTable
from plusx.data.groups import keep_together
from plusx.data.reading import Reading
from plusx.data.remarks import Remarks
from plusx.errors import DataError, UsageError
from plusx.evaluate.shortcuts import Shortcut
from plusx.jobs.audit_findings import (
    Finding,
    class_findings,
    copy_findings,
    counts_by_class,
    file_findings,
    label_of,
    statistics,
)
from plusx.jobs.audit_properties import shortcut_findings, shortcuts
from plusx.jobs.audit_words import WORDS, many
from plusx.jobs.options import ScanOptions
from plusx.jobs.talk import Talk
from plusx.runtime import cache_folder, cpu_count

SCHEMA_VERSION = 1

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Seen:
    """How images are read.

    Attributes:
        channels: of each.
        reading: the choices.
    """

    channels: int = 3
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True, eq=False)
class Audit:
    """What a scan found.

    Attributes:
        listing: as it was read, unreadable images included.
        table: facts of its images.
        seen: how they were read.
        bad: those that cannot be read.
        findings: the gravest first.
        shortcuts: every property that was tried as a classifier, the best first.
        statistics: sizes, formats, modes.
        exact: positions of images that are identical, a tuple for each set of them.
        near: the same for near duplicates.
        notes: what was not looked for, and why.
    """

    listing: Listing
    table: FactTable
    seen: Seen
    bad: tuple[BadImage, ...]
    findings: tuple[Finding, ...]
    shortcuts: tuple[Shortcut, ...]
    statistics: dict[str, Any]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Audit({self.listing.source!r}: {self.verdict})"

    def of(self, severity: str) -> tuple[Finding, ...]:
        """The findings that are ``error``, ``warning`` or ``note``."""
        return tuple(one for one in self.findings if one.severity == severity)

    def find(self, kind: str) -> Finding | None:
        """The finding of this kind, such as ``label_errors``; None where there is none."""
        return next((one for one in self.findings if one.kind == kind), None)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) which of the listing's images can be read."""
        return self.table.readable

    @property
    def verdict(self) -> str:
        """One line: how many findings of which severity."""
        counts = [(len(self.of(name)), name) for name in ("error", "warning", "note")]
        said = [many(count, name) for count, name in counts if count]
        images = many(len(self.listing.samples), "image")
        return f"{', '.join(said) or 'nothing wrong found'} in {images}"

    def adding(self, findings: list[Finding], notes: tuple[str, ...] = ()) -> Audit:
        """The same with more findings."""
        order = list(WORDS)
        every = sorted([*self.findings, *findings], key=lambda one: order.index(one.kind))
        return replace(self, findings=tuple(every), notes=self.notes + notes)

    def file(self, row: int) -> dict[str, str | None]:
        """Path, label and split of an image."""
        sample = self.listing.samples[row]
        return {
            "path": sample.path,
            "label": label_of(self.listing, sample),
            "split": sample.split,
        }

    def counts(self) -> dict[str, dict[str, int]]:
        """Readable images by split (``all`` where there is none) and class."""
        splits = sorted({s.split for s in self.listing.samples}, key=lambda name: name or "")
        return {
            split or "all": counts_by_class(self.listing, self.readable, [split])
            for split in splits
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data; groups (patients) are not in it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "plusx_version": __version__,
            "source": self.listing.source,
            "images": len(self.listing.samples),
            "ignored": self.listing.ignored,
            "unlabelled": self.listing.unlabelled,
            "classes": list(self.listing.classes),
            "counts": self.counts(),
            "statistics": self.statistics,
            "findings": [
                {
                    "kind": one.kind,
                    "severity": one.severity,
                    "count": one.count,
                    "text": one.text,
                    "remedy": one.remedy,
                    "items": [
                        {"why": item.why, "files": [self.file(row) for row in item.rows]}
                        for item in one.items
                    ],
                }
                for one in self.findings
            ],
            "shortcuts": [self._shortcut(one) for one in self.shortcuts],
            "notes": list(self.notes),
        }

    def _shortcut(self, one: Shortcut) -> dict[str, Any]:
        return {
            "property": one.name,
            "balanced_accuracy": one.balanced_accuracy,
            "chance": one.chance,
            "limit": one.limit,
            "found": one.found,
            "images": one.images,
            "clearest_class": self.listing.classes[one.clearest],
            "clearest_recall": one.clearest_recall,
        }


def scan(data: PathLike, *, talk: Talk | None = None, **options: Any) -> Audit:
    """Look for what is wrong with a data set; nothing in it is changed.

    Args:
        data: a folder of class folders (with or without splits), a CSV or Parquet file, or a data
            set that Hugging Face datasets saved.
        talk: where progress is said.
        **options: see ``ScanOptions``.

    Raises:
        DataError: the data cannot be used.
        UsageError: an argument cannot work.
    """
    return _scan(ScanOptions.of(data, **options), talk or Talk())


def _scan(options: ScanOptions, talk: Talk) -> Audit:
    listing = read_listing(options.data, training=False)
    if listing.unlabelled:
        talk.note(f"images left out because they have no label yet: {listing.unlabelled}")
    if listing.ignored:
        talk.note(f"{listing.ignored} files or rows are no images, or repeat another: left out")
    seen = Seen(options.as_channels, options.reading)
    processes = options.processes or cpu_count()
    table = read_facts(listing, seen, cache=options.cache, processes=processes, talk=talk)
    with talk.phase("audit"):
        audit = examine(listing, table, seen, seed=options.seed)
    if options.weights is None:
        why = "label errors, outliers and look-alikes need a network's features: give --weights"
        return replace(audit, notes=(*audit.notes, why))
    from plusx.jobs.audit_features import extract, judge

    features, usable = extract(audit, options, talk)
    with talk.phase("label errors"):
        return judge(audit, features, usable, seed=options.seed)


def read_facts(
    listing: Listing,
    seen: Seen | None = None,
    *,
    cache: PathLike | None,
    processes: int,
    talk: Talk,
) -> FactTable:
    """The facts of every image of a listing, read in worker processes; see ``gather_facts``.

    Where the user's own cache cannot be used (a full disk, a damaged file), that is said, and the
    images are read without it; a cache that was asked for is an error then.

    Raises:
        DataError: the cache that was asked for cannot be used.
        UsageError: its folder cannot be made.
    """
    paths = [sample.path for sample in listing.samples]
    seen = seen or Seen()

    def read(file: Path | None) -> FactTable:
        with talk.phase("reading", len(paths)) as tick:
            return gather_facts(
                paths,
                processes=processes,
                cache=file,
                channels=seen.channels,
                reading=seen.reading,
                tick=lambda n: tick(n, ""),
            )

    file = _cache_file(cache, listing, talk)
    try:
        table = read(file)
    except DataError as error:
        if file is None or os.fspath(cache or "") != "auto":
            raise
        talk.say(f"{error}; reading without it")
        table = read(None)
    remarks = Remarks()
    for found in table.remarks:
        remarks.add(found)
    for line in remarks.lines():
        talk.note(line)
    return table


def examine(
    listing: Listing, table: FactTable, seen: Seen | None = None, *, seed: int = 0
) -> Audit:
    """Findings from facts: files, classes, copies and shortcuts.

    Args:
        listing: n images.
        table: their facts, in the same order.
        seen: how they were read.
        seed: of folds and samples.
    """
    exact = tuple(exact_groups(table))
    near = tuple(group.members for group in near_groups(table))
    several = listing.task != "single"
    # copies on both sides of a fold would be memory, not a shortcut
    tested = () if several else shortcuts(keep_together(listing, exact + near), table, seed=seed)
    audit = Audit(
        listing=listing,
        table=table,
        seen=seen or Seen(),
        bad=tuple(table.errors),
        findings=(),
        shortcuts=tested,
        statistics=statistics(table),
        exact=exact,
        near=near,
        notes=("shortcuts are looked for where an image has one label",) if several else (),
    )
    return audit.adding(
        [
            *file_findings(listing, table),
            *class_findings(listing, table.readable),
            *copy_findings(listing, exact, near),
            *shortcut_findings(listing, tested),
        ]
    )


def _cache_file(cache: PathLike | None, listing: Listing, talk: Talk) -> Path | None:
    """One file for each root of images; none where the user's own folder cannot be written."""
    if cache is None:
        return None
    name = hashlib.sha256(os.fsencode(Path(listing.root).resolve())).hexdigest()[:16] + ".sqlite"
    asked = os.fspath(cache) != "auto"
    folder = Path(cache) if asked else cache_folder() / "facts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if asked:
            raise UsageError(f"--cache {folder}: cannot be made: {error.strerror}") from error
        talk.say(f"{folder}: no facts are kept there ({error.strerror})")
        return None
    return folder / name
