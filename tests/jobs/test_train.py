"""What a training leaves behind, and what it may and may not change."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import plusx
from plusx import Predictions, Run
from plusx.jobs.run import read_config
from plusx.jobs.talk import Talk
from plusx.runtime import processor

Option = Any
FROZEN = {1: ("conv1.", "bn1.", "layer1.", "layer2."), 2: ("conv1.", "bn1.", "layer1.")}


@pytest.fixture
def train(photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]) -> Option:
    """Trains as ``finished`` was trained but for the options given."""
    count = 0

    def call(data: Path = photos, **options: Option) -> Run:
        nonlocal count
        count += 1
        usual = quick | {"weights": tiny_weights, "out": tmp_path / f"run{count}"}
        return plusx.train(data, talk=Talk(quiet=True), **(usual | options))

    return call


def weights(run: Run | Path) -> dict[str, Any]:
    return load_file((run.model_path if isinstance(run, Run) else run) / "model.safetensors")


def changed(run: Run, before: Path) -> set[str]:
    old, new = weights(before), weights(run)
    assert set(old) == set(new)
    return {name for name in old if not old[name].equal(new[name])}


def entries(run: Run, role: str) -> dict[str, Any]:
    found = [entry for entry in run.metrics["evaluations"] if entry["role"] == role]
    assert len({entry["split"] for entry in found}) == len(found)
    return {entry["split"]: entry for entry in found}


def history(run: Run) -> list[dict[str, str]]:
    with (run.path / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


# Frozen is frozen


@pytest.mark.parametrize("cache", ["cached", "streamed"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_frozen_is_frozen_to_the_bit(
    train: Option, tiny_weights: Path, blocks: int, cache: str
) -> None:
    run = train(unfreeze=blocks, norm="train", cache_gib=1.0 if cache == "cached" else 0.0)
    assert run.metrics["chosen"]["name"].startswith("epoch")
    assert read_config(run.path / "config.toml")["cache"]["views"] == (
        2 if cache == "cached" else 0
    )
    found = changed(run, tiny_weights)
    assert not [name for name in found if name.startswith(FROZEN[blocks])]
    rest = {name for name in weights(tiny_weights) if not name.startswith(FROZEN[blocks])}
    assert found == rest


def test_a_probe_changes_the_head_alone(train: Option, tiny_weights: Path) -> None:
    run = train(unfreeze=0)
    assert changed(run, tiny_weights) == {"fc.weight", "fc.bias"}
    assert not (run.path / "history.csv").exists()
    assert not (run.path / "tensorboard").exists()
    assert run.metrics["chosen"]["name"] == "probe"


def test_unfreeze_all_changes_everything(train: Option, tiny_weights: Path) -> None:
    run = train(unfreeze="all", norm="train")
    assert run.metrics["chosen"]["name"].startswith("epoch")
    assert changed(run, tiny_weights) == set(weights(tiny_weights))


@pytest.mark.parametrize(
    ("options", "keeps", "said"),
    [
        ({}, True, None),
        ({"batch_size": 8}, True, "8 images a step are too few for BatchNorm"),
        ({"batch_size": 8, "norm": "train"}, False, "statistics from 8 images a step are noise"),
        ({"unfreeze": "all"}, False, None),
        ({"unfreeze": "all", "norm": "eval"}, True, None),
    ],
)
def test_who_may_change_batchnorm_statistics(
    train: Option, tiny_weights: Path, options: dict[str, Any], keeps: bool, said: str | None
) -> None:
    run = train(**options)
    found = changed(run, tiny_weights)
    assert any(not is_statistic(name) for name in found if ".bn" in name)
    assert (not any(map(is_statistic, found))) == keeps
    notes = [note for note in run.metrics["notes"] if "BatchNorm" in note]
    assert bool(notes) == (said is not None)
    if said:
        assert said in notes[0]


# Which candidate ships


def test_a_fine_tuning_that_wins_ships(finished: Run, tiny_weights: Path) -> None:
    name = finished.metrics["chosen"]["name"]
    assert name.startswith("epoch")
    rows = history(finished)
    best = max(rows, key=lambda row: (float(row["val_top1"]), -float(row["val_nll"])))
    assert name == f"epoch {best['epoch']}"
    shipped = entries(finished, "selection")["val"]
    assert shipped["figures"]["top1"]["value"] == float(best["val_top1"])


def test_a_fine_tuning_that_loses_leaves_the_probe(train: Option, tiny_weights: Path) -> None:
    lost = train(lr=0.03, epochs=2)
    probe = train(unfreeze=0)
    assert lost.metrics["chosen"]["name"] == "probe"
    assert "fine-tuning did not beat" in lost.metrics["chosen"]["text"]
    assert changed(lost, probe.model_path) == set()
    assert len((lost.path / "history.csv").read_text().splitlines()) == 4


def test_random_labels_do_not_ship_on_the_strength_of_the_images_that_chose(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    counts = {"train/bad": 30, "train/good": 30, "val/bad": 20, "val/good": 20}
    run = train(make_stripes(tmp_path / "noise", counts))
    figure = entries(run, "report")["val"]["figures"]["top1"]
    assert figure["low"] <= 0.5 <= figure["high"]


# Honest figures


def test_without_a_test_split_validation_selects_and_is_cross_fitted(
    finished: Run, photos: Path
) -> None:
    assert set(entries(finished, "selection")) == {"val"}
    report = entries(finished, "report")
    assert set(report) == {"val", "train+val"}
    file = finished.path / report["val"]["predictions"]
    crossed = Predictions.load(file)
    files = sorted(map(str, (photos / "val").rglob("*.png")))
    assert sorted(crossed.paths) == files
    for path, target in zip(crossed.paths, crossed.targets, strict=True):
        assert Path(path).parent.name == crossed.classes[target]
    top1 = float((crossed.predicted == crossed.targets).mean())
    assert report["val"]["figures"]["top1"]["value"] == pytest.approx(top1)
    assert finished.metrics["headline"]["split"] == "val"
    assert finished.top1 == finished.metrics["headline"]["value"]


def test_a_test_split_alone_reports_on_what_ships(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    counts = {f"{split}/{name}": n for split, n in (("train", 20), ("val", 8), ("test", 6))
              for name in ("across", "upright")}  # fmt: skip
    data = make_stripes(tmp_path / "three", counts)
    run = train(data, epochs=2)
    assert set(entries(run, "selection")) == {"val"}
    report = entries(run, "report")
    assert set(report) == {"test", "train+val"}  # the latter is the probe's cross-validation
    assert "probe" in report["train+val"]["method"]
    assert report["test"]["n"] == 12
    assert run.metrics["headline"]["split"] == "test"
    scored = Predictions.load(run.path / report["test"]["predictions"])
    assert sorted(scored.paths) == sorted(map(str, (data / "test").rglob("*.png")))
    assert run.metrics["counts"]["test"] == {"across": 6, "upright": 6}


def test_a_probe_reports_on_validation_which_chose_nothing(train: Option) -> None:
    run = train(unfreeze=0)
    assert not entries(run, "selection")
    assert set(entries(run, "report")) == {"val", "train+val"}
    assert run.metrics["headline"]["split"] == "train+val"
    assert run.metrics["headline"]["n"] == 96


def test_figures_come_from_the_artifact_and_the_files(finished: Run, photos: Path) -> None:
    again = finished.evaluate(photos, split="val", talk=Talk(quiet=True)).to_json()
    first = entries(finished, "selection")["val"]
    assert again["figures"] == first["figures"]
    assert again["confusion"] == first["confusion"]


def test_out_of_fold_every_image_is_judged_once(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    counts = {f"{split}/{name}": n for split, n in (("train", 12), ("val", 6), ("test", 4))
              for name in ("across", "upright")}  # fmt: skip
    data = make_stripes(tmp_path / "three", counts)
    run = train(data, folds=3, epochs=2, views=1)
    entry = entries(run, "report")["out of fold"]
    assert len(entry["top1_by_fold"]) == 3
    judged = Predictions.load(run.path / entry["predictions"])
    wanted = [str(p) for split in ("train", "val") for p in (data / split).rglob("*.png")]
    assert sorted(judged.paths) == sorted(wanted)
    assert run.metrics["headline"]["split"] == "test"
    assert len(list((run.path / "folds").glob("*/history.csv"))) == 3
    assert not list((run.path / "folds").rglob("*.safetensors"))
    assert not list((run.path / "folds").rglob("*.pt"))


# The same again


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(
    train: Option, finished: Run
) -> None:
    assert changed(train(), finished.model_path) == set()
    assert changed(train(threads=1), finished.model_path) == set()
    assert changed(train(seed=1), finished.model_path)


def test_a_folder_without_splits_is_split_the_same_each_time(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    data = make_stripes(tmp_path / "flat", {"across": 30, "upright": 20})
    runs = [train(data, unfreeze=0), train(data, unfreeze=0), train(data, unfreeze=0, seed=1)]
    parts = [Predictions.load(run.path / "predictions" / "val.npz").paths for run in runs]
    assert parts[0] == parts[1] != parts[2]
    assert runs[0].metrics["counts"] == {
        "train": {"across": 24, "upright": 16},
        "val": {"across": 6, "upright": 4},
    }
    assert any("no validation split" in note for note in runs[0].metrics["notes"])


# The run folder


def test_the_run_folder_is_complete(finished: Run) -> None:
    for name in ("config.toml", "history.csv", "metrics.json", "train.log", "report.html",
                 "model/model.safetensors", "model/config.json", "model/README.md"):  # fmt: skip
        assert (finished.path / name).stat().st_size > 0, name
    assert list((finished.path / "tensorboard").glob("events.*"))
    assert not list(finished.path.rglob("*.tmp"))
    assert not (finished.path / "cache").exists()
    assert not (finished.path / "work").exists()
    log = (finished.path / "train.log").read_text(encoding="utf-8")
    assert "head for 5 classes replaced" in log
    assert "fine-tuning: " in log


def test_config_holds_every_effective_value(
    finished: Run, photos: Path, quick: dict[str, Any]
) -> None:
    config = read_config(finished.path / "config.toml")
    assert config["asked"]["data"] == str(photos)
    for name in ("epochs", "lr", "label_smoothing"):
        assert config["recipe"][name] == quick[name]
    assert config["recipe"]["norm"] == "eval"
    assert config["recipe"]["patience"] == 0
    assert config["hardware"] == {
        "device": "cpu", "precision": "float32", "threads": 2,
        "compile": False, "torch_threads": torch.get_num_threads(), "processes": 1,
        "processor": processor(),
    }  # fmt: skip
    assert config["network"]["trainable_blocks"] == 2
    assert config["network"]["depths"] == [1, 1, 1]
    assert config["data"]["classes"] == ["across", "upright"]
    assert (config["data"]["train_images"], config["data"]["val_images"]) == (64, 32)
    assert config["preprocessing"]["size"] == 32
    assert config["augmentation"]["hflip"] == 0.5
    assert config["cache"]["views"] == 2
    assert config["versions"]["plusx"] == plusx.__version__


def test_metrics_follow_their_schema(finished: Run) -> None:
    def refuse(text: str) -> None:
        pytest.fail(f"{text} in metrics.json")

    text = (finished.path / "metrics.json").read_text(encoding="utf-8")
    metrics = json.loads(text, parse_constant=refuse)
    assert metrics["schema_version"] == 1
    assert metrics["bad_images"] == []
    assert {"probe", "fine-tuning", "scoring val"} <= set(metrics["seconds"])
    for entry in metrics["evaluations"]:
        assert entry["split"] in ("val", "train+val")
        assert entry["role"] in ("selection", "report")
        assert entry["method"]
        assert entry["n"] > 0
        figures = [f for f in entry["figures"].values() if f is not None]
        for one in entry.get("per_class", []):
            figures += [one[k] for k in ("precision", "recall", "f1") if one[k] is not None]
        assert figures
        for figure in figures:
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert all(math.isfinite(figure[key]) for key in ("value", "low", "high"))
    headline = metrics["headline"]
    assert {"figure", "value", "low", "high", "split", "role", "method", "n"} <= set(headline)
    assert headline["role"] == "report"


# Other ways to train


def test_from_scratch(make_stripes: Callable[..., Path], train: Option, tmp_path: Path) -> None:
    spec = tmp_path / "small.json"
    fields = {"block": "basic", "depths": [1, 1, 1], "widths": [8, 8, 8], "stem": "3x3",
              "stem_width": 8, "stem_stride": 1, "stem_pool": "none", "image_size": 32}  # fmt: skip
    spec.write_text(json.dumps(fields))
    run = train(weights="none", model=spec, epochs=6, lr=5e-3)
    assert run.metrics["chosen"]["name"].startswith("epoch")
    assert set(entries(run, "report")) == {"val"}
    assert entries(run, "report")["val"]["figures"]["top1"]["value"] > 0.8
    config = read_config(run.path / "config.toml")
    assert config["network"]["weights"] == "random"
    assert config["network"]["trainable_blocks"] == "all"


def test_random_weights_that_no_epoch_beats_are_said(train: Option) -> None:
    run = train(weights="none", model="resnet8_cifar_a", epochs=1, lr=1e-30, norm="eval")
    assert run.metrics["chosen"]["name"] == "epoch 0"
    said = (run.path / "train.log").read_text(encoding="utf-8")
    assert "no epoch was better than the random weights" in said


@pytest.mark.parametrize("model", ["resnet8_cifar_a", "plain_resnet8_cifar_a", "resnet8_cifar_c"])
def test_cifar_nets_and_their_plain_twins_train(train: Option, model: str) -> None:
    run = train(weights="none", model=model, epochs=1)
    config = json.loads((run.model_path / "config.json").read_text())
    assert config["architecture"].startswith("plusx_")
    rows = history(run)
    assert float(rows[1]["train_loss"]) > 0


def test_grey_input_is_adapted_and_said(train: Option, photos: Path) -> None:
    run = train(channels=1, epochs=2)
    assert any("3 channels summed for 1" in note for note in run.metrics["notes"])
    assert weights(run)["conv1.weight"].shape[1] == 1
    assert run.predict(photos / "val" / "across" / "000.png") is not None


def test_image_size_is_what_the_network_sees(train: Option) -> None:
    run = train(image_size=24, unfreeze=0)
    preprocessing = json.loads((run.model_path / "config.json").read_text())["plusx"]
    assert preprocessing["preprocessing"]["size"] == 24


def test_uneven_classes_are_weighted_and_said(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    data = make_stripes(tmp_path / "uneven", {"across": 40, "upright": 12}, contrast=8)
    weighted = train(data, unfreeze=0)
    assert any("3.2 times the images" in note for note in weighted.metrics["notes"])
    plain = train(data, unfreeze=0, class_weights="none")
    assert not any("times the images" in note for note in plain.metrics["notes"])
    assert changed(weighted, plain.model_path) == {"fc.weight", "fc.bias"}


def test_a_csv_with_groups(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    make_stripes(tmp_path / "pool", {"across": 20, "upright": 20})
    rows = ["path,label,group"]
    for name in ("across", "upright"):
        rows += [f"pool/{name}/{i:03}.png,{name},{name[0]}{i // 4}" for i in range(20)]
    listing = tmp_path / "list.csv"
    listing.write_text("\n".join(rows) + "\n")
    run = train(listing, epochs=2)
    val = Predictions.load(run.path / "predictions" / "val.npz")
    assert val.groups is not None
    sizes = {group: val.groups.count(group) for group in val.groups}
    assert set(sizes.values()) == {4}  # whole groups
    crossed = Predictions.load(run.path / "predictions" / "val-cross-fitted.npz")
    assert sorted(crossed.paths) == sorted(val.paths)


def test_two_images_a_class_are_enough(
    make_stripes: Callable[..., Path], train: Option, tmp_path: Path
) -> None:
    data = make_stripes(tmp_path / "few", {"across": 2, "upright": 2})
    run = train(data, epochs=1)
    assert any("no figure of the choice itself" in note for note in run.metrics["notes"])
    assert run.metrics["counts"]["val"] == {"across": 1, "upright": 1}
    assert np.isfinite(entries(run, "selection")["val"]["figures"]["top1"]["value"])
