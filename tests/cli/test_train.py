"""``plusx train`` as a user meets it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plusx


@pytest.fixture
def train(
    command: Callable[..., Any], tiny_weights: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:  # fmt: skip
    """``plusx train DATA --weights ... --unfreeze 0`` in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(data: object, *more: object) -> Any:
        return command("train", data, "--weights", tiny_weights, "--unfreeze", "0", *more)

    return call


def test_the_default_place_and_what_is_said(train: Callable[..., Any], photos: Path) -> None:
    said = train(photos)
    assert said.code == 0
    lines = said.err.splitlines()
    assert lines[0] == "note: head for 5 classes replaced by a fresh one for 2"
    assert any(line.endswith("images; see runs/photos-1/audit.html") for line in lines)
    kept = "neighbours.npz: features, names and labels of 64 of 64 training images"
    assert lines[-1].startswith(kept)
    lines = dict(line.split(":", 1) for line in said.out.splitlines())
    assert list(lines) == ["ships", "top-1", "model", "report", "next"]
    assert lines["report"].strip() == str(Path("runs/photos-1/report.html"))
    assert "95% interval" in lines["top-1"]
    assert Path("runs/photos-1/report.html").exists()


def test_json_is_all_there_is_on_stdout(train: Callable[..., Any], photos: Path) -> None:
    said = train(photos, "--json", "--out", "run")
    found = json.loads(said.out)
    assert found["run"] == "run"
    written = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))
    assert {key: found[key] for key in written} == written


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_tells_and_leaves_nothing(
    command: Callable[..., Any], photos: Path, tiny_weights: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, as_json: bool,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    said = command("train", photos, "--weights", tiny_weights, "--epochs", "5", "--dry-run",
                   *["--json"] * as_json)  # fmt: skip
    assert said.code == 0
    if as_json:
        found = json.loads(said.out)
        assert (found["images"], found["epochs"]) == (96, 5)
        assert found["seconds"] > 0
        assert 0 < found["disk_gib"] < 0.1
    else:
        assert said.out.startswith("96 images, at most 5 epochs; nothing was trained")
        assert [line.split(":")[0] for line in said.out.splitlines()[1:]] == [
            "time", "memory", "disk",
        ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [("--weights", "none", "--model", "resnet8_cifar_a"),
                                 ("--unfreeze", "0"), ("--unfreeze", "all")])  # fmt: skip
def test_a_dry_run_of_every_kind_of_training(
    command: Callable[..., Any], photos: Path, tiny_weights: Path, how: tuple[str, ...]
) -> None:
    weights = () if "--weights" in how else ("--weights", tiny_weights)
    said = command("train", photos, *weights, *how, "--dry-run", "--json")
    assert said.code == 0
    assert (json.loads(said.out)["epochs"] == 0) == (how == ("--unfreeze", "0"))


def test_a_broken_file_is_named_and_left_out(
    train: Callable[..., Any], make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_stripes(tmp_path / "d", {"across": 10, "upright": 10})
    whole = (data / "across" / "003.png").read_bytes()
    (data / "across" / "003.png").write_bytes(whole[: len(whole) // 2])
    (data / "upright" / "empty.jpg").write_bytes(b"")
    (data / "upright" / "notes.txt").write_text("x")
    said = train(data, "--out", "run")
    assert said.code == 0
    assert f"note: left out: {data / 'across' / '003.png'}: is truncated" in said.err
    assert f"note: left out: {data / 'upright' / 'empty.jpg'}: is empty" in said.err
    assert "note: 1 files or rows are no images" in said.err
    metrics = plusx.load("run").metrics
    assert len(metrics["bad_images"]) == 2
    assert sum(sum(part.values()) for part in metrics["counts"].values()) == 19
    fine = train(data, "--out", "run2", "--unfreeze", "1", "--epochs", "2")
    assert fine.code == 0
    assert fine.err.count("003.png") == 1
    scratch = train(data, "--out", "run3", "--weights", "none", "--unfreeze", "all",
                    "--model", "resnet8_cifar_a", "--epochs", "1")  # fmt: skip
    assert scratch.code == 0
    assert len(plusx.load("run3").metrics["bad_images"]) == 2


def _faults(data: Path, make_stripes: Callable[..., Path], kind: str) -> None:
    if kind == "empty":
        data.mkdir()
    elif kind == "one class":
        make_stripes(data, {"across": 4})
    elif kind == "case":
        make_stripes(data, {"across": 4, "Across": 4})
    elif kind == "flat":
        make_stripes(data, {"across": 4})
        for file in (data / "across").iterdir():
            file.rename(data / file.name)
        (data / "across").rmdir()
    else:
        make_stripes(data, {"across": 4, "upright": 4})
    if kind == "class without image":
        (data / "void").mkdir()
    if kind == "class without usable image":
        for file in (data / "upright").iterdir():
            file.write_bytes(b"broken")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "is empty"),
        ("one class", "holds only one class, 'across'"),
        ("case", "differ only in case"),
        ("flat", "holds no image in a class folder"),
        ("class without image", "no image in 'void'"),
        ("class without usable image", "class 'upright' has no usable image left"),
    ],
)
def test_faulty_data_is_one_clear_error_and_no_half_run(
    train: Callable[..., Any], make_stripes: Callable[..., Path], tmp_path: Path,
    kind: str, said: str,
) -> None:  # fmt: skip
    if kind == "case":
        (tmp_path / "probe").touch()
        if (tmp_path / "PROBE").exists():
            return  # a file system that cannot hold both names
    data = tmp_path / "d"
    _faults(data, make_stripes, kind)
    ended = train(data, "--out", "run")
    assert said in ended.error
    assert str(data) in ended.error
    assert ended.out == ""
    assert not Path("run").exists()


@pytest.mark.parametrize("name", ["with space", "ünïcödé 日本", "new\nline", "quote'\""])
def test_any_file_name_works(
    train: Callable[..., Any], make_stripes: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    data = make_stripes(tmp_path / name, {"across": 6, "upright": 6})
    (data / "across" / "000.png").rename(data / "across" / f"{name}.png")
    (data / "across" / f"{name} broken.png").write_bytes(b"x")
    said = train(data, "--out", "run")
    assert said.code == 0
    assert plusx.load("run").metrics["bad_images"][0]["path"].endswith(f"{name} broken.png")


def test_file_names_that_are_no_utf8(
    train: Callable[..., Any], make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    if sys.platform != "linux":
        return  # other systems' file names are text
    data = make_stripes(tmp_path / "d", {"train/across": 6, "train/upright": 6,
                                         "val/across": 3, "val/upright": 3})  # fmt: skip
    for split in ("train", "val"):
        folder = os.fsencode(data / split / "across")
        os.rename(folder + b"/000.png", folder + b"/caf\xe9.png")  # noqa: PTH104
        with open(folder + b"/bad\xff.png", "wb") as file:
            file.write(b"x")
    said = train(data, "--out", "run")
    assert said.code == 0, said.err
    bad = [item["path"] for item in plusx.load("run").metrics["bad_images"]]
    assert len(bad) == 2
    assert all(os.path.exists(path) for path in bad)  # noqa: PTH110
    assert "bad" in Path("run/train.log").read_text(encoding="utf-8")
    fine = train(data, "--out", "run2", "--unfreeze", "1", "--epochs", "1")
    assert fine.code == 0, fine.err
    os.rename(os.fsencode(data / "train" / "across"), os.fsencode(data / "train") + b"/a\xff")  # noqa: PTH104
    os.rename(os.fsencode(data / "val" / "across"), os.fsencode(data / "val") + b"/a\xff")  # noqa: PTH104
    assert "is not UTF-8; rename it" in train(data, "--out", "run3").error


def test_a_taken_folder_and_overwriting(train: Callable[..., Any], photos: Path) -> None:
    assert train(photos, "--out", "run").code == 0
    assert "--out run: exists already" in train(photos, "--out", "run").error
    assert train(photos, "--out", "run", "--overwrite").code == 0
    failed = train(photos, "--out", "run", "--overwrite", "--unfreeze", "9")
    assert "tiny has 3 blocks" in failed.error
    assert plusx.load("run").top1 is not None
