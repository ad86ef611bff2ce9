"""Reading, thinning and aligning listings; streaming images to predict."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from plusx.data import BadImage, Listing, Sample, align, drop, read_listing, unlabelled
from plusx.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(path, format="PNG")
    return root


def names(root: Path, samples: Iterator[Sample] | tuple[Sample, ...]) -> list[str]:
    return [os.path.relpath(s.path, root).replace(os.sep, "/") for s in samples]


def test_folder_or_csv(tmp_path: Path) -> None:
    root = fill(tmp_path, "a/1.png", "b/2.png")
    csv = root / "list.CSV"
    csv.write_text("path,label\na/1.png,a\nb/2.png,b\n")
    assert read_listing(root).samples == read_listing(csv).samples
    assert read_listing(str(root)).root == str(root)


@pytest.mark.parametrize(("name", "word"), [("a/1.png", "single file"), ("gone", "not exist")])
def test_neither(tmp_path: Path, name: str, word: str) -> None:
    root = fill(tmp_path, "a/1.png", "b/2.png")
    with pytest.raises(DataError, match=word) as caught:
        read_listing(root / name)
    assert str(root / name) in str(caught.value)


def test_drop_removes_by_path() -> None:
    samples = tuple(Sample(f"{i}.png", i % 2) for i in range(6))
    listing = Listing(".", ("a", "b"), samples)
    left = drop(listing, [BadImage("0.png", "broken"), BadImage("3.png", "broken")])
    assert [s.path for s in left.samples] == ["1.png", "2.png", "4.png", "5.png"]
    assert left.classes == ("a", "b")
    assert drop(listing, []) is listing


def test_drop_says_which_class_is_left_empty() -> None:
    samples = tuple(Sample(f"{i}.png", int(i > 0)) for i in range(9))
    listing = Listing("photos", ("a", "b"), samples)
    with pytest.raises(DataError) as caught:
        drop(listing, [BadImage("0.png", "is empty (0 bytes)")])
    assert "'a'" in str(caught.value)
    assert "0.png: is empty (0 bytes)" in str(caught.value)
    with pytest.raises(DataError, match="and 3 more"):
        drop(listing, [BadImage(f"{i}.png", "x") for i in range(1, 9)])


def test_drop_counts_train_images_where_there_are_splits() -> None:
    samples = (
        Sample("1", 0, "train"),
        Sample("2", 1, "train"),
        Sample("3", 1, "val"),
        Sample("4", 0, "val"),
    )
    listing = Listing(".", ("a", "b"), samples)
    with pytest.raises(DataError, match=r"'b' has no usable image left in train \(2: x\)"):
        drop(listing, [BadImage("2", "x")])
    with pytest.raises(DataError, match="split 'val' has no usable image left"):
        drop(listing, [BadImage("3", "x"), BadImage("4", "x")])
    assert len(drop(listing, [BadImage("3", "x")]).samples) == 3


def test_drop_lets_a_class_go_that_train_never_had() -> None:
    samples = (Sample("1", 0, "train"), Sample("2", 0, "val"), Sample("3", 1, "val"))
    left = drop(Listing(".", ("a", "b"), samples), [BadImage("3", "x")])
    assert [s.path for s in left.samples] == ["1", "2"]


def test_align_by_name() -> None:
    listing = Listing(".", ("ant", "bee"), (Sample("1", 0), Sample("2", 1), Sample("3", None)))
    aligned, absent = align(listing, ["wasp", "bee", "ant"])
    assert aligned.classes == ("wasp", "bee", "ant")
    assert [s.target for s in aligned.samples] == [2, 1, None]
    assert absent == ("wasp",)


def test_align_lists_both_sides() -> None:
    listing = Listing("d", ("ant", "bee", "fly"), (Sample("1", 0),))
    with pytest.raises(DataError, match=r"'bee', 'fly'; the model knows 'ant', 'wasp'"):
        align(listing, ("wasp", "ant"))


def test_predict_files_folders_patterns(tmp_path: Path) -> None:
    root = fill(
        tmp_path, "b/2.png", "b/1.png", "b/c/3.jpg", "b/c/.4.jpg", "d/5.png", ".h/6.png", "d/x.raw"
    )
    (root / "b" / "notes.txt").write_text("no image")
    assert names(root, unlabelled(root)) == ["b/1.png", "b/2.png", "b/c/3.jpg", "d/5.png"]
    assert names(root, unlabelled(root / "d" / "x.raw")) == ["d/x.raw"]
    assert names(root, unlabelled([root / "d", str(root / "b" / "2.png")])) == [
        "d/5.png",
        "b/2.png",
    ]
    for pattern, expected in {
        "b/*": ["b/1.png", "b/2.png", "b/c/3.jpg"],
        "*/[1-3].png": ["b/1.png", "b/2.png"],
        "**/*.png": ["b/1.png", "b/2.png", "d/5.png"],
        "**/*": ["b/1.png", "b/2.png", "b/c/3.jpg", "d/5.png"],
        "**": ["b/1.png", "b/2.png", "b/c/3.jpg", "d/5.png"],
        "b/**/3.jpg": ["b/c/3.jpg"],
        ".h/*": [".h/6.png"],
        "?/5.*": ["d/5.png"],
    }.items():
        assert names(root, unlabelled(f"{root}/{pattern}")) == expected, pattern
    assert all(s.target is None for s in unlabelled(root))


def test_predict_a_relative_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "b/2.png", "-x.png")
    monkeypatch.chdir(tmp_path)
    assert [Path(s.path) for s in unlabelled(["*.png", "b/*.png", "-x.png"])] == [
        Path("-x.png"),
        Path("b/2.png"),
        Path("-x.png"),
    ]


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    root = fill(tmp_path, "[1].png", "1.png")
    assert names(root, unlabelled(root / "[1].png")) == ["[1].png"]


@pytest.mark.parametrize(
    ("source", "word"),
    [("gone.png", "does not exist"), ("*.gif", "matches no image"), ("hollow", "holds no image")],
)
def test_nothing_to_predict(tmp_path: Path, source: str, word: str) -> None:
    root = fill(tmp_path, "1.png")
    (root / "hollow").mkdir()
    with pytest.raises(DataError, match=word):  # at the call, before the first sample
        unlabelled([root / "1.png", root / source])
    with pytest.raises(DataError, match="no image"):
        unlabelled([])
    with pytest.raises(DataError, match="an empty name: does not exist"):
        unlabelled("")
    with pytest.raises(DataError, match="name of the data is empty"):
        read_listing("")


def test_streams_without_walking_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill(tmp_path, *(f"{i:02}/1.png" for i in range(30)))
    opened: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> object:
        opened.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    assert len(list(itertools.islice(unlabelled(root), 3))) == 3
    assert len(opened) < 8


def test_one_patients_dicoms_are_one_group(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="extra 'dicom' absent")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    def scan(path: Path, patient: str) -> None:
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
            SecondaryCaptureImageStorage,
            "1.2",
        )
        data = pydicom.Dataset()
        data.PatientID, data.file_meta = patient, meta
        path.parent.mkdir(parents=True, exist_ok=True)
        data.save_as(path, enforce_file_format=True)

    for number, patient in enumerate(["Smith", "Jones", "Smith", ""]):
        scan(tmp_path / "sick" / f"{number}.dcm", patient)
    (tmp_path / "well").mkdir()
    (tmp_path / "well" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 9)
    (tmp_path / "well" / "photo.jpg").write_bytes(b"\xff\xd8")
    groups = [sample.group for sample in read_listing(tmp_path).samples]
    assert groups[0] == groups[2] != groups[1]
    assert groups[0].startswith("patient-")
    assert groups[3:] == [None, None, None]
    assert "Smith" not in repr(groups)
