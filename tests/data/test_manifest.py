"""CSV manifests and what can be wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plusx.data import read_manifest, split_listing
from plusx.errors import DataError


def write(folder: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path = folder / "list.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_labels_splits_groups(tmp_path: Path, encoding: str) -> None:
    text = (
        "path,label,split,group\n"
        "img/ü.jpg,dog,train,p1\n"
        "img/2.jpg,cat,train,\n"
        '"img/with, comma.jpg", cat ,Valid,p2\r\n'
        "\n"
        f"{tmp_path / 'abs.jpg'},dog,test,p3\n"
    )
    listing = read_manifest(write(tmp_path, text, encoding=encoding))
    assert listing.root == str(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert [s.target for s in listing.samples] == [1, 0, 0, 1]
    assert [s.split for s in listing.samples] == ["train", "train", "val", "test"]
    assert [s.group for s in listing.samples] == ["p1", None, "p2", "p3"]
    names = [os.path.relpath(s.path, tmp_path).replace(os.sep, "/") for s in listing.samples]
    assert names == ["img/ü.jpg", "img/2.jpg", "img/with, comma.jpg", "abs.jpg"]


def test_without_split_and_group(tmp_path: Path) -> None:
    listing = read_manifest(write(tmp_path, "label,path\na,1.png\nb,2.png"))
    assert [(s.split, s.group) for s in listing.samples] == [(None, None)] * 2


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    listing = read_manifest(write(tmp_path, "path,label\n1.png,a\n./1.png,a\n2.png,b\n"))
    assert len(listing.samples) == 2
    assert listing.ignored == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty", "path,label"]),
        ("path,label\n", ["no rows"]),
        ("path;label\n1.png;a\n", ["line 1", "'path'", "commas"]),
        ("path,split\n1.png,train\n", ["line 1", "'label'"]),
        ("path,label,spilt\n1.png,a,train\n", ["line 1", "'spilt'", "unknown"]),
        ("path,label,label\n1.png,a,b\n", ["line 1", "'label'", "twice"]),
        ("path,label\n1.png,a\n2.png,\n", ["line 3", "label", "2.png", "empty"]),
        ("path,label\n ,a\n", ["line 2", "path is empty"]),
        ("path,label\n1.png,a\n1.png,b\n", ["line 3", "line 2", "1.png", "label"]),
        ("path,label,split\n1.png,a,train\n1.png,a,val\n", ["line 3", "line 2", "split"]),
        ("path,label,group\n1.png,a,x\n1.png,a,y\n", ["line 3", "line 2", "group"]),
        ("path,label,split\n1.png,a,dev\n", ["line 2", "'dev'", "train, val, test"]),
        ("path,label,split\n1.png,a,\n", ["line 2", "''"]),
        ("path,label\nhttps://x.org/1.png,a\n", ["line 2", "URL", "https://x.org/1.png"]),
        ("path,label\n1.png,a,b\n", ["line 2", "3 cells", "2"]),
        ('path,label\n"a\nb.png",a\n2.png,\n', ["line 4"]),
        ('path,label\n"1.png,a\n', ["not valid CSV"]),
        ("path,label\n1.png,a\n2.png,a\n", ["only one class", "'a'"]),
        ("path,label\n1.png,Cat\n2.png,cat\n", ["'Cat'", "'cat'", "case"]),
        ("path,label,split\n1.png,a,val\n2.png,b,val\n", ["no 'train' split"]),
        (
            "path,label,split\n1.png,a,train\n2.png,b,train\n3.png,c,test\n",
            ["'test'", "'c'", "'a', 'b'"],
        ),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    for word in words:
        assert word in said


def test_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(write(tmp_path, "path,label\nü.png,a\n", encoding="utf-16"))


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_manifest(tmp_path / "no.csv")


def test_later_faults_name_the_file_too(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label,group\n1.png,a,g\n2.png,a,g\n3.png,b,h\n4.png,b,h\n")
    listing = read_manifest(path)
    assert listing.source == str(path)
    with pytest.raises(DataError) as caught:
        split_listing(listing, seed=0)
    assert str(caught.value).startswith(f"{path}: class 'a' cannot be in train and val")


def test_evaluation_takes_what_training_refuses(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label,split\n1.png,a,test\n")
    assert read_manifest(path, training=False).classes == ("a",)
