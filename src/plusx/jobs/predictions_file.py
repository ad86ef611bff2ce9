"""Predictions as they come, into a CSV, JSON lines or Parquet file; memory stays flat."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from plusx.atomic import replacing
from plusx.data.classes import SEPARATOR
from plusx.decide import Decision
from plusx.errors import MissingExtra, UsageError
from plusx.predict import Prediction, Predictor

Write = Callable[[Prediction], None]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

ROWS = 4096
"""Rows per Parquet row group."""


@dataclass(frozen=True)
class Ranked:
    """Task single: path, label, probability, then label_2, probability_2 and so on up to ``top``;
    in JSON lines the ranked classes stand in a list ``top``. What the model decides stands
    beside them: ``decision`` (answer, unsure or unknown), ``set`` and ``unknown_score``.

    Attributes:
        top: classes of an image.
        decision: of the model; columns that it has nothing for are left out.
    """

    top: int
    decision: Decision = field(default_factory=Decision)

    def names(self) -> list[str]:
        """The columns."""
        more = [f"{n}_{i}" for i in range(2, self.top + 1) for n in ("label", "probability")]
        return ["path", "label", "probability", *more, *self._decided()]

    def row(self, prediction: Prediction) -> list[Any]:
        """One prediction's cells."""
        first = [prediction.label, round(prediction.probability, 6)]
        ranked = self._ranked(prediction)[1:]
        said = self._said(prediction)
        if "set" in said:
            said["set"] = SEPARATOR.join(said["set"])
        more = (cell for label, p in ranked for cell in (label, round(p, 6)))
        return [prediction.path, *first, *more, *said.values()]

    def values(self, prediction: Prediction) -> dict[str, Any]:
        """One prediction for JSON."""
        ranked = [{"label": n, "probability": round(p, 6)} for n, p in self._ranked(prediction)]
        return {**ranked[0], **self._said(prediction), "top": ranked}

    def words(self, prediction: Prediction) -> str:
        """One prediction for a person: what is no answer says so first; a set is shown where it has
        several classes."""
        shares = "  ".join(f"{label} {p:.3f}" for label, p in self._ranked(prediction))
        if prediction.decision == "unknown":
            return f"unknown: like nothing it was trained on  (else {shares})"
        if prediction.decision == "unsure":
            shares = f"unsure  ({shares})"
        if len(prediction.set or ()) < 2:
            return shares
        return f"{shares}  may be {{{', '.join(prediction.set or ())}}}"

    def _ranked(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Best first; a favoured class that is the answer stands before the others."""
        ranked = prediction.top(len(prediction.classes))
        answer = (prediction.label, prediction.probability)
        return [answer, *(one for one in ranked if one[0] != answer[0])][: self.top]

    def _decided(self) -> list[str]:
        unknown, sets = self.decision.unknown, self.decision.sets
        some = unknown is not None or self.decision.sureness is not None
        found = {"decision": some, "set": sets is not None, "unknown_score": unknown is not None}
        return [name for name, there in found.items() if there]

    def _said(self, prediction: Prediction) -> dict[str, Any]:
        score = prediction.unknown_score
        found = {
            "decision": prediction.decision,
            "set": list(prediction.set or ()),
            "unknown_score": None if score is None else round(score, 6),
        }
        return {name: found[name] for name in self._decided()}


@dataclass(frozen=True)
class Marked:
    """Task multi: path, the image's labels joined by ``;``, and ``probability_CLASS`` for every
    class; in JSON lines a list ``labels`` and an object ``probabilities``."""

    classes: tuple[str, ...]
    top: int

    def names(self) -> list[str]:
        """The columns."""
        return ["path", "labels", *(f"probability_{name}" for name in self.classes)]

    def row(self, prediction: Prediction) -> list[Any]:
        """One prediction's cells."""
        shares = [round(float(p), 6) for p in prediction.probabilities]
        return [prediction.path, SEPARATOR.join(prediction.labels), *shares]

    def values(self, prediction: Prediction) -> dict[str, Any]:
        """One prediction for JSON."""
        _, _, *shares = self.row(prediction)
        shown = dict(zip(self.classes, shares, strict=True))
        return {"labels": list(prediction.labels), "probabilities": shown}

    def words(self, prediction: Prediction) -> str:
        """One prediction for a person: its labels, then the most probable classes."""
        shares = "  ".join(f"{label} {p:.3f}" for label, p in prediction.top(self.top))
        return f"{SEPARATOR.join(prediction.labels) or '(none)'}  ({shares})"


Layout = Ranked | Marked


def layout_of(predictor: Predictor, top: int) -> Layout:
    """How a model's answers are written: ``top`` classes of an image, or all it may have."""
    top = min(top, len(predictor.classes))
    if predictor.task == "single":
        return Ranked(top, predictor.decision)
    return Marked(predictor.classes, top)


@contextmanager
def predictions_file(path: Path, layout: Layout) -> Iterator[Write]:
    """Open ``path`` for predictions; it appears under its name only when all are written.

    In CSV nothing is left that a spreadsheet would take for a formula: a path that begins with
    ``=``, ``+``, ``-`` or ``@`` gets ``./`` before it, a class name ``'``.

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
        with replacing(path) as beside, kinds[path.suffix.lower()](beside, layout) as write:
            yield write
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}") from error


@contextmanager
def _csv(path: Path, layout: Layout) -> Iterator[Write]:
    with _text(path) as file:
        writer = csv.writer(file)
        writer.writerow([_harmless(name) for name in layout.names()])

        def write(prediction: Prediction) -> None:
            path, *rest = layout.row(prediction)
            path = f".{os.sep}{path}" if path.startswith(_FORMULA) else path
            writer.writerow([path, *map(_harmless, rest)])

        yield write


@contextmanager
def _jsonl(path: Path, layout: Layout) -> Iterator[Write]:
    with _text(path) as file:
        yield lambda prediction: print(as_json_line(prediction, layout), file=file)


@contextmanager
def _parquet(path: Path, layout: Layout) -> Iterator[Write]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("--out FILE.parquet", "parquet") from error
    names = layout.names()
    numbers = ("probability", "unknown_score")
    kinds = [pa.float32() if name.startswith(numbers) else pa.string() for name in names]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    rows: list[list[Any]] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            columns = [pa.array(values, kind) for values, kind in zip(zip(*rows), kinds)]  # noqa: B905
            writer.write_table(pa.table(columns, schema=schema))
            rows.clear()

        def write(prediction: Prediction) -> None:
            path, *rest = layout.row(prediction)
            # Parquet holds UTF-8: other bytes of a file name become \\udcxx
            rows.append([path.encode("utf-8", "backslashreplace").decode(), *rest])
            if len(rows) == ROWS:
                flush()

        yield write
        if rows:
            flush()


def as_json_line(prediction: Prediction, layout: Layout) -> str:
    """One prediction as one line of JSON: its path, and what the layout has of it."""
    # surrogates stand for bytes of a file name that are no UTF-8; they must be escaped
    strange = not prediction.path.isprintable()
    values = {"path": prediction.path, **layout.values(prediction)}
    return json.dumps(values, ensure_ascii=strange)


def _harmless(cell: Any) -> Any:
    """Text that no spreadsheet runs (https://owasp.org/www-community/attacks/CSV_Injection)."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _text(path: Path) -> TextIO:
    # surrogateescape: file names are bytes, and some are no UTF-8
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
