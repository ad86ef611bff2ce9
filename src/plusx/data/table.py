"""Rows of named cells from a file, and what their columns may be called."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from plusx.data.classes import SEPARATOR
from plusx.errors import DataError

COLUMNS = ("path", "label", "split", "group")

Cell = str | tuple[str, ...] | None
"""Text, a list of texts, or nothing known (Parquet has all three, CSV text alone)."""

_WANTED = "path,label[,split][,group], or path[,split][,group] and a 0/1 column for each class"


@dataclass(frozen=True)
class Table:
    """A file of rows.

    Attributes:
        where: its name.
        unit: what a row's number counts, ``line`` or ``row``.
        header: the columns: path, label, split and group in small letters, classes as written.
        rows: number and cells of every row that is not blank.
    """

    where: str
    unit: str
    header: list[str]
    rows: Iterator[tuple[int, Sequence[Cell]]]

    def at(self, number: int) -> str:
        """A row's place, as errors name it."""
        return f"{self.where}, {self.unit} {number}"


def class_columns(table: Table, beside: Collection[str] = ()) -> list[str]:
    """Check the header; give the classes' columns where it has them in place of ``label``.

    Args:
        table: the file.
        beside: columns that are no classes. Where there are some, others beside ``label`` are not
            read and may be there.

    Raises:
        DataError: a column is missing, there twice, or not known.
    """
    header = table.header
    where = f"{table.where}, {'line 1' if table.unit == 'line' else 'columns'}"
    if "path" not in header:
        raise DataError(f"{where}: no column 'path' in {','.join(header)!r}; it must read {_WANTED}"
                        ", separated by commas")  # fmt: skip
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{where}: column {twice[0]!r} is there twice; keep one")
    if lacking := [name for name in beside if name not in header]:
        raise DataError(f"{where}: no column {lacking[0]!r} in {','.join(header)!r}")
    names = [name for name in header if name not in COLUMNS and name not in beside]
    if "label" in header:
        if names and not beside:
            raise DataError(
                f"{where}: column {names[0]!r} is unknown beside 'label'; the columns are {_WANTED}"
            )
        return []
    if not names:
        raise DataError(f"{where}: no column 'label' in {','.join(header)!r}; it must read "
                        f"{_WANTED}")  # fmt: skip
    for name in names:
        if not name or SEPARATOR in name:
            raise DataError(
                f"{where}: {name!r} cannot be a class's name ({SEPARATOR!r} separates labels); "
                "rename the column"
            )
    return names


def column_name(name: str) -> str:
    """path, label, split and group in small letters, all else as written but for blanks around."""
    name = name.strip()
    return name.lower() if name.lower() in COLUMNS else name


def open_csv(where: str) -> Table:
    """A CSV file as a table of rows, read one at a time.

    Raises:
        DataError: it is no CSV in UTF-8.
    """
    records = _csv_records(where)
    header = next(records, None)
    if header is None:
        raise DataError(f"{where}: is empty; the first line must be {_WANTED}")
    names = [column_name(cell) for cell in header[1]]
    return Table(where, "line", names, _whole(records, len(names), where))


def _whole(
    records: Iterator[tuple[int, list[str]]], columns: int, where: str
) -> Iterator[tuple[int, list[str]]]:
    for line, cells in records:
        if len(cells) != columns:
            raise DataError(
                f"{where}, line {line}: has {len(cells)} cells where the header has {columns}; "
                "quote a cell that holds a comma"
            )
        yield line, cells


def _csv_records(where: str) -> Iterator[tuple[int, list[str]]]:
    """(line of its start, cells) of the header and of every row that is not blank."""
    try:
        with open(where, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            line = 1
            for cells in reader:
                if cells or line == 1:
                    yield line, cells
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
