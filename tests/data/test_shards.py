"""Images in tar files: listed, read at their place, refused where something is wrong."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data import gather_facts, read_image, read_listing, unlabelled
from plusx.data.filebytes import Refused, locate, open_bytes, read_bytes
from plusx.data.reading import Limits, Reading
from plusx.data.safely import read_safely
from plusx.data.shard_files import is_shards
from plusx.errors import DataError, UnreadableImage


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(number: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8 + number, 8), (20 * number, 0, 0)).save(file, format=form)
    return file.getvalue()


def pack(path: Path, members: list[tuple[str, bytes | str]], **options: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members:
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def two(first: int = 0) -> list[tuple[str, bytes | str]]:
    return [("a.png", picture(first)), ("a.cls", "cat"), ("b.jpg", picture(first + 1, "JPEG")),
            ("b.cls", "dog\n")]  # fmt: skip


def refusal(source: Path | str, **options: bool) -> str:
    with pytest.raises(DataError) as raised:
        read_listing(source, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_names_in_cls_and_splits_in_shard_names(tmp_path: Path) -> None:
    pack(tmp_path / "s" / "train-000.tar", two())
    pack(tmp_path / "s" / "validation-000.tar", two(4))
    listing = read_listing(tmp_path / "s")
    assert listing.classes == ("cat", "dog")
    assert [(s.split, s.target) for s in listing.samples] == [
        ("train", 0), ("train", 1), ("val", 0), ("val", 1),
    ]  # fmt: skip
    assert listing.samples[1].path == f"{tmp_path}/s/train-000.tar!b.jpg"
    assert [read_image(s.path).shape[1] for s in listing.samples] == [8, 9, 12, 13]
    assert list(unlabelled(tmp_path / "s"))[3].path == listing.samples[3].path
    assert next(iter(unlabelled(listing.samples[1].path))).path == listing.samples[1].path


@pytest.mark.parametrize("where", ["classes.txt", "dataset.json", "index.json"])
def test_numbers_mean_what_stands_beside(tmp_path: Path, where: str) -> None:
    tar = pack(tmp_path / "x.tar", [
        ("d/1.png", picture(1)), ("d/1.cls", "1"), ("d/2.png", picture(2)), ("d/2.cls", "0"),
        ("d/3.webp", picture(3, "WEBP")), ("d/3.json", '{"label": "dog", "group": 7}'),
    ])  # fmt: skip
    assert read_listing(tar, training=False).classes == ("0", "1", "dog")
    index = {"plusx_shards": 1, "classes": ["dog", "cat"],
             "shards": [{"name": "x.tar", "bytes": tar.stat().st_size}]}  # fmt: skip
    text = "dog\ncat\n" if where == "classes.txt" else json.dumps(index)
    (tmp_path / where).write_text(text)
    listing = read_listing(tar)
    assert [listing.classes[s.targets[0]] for s in listing.samples] == ["cat", "dog", "dog"]
    assert [s.group for s in listing.samples] == [None, None, "7"]


def test_several_labels_and_unlabelled_ones(tmp_path: Path) -> None:
    said: list[object] = [["b", "a"], [], None, ["b"]]
    members: list[tuple[str, bytes | str]] = []
    for i, label in enumerate(said):
        about = {"label": label, "split": "val" if i == 3 else "train"}
        members += [(f"{i}.png", picture(i)), (f"{i}.json", json.dumps(about))]
    tar = pack(tmp_path / "x.tar", members)
    listing = read_listing(tar, training=False)
    assert (listing.task, listing.classes, listing.unlabelled) == ("multi", ("a", "b"), 1)
    assert [(s.target, s.split) for s in listing.samples] == [
        ((0, 1), "train"), ((), "train"), ((1,), "val"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="gives it just one"):
        read_listing(tar, task="single")
    with pytest.raises(DataError, match="gives it any number"):
        read_listing(pack(tmp_path / "y.tar", two()), task="multi")


def test_patterns_of_braces_and_stars(tmp_path: Path) -> None:
    for number in range(8, 12):
        pack(tmp_path / f"train-{number:03}.tar", two(number))
    for pattern, count in [("train-{008..010}.tar", 6), ("train-0{08,11}.tar", 4),
                           ("train-*.tar", 8), ("t{rain-01}*.tar", 0)]:  # fmt: skip
        if count:
            found = read_listing(f"{tmp_path}/{pattern}")
            assert len(found.samples) == count, pattern
        else:
            assert "does not exist" in refusal(f"{tmp_path}/{pattern}")
    assert "train-012.tar: does not exist (named by" in refusal(
        f"{tmp_path}/train-{{008..012}}.tar"
    )
    assert "must rise" in refusal(f"{tmp_path}/train-{{3..1}}.tar")
    assert "more than 100,000" in refusal(f"{tmp_path}/{{0..999}}-{{0..999}}.tar")


def test_folders_of_class_folders_or_images_are_no_shards(tmp_path: Path) -> None:
    pack(tmp_path / "x.tar", two())
    assert is_shards(str(tmp_path / "x.tar"))
    (tmp_path / "cats").mkdir()
    assert not is_shards(str(tmp_path))
    (tmp_path / "cats").rmdir()
    assert not is_shards(str(tmp_path / "absent"))
    (tmp_path / "photo.jpg").write_bytes(picture(1, "JPEG"))
    assert not is_shards(str(tmp_path))


@pytest.mark.parametrize(
    "name", ["pipe:cat x.tar", "https://host/x.tar", "s3://bucket/x-{0..9}.tar"]
)
def test_nothing_is_run_or_fetched(name: str) -> None:
    assert "nothing is run or fetched" in refusal(name)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    import pickle

    trap = pickle.dumps(Trap())
    extra: list[tuple[str, bytes | str]] = [("a.pyd", trap), ("a.pickle", trap), ("b.pth", trap)]
    assert len(read_listing(pack(tmp_path / "x.tar", two() + extra)).samples) == 2
    assert not (tmp_path / "trapped").exists()


def test_the_order_is_that_of_a_folder(tmp_path: Path) -> None:
    names = ["a/x/1", "a-b/2", "a/3", "b/1", "a/x-y/0"]
    for name in names:
        place = tmp_path / "folder" / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(1))
    pairs = [[(f"{n}.png", picture(1)), (f"{n}.cls", n.split("/")[0])] for n in names]
    pack(tmp_path / "s" / "1.tar", [member for pair in pairs for member in pair])
    folder = read_listing(tmp_path / "folder")
    shards = read_listing(tmp_path / "s")
    tail = [os.path.relpath(s.path, tmp_path / "folder") for s in folder.samples]
    assert [s.path.split("!")[1] for s in shards.samples] == tail
    assert [s.target for s in shards.samples] == [s.target for s in folder.samples]


PROBLEMS: dict[str, tuple[list[tuple[str, bytes | str]], str]] = {
    "no label": ([("k.png", picture(1))], "member 'k.png': has no label: neither k.cls nor"),
    "json without": ([("k.png", picture(1)), ("k.json", "{}")], "member 'k.png': has no label"),
    "twice": ([("a.png", picture(1))], "member 'a.png': is there twice"),
    "two images": ([("a.jpg", picture(1))], "member 'a.jpg': has the key of 'a.png'"),
    "bad json": ([("k.png", picture(1)), ("k.json", "{")], "member 'k.json': is not valid JSON"),
    "list json": ([("k.png", picture(1)), ("k.json", "[]")], "member 'k.json': holds '[]'"),
    "bad split": ([("k.png", picture(1)), ("k.json", '{"label": "cat", "split": "x"}')],
                  "member 'k.png': split 'x' is not one of"),
    "bytes": ([("k.png", picture(1)), ("k.cls", b"\xff\xfe")], "member 'k.cls': is not UTF-8"),
    "odd label": ([("k.png", picture(1)), ("k.json", '{"label": 1.5}')], "label 1.5 is no name"),
    "empty": ([("k.png", picture(1)), ("k.cls", " ")], "label '' is no name"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROBLEMS)
def test_what_is_wrong_names_shard_and_member(tmp_path: Path, kind: str) -> None:
    members, said = PROBLEMS[kind]
    tar = pack(tmp_path / "x.tar", two() + members)
    text = refusal(tar)
    assert text.startswith(f"{tar}: ")
    assert said in text


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ncow\n")
    assert "member 'b.jpg': class 'dog' is not among" in refusal(pack(tmp_path / "x.tar", two()))
    tar = pack(tmp_path / "x.tar", [("k.png", picture(1)), ("k.cls", "2")])
    assert "member 'k.png': class number 2, but 2 classes" in refusal(tar)
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    assert "classes.txt: a class is named twice" in refusal(tar)


def test_cut_damaged_and_compressed_tar_files(tmp_path: Path) -> None:
    tar = pack(tmp_path / "x.tar", two())
    whole = tar.read_bytes()
    listing = read_listing(tar)
    start = locate(listing.samples[1].path).start
    for cut, said in [(start + 5, "member 'b.jpg': is cut off"), (start - 300, "cut off"),
                      (100, "is no tar file"), (0, "is no tar file")]:  # fmt: skip
        tar.write_bytes(whole[:cut])
        assert said in refusal(tar), cut
    tar.write_bytes(whole[: start - 400] + b"\xee" * 60 + whole[start - 340 :])
    assert "is damaged at byte" in refusal(tar)
    tar.write_bytes(picture(1))
    assert "is no tar file" in refusal(tar)
    with tarfile.open(tmp_path / "y.tar", "w:gz") as archive:
        archive.add(tar, "x")
    assert "is compressed" in refusal(tmp_path / "y.tar")
    (tmp_path / "y.tar").rename(tmp_path / "y.tar.gz")
    assert "is compressed" in refusal(tmp_path / "y.tar.gz")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format(tmp_path: Path, form: int) -> None:
    long = "/".join(["deep" * 10] * (2 if form == tarfile.USTAR_FORMAT else 6))
    name = long if form == tarfile.USTAR_FORMAT else f"{long}/grün"
    tar = pack(tmp_path / "x.tar", [(f"./{name}.png", picture(3)), (f"./{name}.cls", "c")],
               format=form)  # fmt: skip
    (sample,) = read_listing(tar, training=False).samples
    assert sample.path == f"{tar}!{name}.png"
    assert read_image(sample.path).shape[1] == 11


def test_one_seam_reads_the_very_bytes(tmp_path: Path) -> None:
    content = picture(5)
    tar = pack(tmp_path / "x.tar", [*two(), ("c/d.png", content), ("c/d.cls", "cat")])
    path = f"{tar}!c/d.png"
    assert read_bytes(path, Limits()) == content
    with open_bytes(path) as file:
        assert file.read(16) == content[:16]
        file.seek(-4, os.SEEK_END)
        assert file.read() == content[-4:]
        assert file.read() == b""
    image, _ = read_safely(path, channels=3, reading=Reading())
    assert np.array_equal(image, read_image(content))
    facts = gather_facts([path], channels=3, reading=Reading(), processes=1)[0]
    assert facts.error is None
    assert (facts.width, facts.size_bytes) == (13, len(content))


def test_absent_members_and_real_files_of_such_a_name(tmp_path: Path) -> None:
    tar = pack(tmp_path / "x.tar", two())
    with pytest.raises(UnreadableImage, match="does not exist"):
        read_image(f"{tar}!z.png")
    with pytest.raises(Refused, match="does not exist"):
        read_bytes(f"{tmp_path}/no.tar!z.png", Limits())
    real = tmp_path / "y.tar!a.png"
    real.write_bytes(picture(2))
    assert read_image(real).shape[1] == 10
    (tmp_path / "z.tar").write_bytes(b"rubbish" * 200)
    with pytest.raises(UnreadableImage, match="is no tar file"):
        read_image(f"{tmp_path}/z.tar!a.png")
    os.mkfifo(tmp_path / "w.tar")
    assert "w.tar: is no file" in refusal(tmp_path / "w.tar")


def test_a_shard_that_changes_is_indexed_anew(tmp_path: Path) -> None:
    tar = pack(tmp_path / "x.tar", two())
    path = f"{tar}!b.jpg"
    assert read_image(path).shape[1] == 9
    pack(tar, [("0.png", picture(9)), ("0.cls", "c"), *two(3)])
    assert read_image(path).shape[1] == 12
    assert len(read_listing(tar).samples) == 3
    pack(tar, [("0.png", picture(9)), ("0.cls", "c")])
    with pytest.raises(UnreadableImage, match="does not exist"):
        read_image(path)


def test_the_index_is_kept_and_listed(tmp_path: Path, cache: Path) -> None:
    from plusx.jobs.cache import clear_cache, list_cache

    read_listing(pack(tmp_path / "s" / "x.tar", two()))
    (kept,) = list_cache()
    assert (kept.kind, kept.name[:9]) == ("shards", "shards/s-")
    assert clear_cache()[0] == [kept]
    assert list(cache.glob("shards/*")) == []


def test_a_damaged_index_says_what_to_do(tmp_path: Path, cache: Path) -> None:
    tar = pack(tmp_path / "s" / "x.tar", two())
    read_listing(tar)
    (kept,) = cache.glob("shards/*.sqlite")
    content = tar.read_bytes()
    elsewhere = cache / "elsewhere"
    with pytest.MonkeyPatch.context() as patch:  # as the next process finds it
        patch.setenv("PLUSX_CACHE", str(elsewhere))
        (elsewhere / "shards").mkdir(parents=True)
        (elsewhere / "shards" / kept.name).write_bytes(b"rubbish" * 1000)
        assert "cannot be used as an index of shards" in refusal(tar)
    assert tar.read_bytes() == content
