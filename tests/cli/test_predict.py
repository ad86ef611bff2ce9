"""``plusx predict``: every way out says the same."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import plusx


@pytest.fixture
def pictures(photos: Path, tmp_path: Path) -> Path:
    """Good images under odd names, and a broken one."""
    folder = tmp_path / "new"
    folder.mkdir()
    names = ["plain.png", "with space.png", "comma,quote'\".png", "ünïcödé.png", "new\nline.png"]
    for name, source in zip(names, sorted((photos / "val").rglob("*.png"))[::7], strict=False):
        shutil.copy(source, folder / name)
    (folder / "broken.jpg").write_bytes(b"x")
    return folder


def test_every_format_holds_what_python_says(
    command: Callable[..., Any], finished: plusx.Run, pictures: Path, tmp_path: Path
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="extra 'parquet' absent")
    good = sorted(p for p in pictures.iterdir() if p.suffix == ".png")
    wanted = finished.predict(good)
    assert isinstance(wanted, list)
    for ending in ("csv", "jsonl", "parquet"):
        file = tmp_path / "deep" / f"x.{ending}"
        said = command("predict", finished.path, pictures, "--out", file)
        assert said.code == 1
        assert said.out == f"5 predictions in {file}, 1 unreadable\n"
        assert said.err.startswith(f"unreadable: {pictures / 'broken.jpg'}: ")
        assert len(said.err.splitlines()) == 1
        if ending == "csv":
            with file.open(newline="", encoding="utf-8") as opened:
                rows = list(csv.DictReader(opened))
        elif ending == "jsonl":
            lines = file.read_text(encoding="utf-8").splitlines()
            rows = [json.loads(line) for line in lines]
            for row, answer in zip(rows, wanted, strict=True):
                top = [(one["label"], one["probability"]) for one in row["top"]]
                assert top == [(label, pytest.approx(p, abs=2e-6)) for label, p in answer.top(5)]
        else:
            rows = pq.read_table(file).to_pylist()
        assert [row["path"] for row in rows] == [answer.path for answer in wanted]
        assert [row["label"] for row in rows] == [answer.label for answer in wanted]
        for row, answer in zip(rows, wanted, strict=True):
            assert float(row["probability"]) == pytest.approx(answer.probability, abs=2e-6)
            if ending != "jsonl":
                assert row["label_2"] == answer.top(2)[1][0]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == [
        "x.csv",
        "x.jsonl",
        "x.parquet",
    ]


def test_the_terminal_and_json_lines(
    command: Callable[..., Any], finished: plusx.Run, photos: Path
) -> None:
    image = photos / "val" / "across" / "000.png"
    answer = finished.predict(image)
    shown = command("predict", finished.path, image, "--top", "1")
    assert shown.code == 0
    assert shown.out == f"{image}: {answer.label} {answer.probability:.3f}\n"  # type: ignore[union-attr]
    assert shown.err == ""
    several = command("predict", finished.path / "model", photos / "val", "--json")
    found = [json.loads(line) for line in several.out.splitlines()]
    assert len(found) == 32
    assert {len(one["top"]) for one in found} == {2}
    matched = command("predict", finished.path, str(photos / "val" / "*" / "00?.png"), "--json")
    assert len(matched.out.splitlines()) == 20


def test_file_names_that_are_no_utf8(
    command: Callable[..., Any], finished: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    if sys.platform != "linux":
        return  # other systems' file names are text
    source = (photos / "val" / "across" / "000.png").read_bytes()
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write(source)
    path = os.fsdecode(name)
    assert command("predict", finished.path, path).code == 0
    line = command("predict", finished.path, path, "--json")
    assert json.loads(line.out)["path"] == path
    for ending in ("csv", "jsonl", "parquet"):
        out = tmp_path / f"x.{ending}"
        said = command("predict", finished.path, tmp_path / "caf*", "--out", out)
        assert said.code == 0, said.err
    assert os.fsencode(path) in (tmp_path / "x.csv").read_bytes()
    assert json.loads((tmp_path / "x.jsonl").read_text())["path"] == path


@pytest.mark.parametrize(
    ("out", "said"),
    [("x.txt", "must end in .csv, .jsonl or .parquet"), ("file/x.csv", "cannot be written"),
     ("folder.csv", "is a folder; give the name of a file")],
)  # fmt: skip
def test_an_impossible_out_is_one_line(
    command: Callable[..., Any], finished: plusx.Run, photos: Path, tmp_path: Path,
    out: str, said: str,
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.csv").mkdir()
    ended = command("predict", finished.path, photos / "val", "--out", tmp_path / out)
    assert said in ended.error
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.csv"]


def test_only_bad_images(command: Callable[..., Any], finished: plusx.Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    said = command("predict", finished.path, tmp_path / "a.png")
    assert (said.code, said.out) == (1, "")
    assert "unreadable" in said.err


def test_what_was_read_otherwise_than_one_might_think_is_said_once(
    command: Callable[..., Any], finished: plusx.Run, tmp_path: Path
) -> None:
    pages = [Image.new("RGB", (40, 40), colour) for colour in ("red", "lime")]
    for number in range(3):
        pages[0].save(tmp_path / f"{number}.tif", save_all=True, append_images=pages[1:])
    said = command("predict", finished.path, tmp_path)
    assert said.code == 0
    assert said.err == "note: 3 images: TIFF with several pages: the first is read\n"
