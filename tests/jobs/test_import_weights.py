"""Runs of weights that exist."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import plusx
from plusx.decide import Decision
from plusx.errors import UsageError, WeightsError
from plusx.jobs.import_weights import read_classes
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact, save_artifact, write_decision
from plusx.weights.load import disk_state

NAMES = tuple(f"thing {i}" for i in range(10))


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A CIFAR ResNet-8 as old training scripts left them: wrapped, each name prefixed."""
    net = plusx.create("resnet8_cifar_a", weights="none", seed=3)
    state = {f"module.{name}": value for name, value in disk_state(net).items()}
    state = {name.replace("fc.", "linear."): value for name, value in state.items()}
    path = tmp_path / "resnet8.th"
    torch.save({"state_dict": state, "best_prec1": 9.0}, path)
    return path


def bring(file: Path, out: Path, **options: Any) -> plusx.Run:
    return plusx.import_weights(
        file, out, **({"model": "resnet8_cifar_a", "talk": Talk(quiet=True)} | options)
    )


def test_an_old_file_becomes_a_run_that_predicts_and_evaluates(
    old_file: Path, make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    run = bring(old_file, tmp_path / "run", classes=NAMES)
    net = plusx.create("resnet8_cifar_a", weights="none", seed=3).eval()
    loaded = plusx.create(weights=str(run.path)).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(net(x), loaded(x))
    assert run.metrics == {}
    assert run.top1 is None
    data = make_stripes(tmp_path / "data", {"thing 1": 3, "thing 7": 2})
    answer = run.predict(data / "thing 1" / "000.png")
    assert answer.classes == NAMES  # type: ignore[union-attr]
    talk = Talk(quiet=True)
    found = run.evaluate(data, talk=talk).to_json()
    assert found["n"] == 5
    assert found["classes"] == list(NAMES)
    assert any(
        "8 of the model's classes are absent from the data: thing 0" in n for n in talk.notes
    )


def test_classes_without_names_are_numbered_and_said(old_file: Path, tmp_path: Path) -> None:
    talk = Talk(quiet=True)
    run = bring(old_file, tmp_path / "run", talk=talk)
    config = json.loads((run.model_path / "config.json").read_text())
    assert config["label_names"] == [f"class_{i}" for i in range(10)]
    assert any("class_0 to class_9" in note for note in talk.notes)


@pytest.mark.parametrize(
    ("name", "text", "suffix"),
    [
        ("names.txt", "\ufeff" + "\n".join(NAMES) + "\n\n", ""),
        ("names.json", json.dumps(NAMES), ""),
        ("names.tsv", "".join(f"n{i}\t{name}\tx\n" for i, name in enumerate(NAMES)), ":2"),
        ("names.csv", "".join(f'"{name}",n{i}\n' for i, name in enumerate(NAMES)), ":1"),
    ],
)
def test_names_from_a_file(
    old_file: Path, tmp_path: Path, name: str, text: str, suffix: str
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    run = bring(old_file, tmp_path / "run", classes=f"{file}{suffix}")
    config = json.loads((run.model_path / "config.json").read_text())
    assert tuple(config["label_names"]) == NAMES


def test_the_wrong_number_of_names_leaves_nothing(old_file: Path, tmp_path: Path) -> None:
    for names in (NAMES[:9], (*NAMES[:9], NAMES[0])):
        with pytest.raises(UsageError, match=r"\(9 different\), but file:resnet8\.th has 10"):
            bring(old_file, tmp_path / "run", classes=names)
    for names in ((*NAMES[:9], " "), range(10)):
        with pytest.raises(UsageError, match="--classes: every name must be text and not empty"):
            bring(old_file, tmp_path / "run", classes=names)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("names.json", '{"0": "cat"}', "must be a JSON list of names"),
        ("names.json", "[", "is no list of names"),
        ("names.csv:3", "a,b\nc,d\n", "has no column 3 in every row"),
        ("names.csv:0", "a,b\nc,d\n", "columns are counted from 1"),
        ("absent.txt", None, "cannot be read"),
    ],
)
def test_a_file_that_names_nothing(tmp_path: Path, name: str, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / name.partition(":")[0]).write_text(text)
    with pytest.raises(UsageError, match="--classes ") as refused:
        read_classes(tmp_path / name)
    assert said in str(refused.value)


def test_weights_that_do_not_fit_or_are_none(old_file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="look like resnet8_cifar_a"):
        bring(old_file, tmp_path / "run", model="resnet14_cifar_a")
    for word in ("auto", "bundled", "none"):
        with pytest.raises(UsageError, match=f"weights '{word}'"):
            plusx.import_weights(word, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_folder_needs_neither_model_nor_names(tiny_weights: Path, tmp_path: Path) -> None:
    run = plusx.import_weights(tiny_weights, tmp_path / "run", talk=Talk(quiet=True))
    config = json.loads((run.model_path / "config.json").read_text())
    assert config["label_names"] == list("vwxyz")
    with pytest.raises(UsageError, match="exists already"):
        plusx.import_weights(tiny_weights, tmp_path / "run", talk=Talk(quiet=True))


@pytest.fixture
def contrasted(tmp_path: Path) -> Path:
    """A backbone as MoCo leaves it: prefixed, with a projection and a queue, no classifier."""
    net = plusx.create("resnet18", weights="none", seed=3)
    state = {f"module.encoder_q.{k}": v for k, v in disk_state(net).items() if k[:3] != "fc."}
    state |= {"module.queue": torch.ones(2, 2), "module.encoder_q.fc.0.weight": torch.ones(2, 512)}
    path = tmp_path / "moco.pth.tar"
    torch.save({"state_dict": state, "epoch": 200}, path)
    return path


def test_a_backbone_alone_gets_a_head_for_the_names_given(contrasted: Path, tmp_path: Path) -> None:
    talk = Talk(quiet=True)
    run = plusx.import_weights(contrasted, tmp_path / "run", classes=["a", "b"], talk=talk)
    assert "left out 2 entries" in " ".join(talk.notes)
    assert "holds no head" in " ".join(talk.notes)
    loaded = load_artifact(run.path)
    assert (loaded.spec.name, loaded.classes) == ("resnet18", ("a", "b"))
    assert loaded.provenance["head"] == "fresh, not trained"
    want = plusx.create("resnet18", weights="none", seed=3).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(want.features(x), loaded.model.features(x))
    again = plusx.import_weights(
        contrasted, tmp_path / "again", classes=["a", "b"], talk=Talk(quiet=True)
    )
    assert (run.model_path / "model.safetensors").read_bytes() == (
        again.model_path / "model.safetensors"
    ).read_bytes()


def test_the_command_takes_what_a_file_leaves_open(
    command: Callable[..., Any], contrasted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    said = command("import", contrasted, "--layout", "moco", "--pixels", "imagenet", "--out", out)
    assert said.code == 0, said.err
    assert load_artifact(out).spec.name == "resnet18"
    for option, value in (("layout", "moko"), ("stride", "2x2"), ("pixels", "bgr")):
        said = command("import", contrasted, f"--{option}", value, "--out", tmp_path / "other")
        assert f"--{option} {value!r} is not one of" in said.error
    wrong = command("import", contrasted, "--model", "resnet34", "--out", tmp_path / "other")
    assert "these look like" in wrong.error
    assert not (tmp_path / "other").exists()


def test_a_model_folder_keeps_how_it_decides(
    finished: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    """Temperature, sets, unknown images: the same answers; other names leave them behind, said."""
    wanted = load_artifact(finished.path)
    assert wanted.decision.unknown is not None
    run = plusx.import_weights(finished.path, tmp_path / "run", talk=Talk(quiet=True))
    found = load_artifact(run.path)
    assert found.decision == wanted.decision
    assert found.decision.unknown is not None
    image = photos / "val" / "across" / "003.png"
    ours, theirs = finished.predict(image), run.predict(image)
    assert (ours.decision, ours.set) == (theirs.decision, theirs.set)  # type: ignore[union-attr]
    assert ours.unknown_score == theirs.unknown_score  # type: ignore[union-attr]
    talk = Talk(quiet=True)
    other = plusx.import_weights(finished.path, tmp_path / "other", classes=("x", "y"), talk=talk)
    assert load_artifact(other.path).decision.temperature == 1.0
    assert any("are left behind, for --classes gives other names" in note for note in talk.notes)
    file = plusx.import_weights(
        finished.model_path / "model.safetensors", tmp_path / "file", talk=Talk(quiet=True)
    )
    assert load_artifact(file.path).decision == wanted.decision


def test_a_model_of_several_labels_stays_one(tiny_weights: Path, tmp_path: Path) -> None:
    source = load_artifact(tiny_weights)
    save_artifact(
        tmp_path / "multi",
        source.model,
        classes=source.classes,
        preprocessing=source.preprocessing,
        task="multi",
        provenance={},
        card="",
    )
    decision = Decision(thresholds=(0.1, 0.2, 0.3, 0.4, 0.5))
    write_decision(tmp_path / "multi", decision)
    run = plusx.import_weights(tmp_path / "multi", tmp_path / "run", talk=Talk(quiet=True))
    found = load_artifact(run.path)
    assert (found.task, found.decision) == ("multi", decision)
