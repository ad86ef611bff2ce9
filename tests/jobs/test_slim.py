from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import plusx
from plusx import Run
from plusx.errors import DataError, UsageError
from plusx.jobs.slim_speed import BATCHES
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact, save_artifact

DEEP = {"name": "deep", "block": "basic", "depths": [2, 3, 2], "widths": [8, 16, 32],
        "stem": "3x3", "stem_width": 8, "stem_stride": 1, "stem_pool": "none",
        "image_size": 32, "classes": 2}  # fmt: skip
"""Blocks 0 or 1, 3, 4 and 6 can go: of the first stage either."""

QUICK: dict[str, Any] = {"device": "cpu", "precision": "float32", "threads": 2, "batch_size": 16,
                         "epochs": 2, "lr": 1e-3}  # fmt: skip


@pytest.fixture(scope="module")
def data(make_stripes: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {f"{split}/{name}": n for split, n in (("train", 40), ("val", 16), ("test", 20))
              for name in ("across", "upright")}  # fmt: skip
    return make_stripes(tmp_path_factory.mktemp("slim") / "data", counts)


@pytest.fixture(scope="module")
def parent(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A net that learned the stripes; its blocks 3 and 6 do nothing, so that they can go."""
    from plusx.data import Preprocessing
    from plusx.model import ResNet, ResNetSpec

    folder = tmp_path_factory.mktemp("parent")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = ResNet(ResNetSpec.from_dict(DEEP))
    spare = [net.stages[1][1], net.stages[2][1]]
    for block in spare:
        torch.nn.init.zeros_(block.residual.norm2.weight)
        torch.nn.init.zeros_(block.residual.norm2.bias)
    save_artifact(folder / "start", net, classes=["across", "upright"],
                  preprocessing=Preprocessing.for_size(32), provenance={}, card="")  # fmt: skip
    run = plusx.train(data, weights=folder / "start", out=folder / "run", unfreeze="all", epochs=8,
                      lr=4e-3, batch_size=16, device="cpu", precision="float32", threads=2,
                      patience=0, talk=Talk(quiet=True))  # fmt: skip
    assert run.top1 is not None
    assert run.top1 > 0.9
    return run


@pytest.fixture(scope="module")
def slimmed(parent: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("slimmed") / "small"
    return plusx.slim(parent.path, out=out, max_drop=20, curve=True, compare_random=4,
                      talk=Talk(quiet=True), **QUICK)  # fmt: skip


def test_it_hands_back_an_ordinary_smaller_run(slimmed: Any, parent: Run, data: Path) -> None:
    found = slimmed.found
    assert found["shipped"], slimmed.finding
    small, whole = (load_artifact(run.path) for run in (slimmed.run, parent))
    gone = found["removed"]
    assert small.spec.blocks == whole.spec.blocks - len(gone)
    assert small.provenance["parent_sha256"] == whole.sha256
    assert small.provenance["dropped_blocks"] == gone
    assert small.classes == whole.classes
    assert small.decision.sets is not None
    result = slimmed.run.evaluate(data, split="test", device="cpu")
    top1 = float((result.predictions.predicted == result.predictions.targets).mean())
    assert top1 == found["report"]["top1_child"] == slimmed.run.top1
    for name in ("slim.json", "curve.csv", "blocks.csv", "curve.svg", "curve.png", "slim.log",
                 "report.html", "metrics.json", "config.toml", "model/README.md"):  # fmt: skip
        assert (slimmed.run.path / name).stat().st_size > 0, name
    card = (slimmed.run.path / "model" / "README.md").read_text()
    assert "parent" in card
    assert "dropped" in card


def test_the_whole_curve_stands_in_the_folder(slimmed: Any) -> None:
    kept = json.loads((slimmed.run.path / "slim.json").read_text())
    assert [row["removed"] for row in kept["curve"]] == list(range(len(kept["curve"])))
    assert kept["settings"]["rule"].startswith("the largest number")
    for row in kept["curve"][1:]:
        assert row["after_top1"] is not None
        assert row["change_low"] <= row["change"] <= row["change_high"]
    largest = max(row["removed"] for row in kept["curve"][1:] if row["fits"])
    assert largest == len(kept["removed"])
    with (slimmed.run.path / "curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(kept["curve"])


def test_images_that_chose_do_not_report(slimmed: Any, data: Path) -> None:
    report = slimmed.found["report"]
    assert (report["split"], report["role"], report["n"]) == ("test", "report", 40)
    about = {(e["split"], e["role"]) for e in slimmed.run.metrics["evaluations"]}
    assert about == {("test", "report"), ("val", "selection")}
    assert slimmed.run.metrics["headline"]["split"] == "test"


def test_each_timing_states_its_turns_and_spread(slimmed: Any) -> None:
    for one in slimmed.found["speed"]:
        assert one["turns"] == BATCHES[one["batch"]]
        assert one["low"] <= one["ratio"] <= one["high"]
        low, middle, high = one["child_ms"]
        assert 0 < low <= middle <= high


def test_ranking_is_judged_beside_random_choices(slimmed: Any) -> None:
    random = slimmed.found["random"]
    assert len(random["random"]) == 4
    assert random["role"] == "report"
    for one in (random["ranked"], *random["random"]):
        assert len(one["blocks"]) == random["removed"]


def test_a_slimmed_run_cannot_be_resumed(slimmed: Any) -> None:
    with pytest.raises(UsageError, match="is no training run"):
        plusx.resume(slimmed.run.path)


def test_without_a_test_split_validation_is_halved(parent: Run, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(data / split, place / split)
    made = plusx.slim(parent.path, place, out=tmp_path / "small", blocks=3, max_drop=100,
                      talk=Talk(quiet=True), **QUICK)  # fmt: skip
    told = made.found["settings"]
    assert (told["choosing_images"], told["reporting_images"]) == (16, 16)
    assert "half of validation" in told["reporting"]
    assert made.run is not None
    assert made.found["report"]["n"] == 16
    headline = made.run.metrics["headline"]
    assert (headline["split"], headline["role"], headline["n"]) == ("val", "report", 16)
    again = plusx.slim(made.run.path, out=tmp_path / "smaller", max_drop=100,
                       talk=Talk(quiet=True), **QUICK)  # fmt: skip
    assert again.found["settings"]["parent_sha256"] == load_artifact(made.run.path).sha256
    assert len(again.found["curve"]) == 2  # none and one


def test_nothing_is_shipped_where_too_much_is_lost(
    parent: Run, tmp_path: Path, command: Callable[..., Any]
) -> None:
    before = {p.name: p.read_bytes() for p in parent.model_path.iterdir()}
    said = command("slim", parent.path, "--out", tmp_path / "small", "--max-drop", "0",
                   "--blocks", "4", "--epochs", "1", "--lr", "1e-9", "--device", "cpu",
                   "--precision", "float32", "--json")  # fmt: skip
    found = json.loads(said.out)
    assert said.code == 1
    assert not found["shipped"]
    assert found["run"] is None
    assert found["finding"].startswith("Nothing is shipped: without 4 blocks the tuned network")
    assert not list(tmp_path.iterdir())
    assert before == {p.name: p.read_bytes() for p in parent.model_path.iterdir()}


def test_a_stop_half_way_leaves_nothing(
    parent: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    out.mkdir()
    (out / "config.toml").write_text('[versions]\nplusx = "0"\n')

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("plusx.jobs.slim_run.write_report", stop)
    with pytest.raises(KeyboardInterrupt):
        plusx.slim(parent.path, out=out, overwrite=True, blocks=4, max_drop=100,
                   talk=Talk(quiet=True), **QUICK)  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    assert {p.name for p in out.iterdir()} == {"config.toml", ".lock"}


def test_what_cannot_be_slimmed_is_refused(
    parent: Run, data: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    for name in ("cnn", "resnet14_cifar_a"):
        net = plusx.create(name, classes=2, weights="none")
        net = plusx.surgery.plain_twin(net) if name != "cnn" else net
        save_artifact(tmp_path / name, net, classes=["across", "upright"], provenance={}, card="",
                      preprocessing=load_artifact(parent.path).preprocessing)  # fmt: skip
        assert "has no block that can go" in command("slim", tmp_path / name, data).error
    with pytest.raises(UsageError, match=r"--blocks 5: of deep 4 can go"):
        plusx.slim(parent.path, blocks=5, out=tmp_path / "out", talk=Talk(quiet=True), **QUICK)
    bare = tmp_path / "bare"
    shutil.copytree(parent.model_path, bare)
    assert "give DATA" in command("slim", bare).error
    moved = tmp_path / "moved"
    shutil.copytree(parent.path, moved)
    text = (moved / "config.toml").read_text()
    (moved / "config.toml").write_text(text.replace(str(data), str(tmp_path / "gone")))
    assert "are gone; give DATA" in command("slim", moved).error
    other = tmp_path / "other"
    shutil.copytree(data, other)
    for split in ("train", "val", "test"):
        (other / split / "across").rename(other / split / "athwart")
    with pytest.raises(DataError, match=r"athwart.*give images of the model's classes"):
        plusx.slim(parent.path, other, talk=Talk(quiet=True), **QUICK)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("max_drop", -1, "--max-drop -1 must be a number of at least 0"),
        ("max_drop", "half", "--max-drop 'half' must be a number"),
        ("max_drop", float("nan"), "--max-drop nan must be a number"),
        ("blocks", 0, "--blocks 0 must be a whole number of at least 1"),
        ("epochs", 1.5, "--epochs 1.5 must be a whole number"),
        ("colour", 1, "unknown option colour"),
    ],
)
def test_impossible_options_are_refused(parent: Run, option: str, value: object, said: str) -> None:
    with pytest.raises(UsageError) as error:
        plusx.slim(parent.path, **{option: value})
    assert str(error.value).startswith(said)


def test_the_page_names_every_option(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = command("slim", "--help").out
    options = set(re.findall(r"^\s+(--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
    assert "--max-drop" in options
    page = (Path(__file__).parents[2] / "docs" / "slim.md").read_text(encoding="utf-8")
    assert not {option for option in options if f"`{option}" not in page}
