"""``plusx scan --fix``: a manifest without what is wrong for sure. Images are never touched."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH100, PTH118

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from plusx.atomic import replacing
from plusx.data import Listing, Sample
from plusx.data.groups import keep_together
from plusx.errors import ArtifactError, UsageError
from plusx.jobs.audit import Audit
from plusx.jobs.audit_findings import label_of

_RANK = {"test": 0, "val": 1, "train": 2, None: 3}
"""Of a copy in several splits the first of these stays: test sets stay comparable."""

_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Fixed:
    """What was written.

    Attributes:
        path: the manifest.
        notes: a CSV beside it: ``path,label,what,why`` of images left out and labels to look at.
        kept: images in the manifest.
        left_out: images that are not.
        suspects: images in the manifest whose label is likely wrong.
    """

    path: Path
    notes: Path
    kept: int
    left_out: int
    suspects: int


def notes_path(out: Path) -> Path:
    """``OUT-notes.csv`` beside ``OUT.csv``."""
    return out.with_name(f"{out.stem}-notes.csv")


def check_manifest(out: Path, *, overwrite: bool = False) -> None:
    """Refuse a name that cannot be, or must not be, written.

    Raises:
        UsageError: it does not end in .csv, or it or its notes are there already.
    """
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--fix {out}: must end in .csv, so that plusx train can read it")
    for path in (out, notes_path(out)):
        if path.is_dir() or (path.exists() and not overwrite):
            raise UsageError(f"--fix {out}: {path} exists already; give another name, "
                             "or --overwrite")  # fmt: skip


def write_manifest(audit: Audit, out: Path, *, overwrite: bool = False) -> Fixed:
    """Write the listing without unreadable images and copies.

    Of identical images one stays (of test before val before train, then the first listed); none
    where their labels differ. Near duplicates become groups, so that a split keeps them together.
    Labels that are likely wrong stay as they are, and stand in the notes.

    Args:
        audit: of the data.
        out: a name ending in .csv.
        overwrite: replace what is there.

    Raises:
        UsageError: the name cannot be used, or a class name cannot stand in a manifest.
        ArtifactError: the disk is full or the folder cannot be written.
    """
    check_manifest(out, overwrite=overwrite)
    listing = audit.listing
    for name in listing.classes:
        if ";" in name and listing.task == "single":
            raise UsageError(f"--fix {out}: class {name!r} holds ';', which separates labels in a "
                             "manifest; rename the class")  # fmt: skip
    left_out = _left_out(audit)
    grouped = keep_together(listing, audit.near)
    has_splits = any(sample.split for sample in listing.samples)
    has_groups = any(sample.group for sample in grouped.samples)
    kept = [(i, s) for i, s in enumerate(grouped.samples) if i not in left_out]
    columns = _columns(listing, [sample for _, sample in kept])
    rows = [["path", *(columns or ["label"]), *["split"] * has_splits, *["group"] * has_groups]]
    for _, sample in kept:
        labels = [label_of(listing, sample)]
        if columns:
            labels = [str(int(number in sample.targets)) for number in range(len(columns))]
        cells = [_named(sample.path, out), *labels]
        rows.append(cells + [sample.split or ""] * has_splits + [sample.group or ""] * has_groups)
    suspects = audit.find("label_errors")
    wrong = [] if suspects is None else [
        (item.rows[0], item.why) for item in suspects.items if item.rows[0] not in left_out
    ]  # fmt: skip
    notes = [["path", "label", "what", "why"]]
    for what, about in (("left out", sorted(left_out.items())), ("look at the label", wrong)):
        for i, why in about:
            sample = listing.samples[i]
            label = label_of(listing, sample)
            # notes are for people: here a label need not be read back
            label = f"'{label}" if label.startswith(_FORMULA) else label
            notes.append([_named(sample.path, out), label, what, why])
    _write(notes_path(out), notes)
    _write(out, rows)
    return Fixed(out, notes_path(out), len(rows) - 1, len(left_out), len(wrong))


def _columns(listing: Listing, kept: list[Sample]) -> list[str]:
    """The classes, where each has a column of 0 and 1; none where labels stand in one cell.

    As the data has them; and where no list of several is left, which alone would say in a cell
    that an image may have any number of labels.
    """
    listed = any(len(sample.targets) > 1 for sample in kept)
    if listing.task == "single" or (listed and not listing.by_column):
        return []
    return list(listing.classes)


def _left_out(audit: Audit) -> dict[int, str]:
    """Position -> why, of the images that the manifest lacks."""
    samples = audit.listing.samples
    reasons = {bad.path: bad.reason for bad in audit.bad}
    found = {i: reasons[sample.path] for i, sample in enumerate(samples)
             if sample.path in reasons}  # fmt: skip
    for rows in audit.exact:
        order = sorted(rows, key=lambda i: (_RANK[samples[i].split], i))
        if len({label_of(audit.listing, samples[i]) for i in rows}) > 1:
            others = f"identical to {samples[order[0]].path}, with another label"
            found |= dict.fromkeys(order[1:], others)
            found[order[0]] = f"identical to {samples[order[1]].path}, with another label"
        else:
            found |= dict.fromkeys(order[1:], f"identical to {samples[order[0]].path}")
    for i, sample in enumerate(samples):
        if i not in found and sample.path.encode("utf-8", "ignore").decode() != sample.path:
            found[i] = "its name is not UTF-8, which a manifest cannot hold; rename it"
    return found


def _named(path: str, out: Path) -> str:
    """The image as the manifest names it: relative where it lies below the manifest's folder."""
    folder = os.path.abspath(out.parent)
    whole = os.path.abspath(path)
    if not whole.startswith(os.path.join(folder, "")):
        return whole
    name = os.path.relpath(whole, folder)
    # a spreadsheet would take such a name for a formula
    return os.path.join(".", name) if name.startswith(_FORMULA) else name


def _write(path: Path, rows: list[list[str]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as beside,
            beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows(rows)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error
