"""``plusx scan`` as it is typed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def data(
    make_stripes: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_stripes(tmp_path / "photos", {"across": 16, "upright": 16})


def test_clean_data(command: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    before = sorted(path.stat().st_mtime_ns for path in data.rglob("*"))
    said = command("scan", data)
    assert said.code == 0, said
    assert said.out.splitlines()[0] == f"{data}: nothing wrong found in 32 images"
    assert "page:     scan-photos.html" in said.out
    assert "Nothing wrong found" in (tmp_path / "scan-photos.html").read_text(encoding="utf-8")
    assert sorted(path.stat().st_mtime_ns for path in data.rglob("*")) == before
    assert command("scan", data).code == 0  # its own page is replaced


def test_faults_exit_with_one(command: Callable[..., Any], data: Path, tmp_path: Path) -> None:
    for number in range(9):
        (data / "across" / f"broken{number}.png").write_bytes(b"no image")
    shutil.copy(data / "across" / "001.png", data / "across" / "=copy.png")
    said = command("scan", data, "--fix", "clean.csv", "--out", tmp_path / "page.html")
    assert said.code == 1
    assert "error: 9 files cannot be read" in said.out
    assert "  and 4 more (--json has all)" in said.out
    assert "note: 1 group of identical images (2 images)" in said.out
    assert "manifest: clean.csv (32 images; 10 left out" in said.out
    assert len((tmp_path / "clean.csv").read_text().splitlines()) == 33
    again = command("scan", "clean.csv")
    assert again.code == 0, again
    assert "nothing wrong found in 32 images" in again.out


def test_json_has_every_file(command: Callable[..., Any], data: Path) -> None:
    for number in range(9):
        (data / "across" / f"broken{number}.png").write_bytes(b"no image")
    said = command("scan", data, "--json", "--no-cache", "--no-thumbnails")
    assert said.code == 1
    found = json.loads(said.out)
    (broken,) = (one for one in found["findings"] if one["kind"] == "unreadable")
    assert len(broken["items"]) == 9
    assert "scan-photos.html" in said.err


def test_a_second_scan_reads_the_cache(
    command: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    first = command("scan", data, "--cache", tmp_path / "facts", "--json")
    assert list((tmp_path / "facts").glob("*.sqlite"))
    assert command("scan", data, "--cache", tmp_path / "facts", "--json").out == first.out


def test_weights_add_label_errors(
    command: Callable[..., Any], data: Path, tiny_weights: Path
) -> None:
    said = command("scan", data, "--weights", tiny_weights, "--device", "cpu")
    assert said.code == 0, said
    assert "need a network's features" not in said.out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere"], "does not exist"),
        (["photos", "--out", "mine.txt"], "is no page of plusx scan"),
        (["photos", "--out", ""], "is an empty name"),
        (["photos", "--out", "photos"], "is a folder"),
        (["photos", "--fix", "clean.txt"], "must end in .csv"),
        (["photos", "--fix", "mine.csv"], "exists already"),
        (["photos", "--processes", "0"], "processes"),
        (["photos", "--weights", "nothing.safetensors"], "nothing.safetensors"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments: list[str], text: str, command: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "mine.csv").write_text("mine")
    assert text in command("scan", *arguments).error
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert (tmp_path / "mine.csv").read_text() == "mine"


def test_nothing_is_written_into_the_data(
    command: Callable[..., Any], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert "would lie in the data" in command("scan", ".").error
    assert command("scan", ".", "--out", "../page.html").code == 0


@pytest.mark.parametrize("form", ["list", "columns", "columns of one label"])
def test_several_labels_are_written_as_they_came(
    form: str, command: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    shutil.copy(data / "across" / "001.png", data / "across" / "copy.png")
    marks = {}
    for number, path in enumerate(sorted(data.rglob("*.png"))):
        labels = {path.parent.name} | ({"odd"} if number % 2 else set())
        if form == "columns of one label":
            labels = {path.parent.name} if number % 5 else set()
        marks[path.relative_to(tmp_path).as_posix()] = labels
    marks["photos/across/copy.png"] = {"upright", "odd"}  # of an image that is across
    if form == "list":
        head = "path,label"
        rows = [f"{path},{';'.join(sorted(labels))}" for path, labels in marks.items()]
        rows.append("photos/none.png,?")
    else:
        head = "path,across,odd,upright"
        rows = [f"{path},{','.join(str(int(name in labels)) for name in head.split(',')[1:])}"
                for path, labels in marks.items()]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join([head, *rows]) + "\n")
    said = command("scan", "list.csv", "--fix", "clean.csv")
    assert said.code == 0, said
    assert "warning: 1 group of identical images has more than one label (2 images)" in said.out
    assert ("no label yet: 1" in said.err) is (form == "list")
    written = (tmp_path / "clean.csv").read_text().splitlines()
    gone = ("photos/across/copy.png,", "photos/across/001.png,", "photos/none.png,")
    left = [row for row in rows if not row.startswith(gone)]
    assert written == [head, *left]
    assert json.loads(command("scan", "clean.csv", "--json").out)["images"] == len(left)


def test_images_are_read_as_training_would(
    command: Callable[..., Any], data: Path, tmp_path: Path
) -> None:
    assert command("scan", data, "--channels", 4).code == 1
    said = command("scan", data, "--max-pixels", 100)
    assert said.code == 1
    assert "32 files cannot be read" in said.out
    assert command("scan", data, "--depth", "window", "--background", "#102030").code == 0
    wrong = command("scan", data, "--bands", "1,2", "--channels", 3)
    assert wrong.code == 2
    assert wrong.error == "error: --bands names 2 bands, --channels is 3"


def test_names_cannot_turn_the_text_around(command: Callable[..., Any], data: Path) -> None:
    (data / "across").rename(data / "=\u202eacross")
    (data / "=\u202eacross" / "\u202egpj.png").write_bytes(b"no image")
    said = command("scan", data, "--fix", "clean.csv")
    assert "=" in said.out
    assert "\u202e" not in said.out.split("page:")[0]
    assert "\u202e" not in Path("scan-photos.html").read_text(encoding="utf-8")
    assert "\u202e" in Path("clean.csv").read_text(encoding="utf-8")  # read back as it is
    assert ",'=" in Path("clean-notes.csv").read_text(encoding="utf-8")
