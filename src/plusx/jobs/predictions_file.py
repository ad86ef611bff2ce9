"""Predictions as they come, into a CSV, JSON lines or Parquet file; memory stays flat."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from plusx.atomic import replacing
from plusx.errors import MissingExtra, UsageError
from plusx.predict import Prediction

Write = Callable[[Prediction], None]

ROWS = 4096
"""Rows per Parquet row group."""


@contextmanager
def predictions_file(path: Path, top: int) -> Iterator[Write]:
    """Open ``path`` for predictions; it appears under its name only when all are written.

    Columns: path, label, probability, then label_2, probability_2 and so on up to ``top``; in
    JSON lines the classes after the first stand in a list ``top``.

    Raises:
        UsageError: the ending is none of .csv, .jsonl, .parquet, or the file cannot be written.
        MissingExtra: Parquet without pyarrow.
    """
    kinds = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix.lower() not in kinds:
        raise UsageError(f"--out {path}: must end in .csv, .jsonl or .parquet")
    if path.is_dir():
        raise UsageError(f"--out {path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside, kinds[path.suffix.lower()](beside, top) as write:
            yield write
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}") from error


@contextmanager
def _csv(path: Path, top: int) -> Iterator[Write]:
    with _text(path) as file:
        writer = csv.writer(file)
        writer.writerow(_columns(top))
        yield lambda prediction: writer.writerow(_row(prediction, top))


@contextmanager
def _jsonl(path: Path, top: int) -> Iterator[Write]:
    with _text(path) as file:
        yield lambda prediction: print(as_json_line(prediction, top), file=file)


@contextmanager
def _parquet(path: Path, top: int) -> Iterator[Write]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("--out FILE.parquet", "parquet") from error
    names = _columns(top)
    kinds = [pa.float32() if name.startswith("probability") else pa.string() for name in names]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    rows: list[list[Any]] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            columns = [pa.array(values, kind) for values, kind in zip(zip(*rows), kinds)]  # noqa: B905
            writer.write_table(pa.table(columns, schema=schema))
            rows.clear()

        def write(prediction: Prediction) -> None:
            path, *rest = _row(prediction, top)
            # Parquet holds UTF-8: other bytes of a file name become \\udcxx
            rows.append([path.encode("utf-8", "backslashreplace").decode(), *rest])
            if len(rows) == ROWS:
                flush()

        yield write
        if rows:
            flush()


def as_json_line(prediction: Prediction, top: int) -> str:
    """One prediction as one line of JSON: path, label, probability, and the ``top`` classes."""
    ranked = [{"label": label, "probability": round(p, 6)} for label, p in prediction.top(top)]
    # surrogates stand for bytes of a file name that are no UTF-8; they must be escaped
    strange = not prediction.path.isprintable()
    return json.dumps({"path": prediction.path, **ranked[0], "top": ranked}, ensure_ascii=strange)


def _columns(top: int) -> list[str]:
    more = [f"{name}_{i}" for i in range(2, top + 1) for name in ("label", "probability")]
    return ["path", "label", "probability", *more]


def _row(prediction: Prediction, top: int) -> list[Any]:
    row: list[Any] = [prediction.path]
    for label, probability in prediction.top(top):
        row += [label, round(probability, 6)]
    return row


def _text(path: Path) -> TextIO:
    # surrogateescape: file names are bytes, and some are no UTF-8
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
