"""Folders and what can be wrong with them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from plusx.data import read_folder
from plusx.errors import DataError


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "red").save(path, format="PNG")
    return path


def fill(root: Path, *names: str) -> Path:
    for name in names:
        image(root / name)
    return root


def fails(root: Path, *words: str, training: bool = True) -> None:
    with pytest.raises(DataError) as caught:
        read_folder(root, training=training)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_class_folders(tmp_path: Path) -> None:
    root = fill(tmp_path, "b/2.png", "b/1.png", "a/deep/er/3.JPG", "C/4.tiff")
    listing = read_folder(root)
    assert listing.root == str(root)
    assert listing.classes == ("C", "a", "b")
    names = [os.path.relpath(s.path, root).replace(os.sep, "/") for s in listing.samples]
    assert names == ["C/4.tiff", "a/deep/er/3.JPG", "b/1.png", "b/2.png"]
    assert [s.target for s in listing.samples] == [0, 1, 2, 2]
    assert {s.split for s in listing.samples} == {None}
    assert listing.task == "single"


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, val: str) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", f"{val}/a/2.png", "test/b/3.png")
    listing = read_folder(root)
    assert listing.classes == ("a", "b")
    assert sorted(str(s.split) for s in listing.samples) == ["test", "train", "train", "val"]
    assert [s.target for s in listing.part("val")] == [0]
    assert [s.target for s in listing.part("test")] == [1]
    assert len(listing.part("train")) == 2


@pytest.mark.parametrize(
    "extension",
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "tif", "tiff", "gif", "JPG", "Png"],
)
def test_extensions(tmp_path: Path, extension: str) -> None:
    listing = read_folder(fill(tmp_path, f"a/x.{extension}", f"b/x.{extension}"))
    assert len(listing.samples) == 2


def test_other_files_are_counted_and_hidden_ones_skipped(tmp_path: Path) -> None:
    root = fill(tmp_path, "a/1.png", "b/1.png", "a/.hidden.png", ".cache/x.png", "b/.thumbs/1.png")
    (root / "README.txt").write_text("hello")
    (root / "a" / "notes.txt").write_text("hello")
    (root / "a" / "jpg").write_text("no extension")
    listing = read_folder(root)
    assert len(listing.samples) == 2
    assert listing.ignored == 3


def test_folders_beside_the_splits_are_ignored(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "extra/1.png", "train/loose.png")
    listing = read_folder(root)
    assert listing.classes == ("a", "b")
    assert listing.ignored == 2


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    listing = read_folder(fill(tmp_path, "train/1.png", "bus/1.png"))
    assert listing.classes == ("bus", "train")


def test_odd_names(tmp_path: Path) -> None:
    odd = ["a b/x y.png", "-rf/--help.png", "naïve/日本.png", "[x]/{a,b}*.png"]
    if sys.platform != "win32":
        odd += ["new\nline/a\nb.png", os.fsdecode(b"latin\xe9/\xff.png")]
    try:
        root = fill(tmp_path, *odd)
    except OSError:  # file systems that insist on UTF-8 (macOS)
        root = fill(tmp_path, *odd[:-1])
    listing = read_folder(root)
    assert len(listing.samples) == len(listing.classes) >= 4
    assert all(Path(sample.path).is_file() for sample in listing.samples)


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "photos/a/1.png", "photos/b/1.png")
    monkeypatch.chdir(tmp_path)
    listing = read_folder("photos")
    assert listing.root == "photos"
    assert Path(listing.samples[0].path) == Path("photos/a/1.png")


def test_symlinks_neither_loop_nor_mix_classes(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", "a/1.png", "a/sub/2.png", "b/1.png")
    far = fill(tmp_path / "far", "3.png")
    for link, target in {
        "a/sub/up": root / "a",
        "a/self": root / "a" / "self",
        "a/all": root,
        "a/other": root / "b",
        "b/far": far,
        "c": far,
    }.items():
        (root / link).symlink_to(target, target_is_directory=True)
    listing = read_folder(root)
    names = [os.path.relpath(s.path, root).replace(os.sep, "/") for s in listing.samples]
    assert names == ["a/1.png", "a/sub/2.png", "b/1.png", "c/3.png"]


def test_absent(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "nowhere", "does not exist")


def test_a_file(tmp_path: Path) -> None:
    fails(image(tmp_path / "x.png"), "x.png", "not a folder")


def test_empty(tmp_path: Path) -> None:
    fails(tmp_path, str(tmp_path), "is empty", "<class>/")


def test_only_loose_images(tmp_path: Path) -> None:
    fails(fill(tmp_path, "1.png", "2.png"), "no image in a class folder", "<class>/")


def test_no_images_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    fails(tmp_path, "no image")


def test_one_class(tmp_path: Path) -> None:
    root = fill(tmp_path, "cats/1.png", "cats/2.png")
    fails(root, "only one class", "'cats'", "at least two")
    assert read_folder(root, training=False).classes == ("cats",)


def test_class_without_image(tmp_path: Path) -> None:
    root = fill(tmp_path, "a/1.png", "b/1.png")
    (root / "hollow").mkdir()
    fails(root, "'hollow'", "no image")
    assert read_folder(root, training=False).classes == ("a", "b")


def test_class_without_train_image(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "val/c/1.png")
    (root / "train" / "c").mkdir()
    fails(root, "'train/c'", "no image")


def test_val_may_lack_a_class(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    (root / "val" / "b").mkdir()
    assert len(read_folder(root).part("val")) == 1


def test_classes_that_differ_in_case(tmp_path: Path) -> None:
    fails(fill(tmp_path, "train/Cat/1.png", "train/b/1.png", "val/cat/1.png"), "'Cat'", "'cat'")


def test_classes_that_differ_in_unicode_form(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/caf\u00e9/1.png", "train/b/1.png", "val/cafe\u0301/1.png")
    if len({p.name for p in root.glob("*/caf*")}) == 2:  # not where the file system normalises
        fails(root, "Unicode")
    else:
        assert len(read_folder(root).classes) == 2


def test_class_that_train_lacks(tmp_path: Path) -> None:
    root = fill(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png", "val/zebra/1.png")
    fails(root, "'val'", "'zebra'", "'a', 'b'")
    assert read_folder(root, training=False).classes == ("a", "b", "zebra")


def test_no_train_split(tmp_path: Path) -> None:
    root = fill(tmp_path, "val/a/1.png", "val/b/1.png")
    fails(root, "no 'train' split", "'val'")
    assert len(read_folder(root, training=False).part("val")) == 2


def test_two_names_for_one_split(tmp_path: Path) -> None:
    fails(fill(tmp_path, "train/a/1.png", "val/a/1.png", "valid/a/1.png"), "'val'", "'valid'")


NO_PERMISSION = """
import os, sys
from plusx.data import read_folder, read_listing
from plusx.errors import DataError
if os.getuid() == 0:  # root may read everything: go on as nobody
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
for root in sys.argv[1:]:
    for read in read_folder, read_listing:
        try:
            read(root)
        except DataError as error:
            print(error)
"""


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        roots = [fill(Path(folder) / str(i), "a/1.png", "b/sub/1.png") for i in range(3)]
        locked = [roots[0], roots[1] / "b", roots[2] / "b" / "sub"]
        for path in locked:
            path.chmod(0)
        command = [sys.executable, "-c", NO_PERMISSION, *map(str, roots)]
        run = subprocess.run(command, capture_output=True, text=True)
        for path in locked:
            path.chmod(0o755)
    assert run.stderr == ""
    said = [f"{path}: no permission to read this folder" for path in locked for _ in range(2)]
    assert run.stdout.splitlines() == said
