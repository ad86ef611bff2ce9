"""Parquet manifests say what the CSV says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plusx.data import read_listing
from plusx.errors import DataError

pa = pytest.importorskip("pyarrow", reason="extra 'parquet' absent")


def write(folder: Path, **columns: Any) -> Path:
    import pyarrow.parquet as pq

    path = folder / "list.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_text_numbers_and_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path, path=["1.png", "2.png", "3.png"], label=[3, 10, None],
        split=["train", "train", "val"], group=["g", None, "h"],
    )  # fmt: skip
    listing = read_listing(path, training=False)
    assert listing.classes == ("10", "3")
    assert [(s.target, s.split, s.group) for s in listing.samples] == [
        (1, "train", "g"),
        (0, "train", None),
    ]
    assert listing.unlabelled == 1
    assert listing.samples[0].path == str(tmp_path / "1.png")


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["a;b", "b", "", "?"]},
        {"label": [["a", "b"], ["b"], [], None]},
        {"a": [1, 0, 0, None], "b": [1, 1, 0, None]},
        {"a": [True, False, False, None], "b": [1.0, 1.0, 0.0, None]},
    ],
)
def test_several_labels_in_every_form(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = write(tmp_path, path=["1", "2", "3", "4"], **columns)
    listing = read_listing(path)
    assert (listing.task, listing.classes, listing.unlabelled) == ("multi", ("a", "b"), 1)
    assert [s.target for s in listing.samples] == [(0, 1), (1,), ()]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": ["a"]}, ["columns", "'path'"]),
        ({"path": ["1"], "label": [0.5]}, ["row 1", "'label'", "float"]),
        ({"path": ["1"], "label": [b"x"]}, ["row 1", "'label'", "bytes"]),
        ({"path": ["1", None], "label": ["a", "b"]}, ["row 2", "path is empty"]),
        ({"path": ["1", "1"], "label": ["a", "b"]}, ["row 2", "row 1", "label"]),
        ({"path": ["s3://b/1"], "label": ["a"]}, ["row 1", "URL"]),
        ({"path": ["1"], "label": [["a;b", "c"]]}, ["row 1", "'a;b'", "separates"]),
    ],
)
def test_faults_are_named(tmp_path: Path, columns: dict[str, Any], words: list[str]) -> None:
    path = write(tmp_path, **columns)
    with pytest.raises(DataError) as caught:
        read_listing(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    for word in words:
        assert word in said


def test_no_parquet_and_half_of_one(tmp_path: Path) -> None:
    path = write(tmp_path, path=[f"{i}.png" for i in range(3000)], label=["a", "b"] * 1500)
    whole = path.read_bytes()
    for content in (b"", b"path,label\n", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no Parquet file"):
            read_listing(path)
    path.write_bytes(whole[:40] + bytes(200) + whole[240:])
    with pytest.raises(DataError) as caught:
        read_listing(path)
    assert str(caught.value).startswith(str(path))
