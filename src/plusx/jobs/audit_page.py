"""The audit as one page: what was found, with the images, and what was looked at."""

from __future__ import annotations

import base64
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plusx._version import __version__
from plusx.data.decode import read_thumbnail
from plusx.errors import UnreadableImage, UsageError
from plusx.jobs.audit import Audit
from plusx.jobs.audit_findings import Finding, Item
from plusx.jobs.audit_words import WORDS, many
from plusx.jobs.gallery import common_folder
from plusx.jobs.report import render
from plusx.jobs.report_classes import bounded
from plusx.jobs.run import name_of, write_text
from plusx.jobs.wording import one_line

Json = dict[str, Any]

PICTURES = 96
"""Most on a page, all findings together: each is read again, and the page stays below 1 MB."""

SINGLES, GROUPS, OF_A_GROUP = 12, 5, 4
"""Most pictures of a finding: images; groups, and images of each."""

SIDE = 176
"""Longer side of a picture in pixels."""

LISTED, CLASSES = 200, 1000
"""Most names of a finding and most classes; ``--json`` has all."""

_MARK = b'<meta name="generator" content="plusx scan">'
_WITHOUT_PICTURE = ("unreadable", "truncated", "shortcut", "few", "imbalance")


def write_page(audit: Audit, path: Path, *, thumbnails: bool = True) -> None:
    """Write the page: one file that asks for nothing outside itself.

    Args:
        audit: what to show.
        path: the file; written atomically, replaced where it is there.
        thumbnails: show images; False for images of patients.

    Raises:
        ArtifactError: it cannot be written.
    """
    write_text(path, render("audit.html", gather(audit, thumbnails=thumbnails)))


def check_page(data: str, out: str | None, *, overwrite: bool = False) -> Path:
    """Where the page goes; refused before hours of work where it cannot.

    A page that an earlier scan wrote is replaced; anything else only with ``overwrite``.

    Args:
        data: what is scanned.
        out: as asked for; by default ``scan-NAME.html`` in this folder.

    Raises:
        UsageError: something else is there, it cannot be made, or this folder is in the data.
    """
    if out == "":
        raise UsageError("--out '': is an empty name; give the file to write")
    path = Path(out or f"scan-{name_of(data)}.html")
    root = Path(data).resolve()
    if out is None and root.is_dir() and path.resolve().is_relative_to(root):
        raise UsageError(f"{path}: would lie in the data, where a scan writes nothing; give --out")
    if path.is_dir():
        raise UsageError(f"--out {path}: is a folder; give the name of a file")
    if path.exists() and not overwrite and not _is_page(path):
        raise UsageError(f"--out {path}: exists already and is no page of plusx scan; give "
                         "another name, or --overwrite")  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}") from error
    return path


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK in file.read(1000)


def gather(audit: Audit, *, thumbnails: bool) -> Json:
    """Everything that the page shows, as plain data; every name on one line."""
    root = common_folder([sample.path for sample in audit.listing.samples]) or audit.listing.root
    left = PICTURES if thumbnails else 0
    findings = []
    for finding in audit.findings:
        shown = _finding(audit, finding, root, left)
        left -= sum(len(one["files"]) for one in shown["shown"])
        findings.append(shown)
    counts = audit.counts()
    return {
        "name": one_line(Path(audit.listing.source).name or audit.listing.source),
        "command": f"plusx scan {shlex.quote(one_line(audit.listing.source))}",
        "title": _title(audit),
        "images": len(audit.listing.samples),
        "class_names": [one_line(name) for name in audit.listing.classes],
        "root": one_line(root),
        "findings": findings,
        "thumbnails": thumbnails,
        "classes": bounded(_class_rows(audit, counts), CLASSES),
        "splits": [one_line(split) for split in counts],
        "shortcuts": [_shortcut(audit, one) for one in audit.shortcuts],
        "sizes": _sizes(audit.statistics),
        "about": audit.statistics,
        "notes": [one_line(note) for note in audit.notes],
        "plusx_version": __version__,
    }


def _title(audit: Audit) -> str:
    counts = [(len(audit.of(name)), name) for name in ("error", "warning", "note")]
    said = [many(count, name) for count, name in counts if count]
    return " and ".join([", ".join(said[:-1]), said[-1]]) if len(said) > 1 else (
        said[0] if said else "Nothing wrong found")  # fmt: skip


def _finding(audit: Audit, finding: Finding, root: str, left: int) -> Json:
    words = WORDS[finding.kind]
    pictured: list[Json] = []
    if finding.kind not in _WITHOUT_PICTURE:
        most = SINGLES if words.unit == "image" else GROUPS
        for item in finding.items[:most]:
            rows = item.rows[: min(OF_A_GROUP, left)]
            left -= len(rows)
            if rows:
                pictured.append(_card(audit, item, rows, root))
    return {
        "kind": finding.kind,
        "title": words.title,
        "severity": finding.severity,
        "count": finding.count,
        "unit": many(finding.count, words.unit).split(" ")[1],
        "text": one_line(finding.text),
        "remedy": finding.remedy,
        "groups": words.unit == "group",
        "shown": pictured,
        "listed": bounded(_lines(audit, finding.items, root), LISTED),
        "all": len(finding.items),
    }


def _card(audit: Audit, item: Item, rows: Sequence[int], root: str) -> Json:
    files = []
    for row in rows:
        found = _file(audit, row, root)
        picture, why = _picture(audit, audit.listing.samples[row].path)
        files.append({**found, "picture": picture, "gone": why})
    return {"why": one_line(item.why), "files": files, "more": len(item.rows) - len(rows)}


def _picture(audit: Audit, path: str) -> tuple[str, str]:
    """A small JPEG as a data URI; or nothing, and why."""
    from PIL import Image

    seen = audit.seen
    try:
        small = read_thumbnail(path, SIDE, channels=seen.channels, reading=seen.reading)
    except UnreadableImage as error:
        return "", one_line(error.reason)
    file = io.BytesIO()
    Image.fromarray(small).save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}", ""


def _lines(audit: Audit, items: Sequence[Item], root: str) -> list[Json]:
    """A line for each file of the first items, numbered by item."""
    lines: list[Json] = []
    for number, item in enumerate(items, 1):
        if len(lines) > LISTED:
            break
        for row in item.rows:
            lines.append({"number": number, "why": one_line(item.why), **_file(audit, row, root)})
    return lines


def _file(audit: Audit, row: int, root: str) -> Json:
    found = audit.file(row)
    path = str(found["path"])
    return {
        "path": one_line(os.path.relpath(path, root) if root else path),
        "label": one_line(found["label"]),
        "split": one_line(found["split"] or ""),
    }


def _class_rows(audit: Audit, counts: dict[str, dict[str, int]]) -> list[Json]:
    return [
        {"class": one_line(name), "counts": [of_split[name] for of_split in counts.values()]}
        for name in audit.listing.classes
    ]


def _shortcut(audit: Audit, one: Any) -> Json:
    return {
        "name": one.name,
        "value": f"{100 * one.balanced_accuracy:.1f}%",
        "chance": f"{100 * one.chance:.1f}%",
        "limit": "" if one.limit is None else f"{100 * one.limit:.1f}%",
        "found": one.found,
        "clearest": one_line(audit.listing.classes[one.clearest]),
        "recall": f"{100 * one.clearest_recall:.0f}%",
    }


def _sizes(about: Json) -> list[tuple[str, str]]:
    """What is known of the files, as (name, text)."""
    width, height = about["width"], about["height"]

    def counted(values: dict[str, int]) -> str:
        order = sorted(values.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{one_line(name)} {count:,}" for name, count in order[:12])

    rows = [
        ("readable", f"{about['readable']:,} of {about['images']:,} images"),
        ("size of all files", f"{about['bytes'] / 1e6:,.1f} MB"),
        ("width", f"{width['least']:,} to {width['most']:,} pixels, median {width['median']:,}"),
        ("height", f"{height['least']:,} to {height['most']:,} pixels, "
                   f"median {height['median']:,}"),
        ("formats", counted(about["formats"])),
        ("modes", counted(about["modes"])),
        ("turned by EXIF", f"{about['turned_by_exif']:,}"),
        ("with a colour profile", f"{about['colour_profiles']:,}"),
        ("with several frames or pages", f"{about['many_frames']:,}"),
        ("cameras named", f"{about['cameras']:,}"),
    ]  # fmt: skip
    return rows
