"""Manifests: a CSV file with the columns ``path,label[,split][,group]``."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH118, PTH120

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator

from plusx.data.classes import SPLIT_NAMES, Row, assemble
from plusx.data.records import Listing
from plusx.errors import DataError

COLUMNS = ("path", "label", "split", "group")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def read_manifest(csv_path: str | os.PathLike[str], *, training: bool = True) -> Listing:
    """List the images that a CSV file names.

    UTF-8 with or without a byte-order mark, comma-separated, with a header. Paths are absolute
    or relative to the CSV's folder; whether the files are there is for the scan to say. A row
    that repeats another word for word is counted in ``Listing.ignored``.

    Args:
        csv_path: the file.
        training: see :func:`plusx.data.folder.read_folder`.

    Raises:
        DataError: the file cannot be used; names the line.
    """
    where = os.fspath(csv_path)
    root = os.path.dirname(where) or "."
    rows: list[Row] = []
    lines: dict[str, tuple[int, Row]] = {}
    ignored = 0
    for line, cells in _records(where):
        row = _row(cells, root, f"{where}, line {line}")
        path = os.path.normcase(row[0])
        if path not in lines:
            lines[path] = line, row
            rows.append(row)
        elif lines[path][1] == row:
            ignored += 1
        else:
            first, other = lines[path]
            what = next(n for n, a, b in zip(COLUMNS, row, other, strict=True) if a != b)
            raise DataError(
                f"{where}, line {line}: {cells['path']!r} is listed in line {first} already, "
                f"with another {what}; keep one of the two"
            )
    if not rows:
        raise DataError(f"{where}: has a header but no rows")
    return assemble(root, rows, where=where, training=training, ignored=ignored)


def _row(cells: dict[str, str], root: str, at: str) -> Row:
    path, label = cells["path"], cells["label"].strip()
    if not path.strip():
        raise DataError(f"{at}: the path is empty")
    if _URL.match(path):
        raise DataError(f"{at}: {path!r} is a URL; download the image and name the file")
    if not label:
        raise DataError(f"{at}: the label of {path!r} is empty")
    split = None
    if "split" in cells:
        name = cells["split"].strip().lower()
        if name not in SPLIT_NAMES:
            raise DataError(f"{at}: split {cells['split']!r} is not one of train, val, test")
        split = SPLIT_NAMES[name]
    group = cells.get("group", "").strip() or None
    return os.path.normpath(os.path.join(root, path)), label, split, group


def _records(where: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line of its start, cells by column) of every row that is not blank."""
    try:
        with open(where, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header: list[str] | None = None
            line = 1
            for cells in reader:
                if header is None:
                    header = _header(cells, where)
                elif cells:
                    if len(cells) != len(header):
                        raise DataError(
                            f"{where}, line {line}: has {len(cells)} cells where the header has "
                            f"{len(header)}; quote a cell that holds a comma"
                        )
                    yield line, dict(zip(header, cells, strict=True))
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{where}, line {reader.line_num}: not valid CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 text; save it as CSV in UTF-8") from error
    except FileNotFoundError as error:
        raise DataError(f"{where}: does not exist") from error
    except PermissionError as error:
        raise DataError(f"{where}: no permission to read this file") from error
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from error
    if header is None:
        raise DataError(f"{where}: is empty; the first line must be path,label[,split][,group]")


def _header(cells: list[str], where: str) -> list[str]:
    names = [cell.strip().lower() for cell in cells]
    said = ",".join(cells)
    for name in ("path", "label"):
        if name not in names:
            raise DataError(
                f"{where}, line 1: no column {name!r} in the header {said!r}; it must read "
                "path,label[,split][,group], separated by commas"
            )
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            wrong = "twice" if name in COLUMNS else "unknown"
            raise DataError(
                f"{where}, line 1: column {name!r} is {wrong}; the columns are {', '.join(COLUMNS)}"
            )
    return names
