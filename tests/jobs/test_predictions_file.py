"""What stands in a file of predictions, and what no spreadsheet may take for a formula."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx.decide import Decision, Sets, Unknown
from plusx.jobs.predictions_file import Marked, Ranked, as_json_line, predictions_file
from plusx.predict import Prediction

CLASSES = ("=1+1", "cat", "日本")


def several(path: str, *marks: int) -> Prediction:
    shares = np.array([0.25, 0.5, 0.75], np.float32)
    return Prediction(path, CLASSES, shares, np.isin(np.arange(3), marks))


def written(path: Path, *predictions: Prediction) -> list[list[str]]:
    with predictions_file(path, Marked(CLASSES, 2)) as write:
        for prediction in predictions:
            write(prediction)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_labels_are_joined_and_every_class_has_a_column(tmp_path: Path) -> None:
    head, two, none = written(tmp_path / "x.csv", several("a.png", 1, 2), several("b.png"))
    assert head == ["path", "labels", "probability_=1+1", "probability_cat", "probability_日本"]
    assert two == ["a.png", "cat;日本", "0.25", "0.5", "0.75"]
    assert none == ["b.png", "", "0.25", "0.5", "0.75"]


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1.png", "@x", "\tx", 'a"b', "a\nb.png"])
def test_no_cell_is_a_formula(tmp_path: Path, name: str) -> None:
    _, row = written(tmp_path / "x.csv", several(name, 0))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)
    assert Path(row[0]) == Path(name)
    assert row[1] == "'=1+1"


def test_a_probability_near_nothing_stays_a_number(tmp_path: Path) -> None:
    with predictions_file(tmp_path / "x.csv", Ranked(1)) as write:
        write(Prediction("a", ("b", "c"), np.array([1e-9, 1 - 1e-9], np.float32)))
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "a,c,1.0"


def one(**changes: Any) -> Prediction:
    shares = np.array([0.25, 0.6, 0.15], np.float32)
    return Prediction("a.png", CLASSES, shares, **changes)


DECIDING = Decision(sets=Sets(0.9, (0.2,) * 3), unknown=Unknown(0.5, 0.05, 1, np.eye(1, 4)))  # type: ignore[arg-type]


def test_what_is_decided_stands_behind_the_classes(tmp_path: Path) -> None:
    layout = Ranked(2, DECIDING)
    said = [one(set=("=1+1", "cat"), unknown_score=0.25),
            one(set=(), unknown=True, unknown_score=0.75),
            one(set=("cat",), sure=False, unknown_score=0.25, called=0)]  # fmt: skip
    with predictions_file(tmp_path / "x.csv", layout) as write:
        for prediction in said:
            write(prediction)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        head, first, second, third = csv.reader(file)
    assert head[5:] == ["decision", "set", "unknown_score"]
    assert first[5:] == ["answer", "'=1+1;cat", "0.25"]
    assert second[5:] == ["unknown", "", "0.75"]
    assert third[1:] == ["'=1+1", "0.25", "cat", "0.6", "unsure", "cat", "0.25"]  # a favoured class
    assert layout.words(said[0]) == "cat 0.600  =1+1 0.250  may be {=1+1, cat}"
    assert layout.words(said[1]).startswith("unknown: like nothing it was trained on  (else cat")
    assert layout.words(said[2]) == "unsure  (=1+1 0.250  cat 0.600)"
    line = json.loads(as_json_line(said[1], layout))
    assert line["decision"] == "unknown"
    assert line["set"] == []
    assert Ranked(1).names() == ["path", "label", "probability"]
    assert Ranked(1, Decision(sureness=0.5)).names()[3:] == ["decision"]
    parquet = pytest.importorskip("pyarrow.parquet", reason="extra 'parquet' absent")
    with predictions_file(tmp_path / "x.parquet", layout) as write:
        write(said[0])
    (row,) = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert (row["decision"], row["set"], row["unknown_score"]) == ("answer", "=1+1;cat", 0.25)


def test_json_and_parquet_keep_names_as_they_are(tmp_path: Path) -> None:
    line = json.loads(as_json_line(several("=x", 0), Marked(CLASSES, 2)))
    shares = dict(zip(CLASSES, [0.25, 0.5, 0.75], strict=True))
    assert line == {"path": "=x", "labels": ["=1+1"], "probabilities": shares}
    parquet = pytest.importorskip("pyarrow.parquet", reason="extra 'parquet' absent")
    with predictions_file(tmp_path / "x.parquet", Marked(CLASSES, 2)) as write:
        write(several("=x", 0, 2))
    (row,) = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert row["path"] == "=x"
    assert row["labels"] == "=1+1;日本"
    assert row["probability_cat"] == 0.5
