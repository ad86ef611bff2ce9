"""CSV manifests and what can be wrong with them."""

from __future__ import annotations

import csv
import os
import sys
import tracemalloc
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


# Several labels an image


def test_a_list_of_labels_makes_it_multi(tmp_path: Path) -> None:
    text = "path,label\n1.png,b; a\n2.png,a\n3.png,\n4.png,?\n5.png,a;b\n"
    listing = read_manifest(write(tmp_path, text))
    assert listing.task == "multi"
    assert listing.classes == ("a", "b")
    assert [s.target for s in listing.samples] == [(0, 1), (0,), (), (0, 1)]
    assert [s.targets for s in listing.samples] == [(0, 1), (0,), (), (0, 1)]
    assert listing.unlabelled == 1
    assert listing.samples[0].target is listing.samples[3].target  # memory


def test_a_column_for_each_class_makes_it_multi(tmp_path: Path) -> None:
    text = "path,Dog,split,cat\n1.png,1,train,0\n2.png,0.0,train,true\n3.png,0,val,0\n4.png,,val,\n"
    listing = read_manifest(write(tmp_path, text))
    assert (listing.task, listing.classes) == ("multi", ("Dog", "cat"))
    assert [s.target for s in listing.samples] == [(0,), (1,), ()]
    assert listing.unlabelled == 1


def test_a_class_that_no_image_has_stays_a_class_of_its_column(tmp_path: Path) -> None:
    path = write(tmp_path, "path,a,b\n1.png,1,0\n2.png,0,0\n")
    assert read_manifest(path, training=False).classes == ("a", "b")


def test_one_label_each_is_multi_where_a_model_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "path,label\n1.png,a\n2.png,\n")
    listing = read_manifest(path, training=False, task="multi")
    assert [s.target for s in listing.samples] == [(0,), ()]
    with pytest.raises(DataError, match=r"line 3: the label of .* is empty"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n1.png,a;;b\n", ["line 2", "'a;;b'", "empty item"]),
        ("path,label\n1.png,a\n2.png,b;\n", ["line 3", "'b;'", "empty item"]),
        ("path,label\n1.png,a;b;a\n", ["line 2", "'a'", "twice"]),
        ("path,label,cat\n1.png,a,1\n", ["line 1", "'cat'", "beside 'label'"]),
        ("path,cat,dog\n1.png,1,2\n", ["line 2", "'dog'", "'2'", "not 0 or 1"]),
        ("path,cat,dog\n1.png,1,\n", ["line 2", "'dog'", "''", "leave all"]),
        ("path,cat,a;b\n1.png,1,0\n", ["line 1", "'a;b'", "separates"]),
        ("path,cat,\n1.png,1,0\n", ["line 1", "''", "rename"]),
        ("path,cat,cat\n1.png,1,0\n", ["line 1", "'cat'", "twice"]),
        ("path,cat\n1.png,1\n2.png,0\n", ["only one class", "'cat'"]),
        ("path,a,b\n1.png,,\n", ["no labelled image"]),
        ("path,label\n1.png,Cat;dog\n2.png,cat\n", ["'Cat'", "'cat'", "case"]),
        ("path,label\n1.png,a;b\n1.png,b;a\n", ["line 3", "line 2", "label"]),
        ("path,a,b,split\n1.png,1,0,train\n2.png,0,1,val\n", ["'val'", "'b'", "'a'"]),
        ("path,a,b\nhttps://x.org/1.png,1,0\n", ["URL"]),
    ],
)
def test_faults_of_several_labels_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    test_faults_are_named(tmp_path, text, words)


def test_names_with_anything_in_them(tmp_path: Path) -> None:
    odd = ["=cmd()", "-x.png", '"quoted".png', "new\nline.png", "日本.png", "a\\b.png"]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["path", "label"], *([name, f"c{i % 2}"] for i, name in enumerate(odd))])
    listing = read_manifest(tmp_path / "list.csv")
    assert [s.path for s in listing.samples] == [str(tmp_path / name) for name in odd]


def test_memory_of_a_row_is_small(tmp_path: Path) -> None:
    """What a listing keeps, beyond the paths themselves; groups and labels are shared objects."""
    n = 20_000
    rows = "".join(f"{i}.png,{'a;b' if i % 3 else 'a'},train,g{i % 50}\n" for i in range(n))
    path = write(tmp_path, "path,label,split,group\n" + rows)
    tracemalloc.start()
    listing = read_manifest(path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    names = sum(sys.getsizeof(sample.path) for sample in listing.samples)
    assert (kept - names) / n < 100
