"""Manifests in Parquet: the columns of the CSV, with real numbers, booleans and lists."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from plusx.data.table import COLUMNS, Cell, Table, column_name
from plusx.errors import DataError, MissingExtra

_ROWS = 8192


def open_parquet(where: str, beside: Collection[str] = ()) -> Table:
    """The file as a table of rows, read ``_ROWS`` at a time. Where there are columns ``beside``,
    all but path, label, split and group may hold anything, which becomes text.

    Whole numbers and booleans become text; a list becomes several labels; a null says that nothing
    is known.

    Raises:
        DataError: it is no Parquet file, or a column holds something else.
        MissingExtra: pyarrow is absent.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra(f"{where}: Parquet", "parquet") from error
    try:
        # Opened here and not mapped: nothing of a damaged file can reach us but through Arrow.
        file = pq.ParquetFile(where)
    except FileNotFoundError as error:
        raise DataError(f"{where}: does not exist") from error
    except PermissionError as error:
        raise DataError(f"{where}: no permission to read this file") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: is no Parquet file that can be read ({_said(error)})") from error
    names = list(file.schema_arrow.names)
    free = {name for name in names if beside and column_name(name) not in COLUMNS}

    def rows() -> Iterator[tuple[int, list[Cell]]]:
        number = 0
        try:
            for batch in file.iter_batches(_ROWS):
                columns = [column.to_pylist() for column in batch.columns]
                for cells in zip(*columns, strict=True):
                    number += 1
                    at = f"{where}, row {number}"
                    yield (
                        number,
                        [
                            _cell(value, name, at, any_kind=name in free)
                            for value, name in zip(cells, names, strict=True)
                        ],
                    )
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{where}: is damaged after row {number} ({_said(error)})") from error

    return Table(where, "row", [column_name(name) for name in names], rows())


def _cell(value: Any, column: str, at: str, *, any_kind: bool) -> Cell:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(int(value)) if isinstance(value, bool) else str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return tuple(str(one) for one in value)
    if any_kind:
        return str(value)
    raise DataError(
        f"{at}: column {column!r} holds {type(value).__name__} {str(value)[:40]!r}; "
        "text, whole numbers, booleans and lists of names are read"
    )


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
