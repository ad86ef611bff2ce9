"""Manifests: a CSV or Parquet file with the columns ``path,label[,split][,group]``, or with one
0/1 column a class in place of ``label``."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH118, PTH120

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from plusx.data.classes import SEPARATOR, SPLIT_NAMES, Label, Row, assemble
from plusx.data.records import Listing, Task
from plusx.data.table import COLUMNS, Cell, Table, class_columns, open_csv
from plusx.errors import DataError

UNKNOWN = "?"
"""A label that says: nobody has looked at this image. For task multi, where no label at all means
that the image has none of the classes."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MARKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""What a cell of a class's column may say; other programs write numbers and booleans so."""


def is_manifest(name: str) -> bool:
    """Whether a file of this name is read as a manifest."""
    return name.lower().endswith((".csv", ".parquet"))


def read_manifest(
    path: str | os.PathLike[str],
    *,
    training: bool = True,
    task: Task | None = None,
    beside: Collection[str] = (),
) -> Listing:
    """List the images that a CSV or Parquet file names.

    CSV is UTF-8 with or without a byte-order mark, comma-separated, with a header. Paths are
    absolute or relative to the file's folder; whether the files are there is for the scan to say.
    A row that repeats another word for word is counted in ``Listing.ignored``.

    The task is ``multi`` where any label holds several (``a;b``; a list in Parquet), or where a
    0/1 column for each class stands in place of ``label``. Then an image without any label has
    none of the classes, and ``?`` as its label (in columns: every cell empty) says that nobody has
    looked: such rows are left out and counted in ``Listing.unlabelled``, as rows without a value
    in Parquet are for either task.

    Args:
        path: the file.
        training: see :func:`plusx.data.folder.read_folder`.
        task: read labels as this task has them, instead of telling from the labels.
        beside: columns that say something else of the images (see :func:`read_columns`).

    Raises:
        DataError: the file cannot be used; names the line or row.
        MissingExtra: Parquet without pyarrow.
    """
    where = os.fspath(path)
    table = _open(where, beside)
    names = class_columns(table, beside)
    return _listing(table, names, os.path.dirname(where) or ".", training=training, task=task)


def read_columns(path: str | os.PathLike[str], names: Collection[str]) -> dict[str, dict[str, str]]:
    """What a manifest says of its images beside their labels.

    Args:
        path: a CSV or Parquet file.
        names: columns.

    Returns:
        column -> image's path as ``Sample.path`` has it -> text; empty where nothing is said.

    Raises:
        DataError: the file cannot be read, or lacks a column.
        MissingExtra: Parquet without pyarrow.
    """
    where = os.fspath(path)
    root = os.path.dirname(where) or "."
    table = _open(where, names)
    class_columns(table, names)
    place = {name: table.header.index(name) for name in names}
    path_at = table.header.index("path")
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    same: dict[str, str] = {}  # one object for equal values: memory
    for number, cells in table.rows:
        image = _path(cells[path_at], root, table, number)
        for name, at in place.items():
            text = _text(cells[at]).strip()
            found[name][image] = same.setdefault(text, text)
    return found


def _open(where: str, beside: Collection[str]) -> Table:
    if where.lower().endswith(".parquet"):
        from plusx.data.parquet import open_parquet

        return open_parquet(where, beside)
    return open_csv(where)


def _listing(
    table: Table, names: Sequence[str], root: str, *, training: bool, task: Task | None
) -> Listing:
    found = _gather(table, root, names)
    if not found.rows:
        raise DataError(f"{table.where}: has a header but no rows")
    kinds: dict[_Raw, int] = {}  # and the first row of each
    for i, (_, raw, _, _) in enumerate(found.rows):
        kinds.setdefault(raw, i)
    listed = bool(names) or any(isinstance(raw, tuple) for raw in kinds)
    if task == "single" and listed:
        raise DataError(
            f"{table.where}: gives an image any number of labels, and the model gives it just one"
        )
    several = listed or any(isinstance(raw, str) and SEPARATOR in raw for raw in kinds)
    task = task or ("multi" if several else "single")
    labels: dict[_Raw, Label | None] = {}
    for raw, i in kinds.items():
        at = f"{table.at(found.numbers[i])}: the label of {found.rows[i][0]!r}"
        labels[raw] = _one_label(raw, at) if task == "single" else _many_labels(raw, at)
    rows: list[Row] = []
    for path, raw, split, group in found.rows:
        label = labels[raw]
        if label is not None:
            rows.append((path, label, split, group))
    listing = assemble(
        root,
        rows,
        where=table.where,
        training=training,
        task=task,
        names=names,
        ignored=found.ignored,
        unlabelled=len(found.rows) - len(rows),
    )
    return replace(listing, by_column=bool(names))


_Raw = str | tuple[str, ...] | None
"""A label as it stands in the file."""

_RawRow = tuple[str, _Raw, str | None, str | None]


@dataclass
class _Found:
    """Rows in their order, the number of each in the file, and how many repeat another."""

    rows: list[_RawRow] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    ignored: int = 0


def _gather(table: Table, root: str, names: Sequence[str]) -> _Found:
    found = _Found()
    first: dict[str, int] = {}
    same: dict[_Raw, _Raw] = {}  # one object for equal labels, splits and groups: memory
    split_at, group_at = (_place(table.header, name) for name in ("split", "group"))
    path_at, label_at = table.header.index("path"), _place(table.header, "label")
    marked = [(table.header.index(name), name) for name in names]
    for number, cells in table.rows:
        raw = cells[label_at] if label_at is not None else _marks(cells, marked, table, number)
        raw = raw.strip() if isinstance(raw, str) else raw
        split = None if split_at is None else _split(cells[split_at], table, number)
        group = None if group_at is None else (_text(cells[group_at]).strip() or None)
        path = _path(cells[path_at], root, table, number)
        row = path, same.setdefault(raw, raw), split, group and str(same.setdefault(group, group))
        key = os.path.normcase(path)
        if key not in first:
            first[key] = len(found.rows)
            found.rows.append(row)
            found.numbers.append(number)
        elif found.rows[first[key]] == row:
            found.ignored += 1
        else:
            other = first[key]
            pairs = zip(COLUMNS, row, found.rows[other], strict=True)
            raise DataError(
                f"{table.at(number)}: {_text(cells[path_at])!r} is listed in {table.unit} "
                f"{found.numbers[other]} already, with another "
                f"{next(n for n, a, b in pairs if a != b)}; keep one of the two"
            )
    return found


def _place(header: Sequence[str], name: str) -> int | None:
    return header.index(name) if name in header else None


def _text(cell: Cell) -> str:
    return SEPARATOR.join(cell) if isinstance(cell, tuple) else cell or ""


def _path(cell: Cell, root: str, table: Table, number: int) -> str:
    path = _text(cell)
    if not path.strip():
        raise DataError(f"{table.at(number)}: the path is empty")
    if _URL.match(path):
        raise DataError(
            f"{table.at(number)}: {path!r} is a URL; download the image and name the file"
        )
    return os.path.normpath(os.path.join(root, path))


def _split(cell: Cell, table: Table, number: int) -> str:
    name = _text(cell).strip().lower()
    if name not in SPLIT_NAMES:
        raise DataError(f"{table.at(number)}: split {_text(cell)!r} is not one of train, val, test")
    return SPLIT_NAMES[name]


def _marks(
    cells: Sequence[Cell], marked: Sequence[tuple[int, str]], table: Table, number: int
) -> tuple[str, ...] | None:
    """The classes whose cells say 1; None where every cell is empty."""
    said = [(_text(cells[i]).strip(), name) for i, name in marked]
    if not any(text for text, _ in said):
        return None
    for text, name in said:
        if text.lower() not in _MARKS:
            raise DataError(
                f"{table.at(number)}: class column {name!r} says {text!r}, not 0 or 1 (leave all "
                "class cells of an image empty where nobody has looked)"
            )
    return tuple(name for text, name in said if _MARKS[text.lower()])


def _one_label(raw: _Raw, at: str) -> str | None:
    if raw == "":
        raise DataError(f"{at} is empty")
    return raw if raw is None else _text(raw)


def _many_labels(raw: _Raw, at: str) -> tuple[str, ...] | None:
    if raw is None or raw == UNKNOWN:
        return None
    items = raw if isinstance(raw, tuple) else raw.split(SEPARATOR) if raw else ()
    names = tuple(item.strip() for item in items)
    for name in names:
        if not name:
            raise DataError(f"{at}, {_text(raw)!r}, has an empty item between its separators")
        if names.count(name) > 1:
            raise DataError(f"{at}, {_text(raw)!r}, names {name!r} twice")
        if SEPARATOR in name:
            raise DataError(f"{at} names a class {name!r}, but {SEPARATOR!r} separates labels")
    return tuple(sorted(names))
