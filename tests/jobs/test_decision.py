"""What a real training decides with: honest figures, and images of something else are unknown."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx import Run
from plusx.jobs.evaluate import evaluate
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact

COUNTS = {"train/across": 40, "train/upright": 40, "val/across": 40, "val/upright": 40,
          "test/across": 20, "test/upright": 20}  # fmt: skip


@pytest.fixture(scope="module")
def data(make_stripes: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stripes(tmp_path_factory.mktemp("deciding") / "photos", COUNTS, contrast=30)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures, two halves of a colour each: nothing like the noisy stripes."""
    folder = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(0)
    for number in range(16):
        pixels = np.empty((32, 32, 3), np.uint8)
        pixels[:16], pixels[16:] = rng.integers(0, 255, (2, 3))
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def trained(
    data: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory, quick: dict[str, Any]
) -> Run:
    out = tmp_path_factory.mktemp("decided") / "run"
    # On 40 test images the sets of seeds 0 to 4 hold the right class in 31, 31, 35, 35 and 34.
    how = quick | {"decide": "coverage=0.5", "seed": 2}
    return plusx.train(data, weights=tiny_weights, out=out, talk=Talk(quiet=True), **how)


def test_the_test_split_alone_reports_what_validation_fitted(trained: Run) -> None:
    found = trained.metrics["decision"]
    assert (found["split"], found["role"], found["n"]) == ("test", "report", 40)
    assert found["ships"] == load_artifact(trained.path).decision.to_dict() | {
        "unknown": found["ships"]["unknown"]
    }
    assert found["ships"]["unknown"]["bank"] == [80, 32]
    assert found["ships"]["temperature"] != 1
    before, after = (found["calibration"][when]["nll"]["value"] for when in ("before", "after"))
    assert after <= before + 0.02
    assert found["sets"]["coverage"]["high"] > 0.9
    assert found["unknown"]["share"]["value"] < 0.2
    assert 0.2 < found["answered"]["coverage"]["value"] < 0.8
    reported = next(e for e in trained.metrics["evaluations"] if e["split"] == "test")
    assert reported["figures"]["nll"]["value"] == pytest.approx(after, rel=1e-4)
    json.dumps(trained.metrics, allow_nan=False)


def test_other_images_are_unknown_and_its_own_are_not(
    trained: Run, data: Path, other: Path
) -> None:
    strange, known = trained.predict(other), trained.predict(data / "test")
    assert isinstance(strange, list)
    assert isinstance(known, list)
    assert np.mean([answer.unknown for answer in strange]) > 0.9
    assert np.mean([answer.unknown for answer in known]) < 0.2
    assert {answer.decision for answer in known} <= {"answer", "unsure", "unknown"}
    for answer in known:
        assert answer.set is not None
        assert set(answer.set) <= set(answer.classes)
        assert answer.sure == (
            answer.probability >= trained.metrics["decision"]["ships"]["sureness"]
        )
    always = plusx.Predictor(trained.path, decide=False).predict(other)
    assert isinstance(always, list)
    for off, on in zip(always, strange, strict=True):
        assert off.decision == "answer"
        assert off.set is off.unknown_score is None
        np.testing.assert_array_equal(off.probabilities, on.probabilities)


def test_the_command_line_says_unknown(
    trained: Run, other: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    image = next(a.path for a in trained.predict(other) if a.unknown)  # type: ignore[union-attr]
    said = command("predict", trained.path, image)
    assert said.out.startswith(f"{image}: unknown: like nothing it was trained on  (else ")
    assert "unknown" not in command("predict", trained.path, image, "--no-decide").out
    assert command("predict", trained.path, other, "--out", tmp_path / "x.csv").code == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-3:] == ["decision", "set", "unknown_score"]
    assert sum(row["decision"] == "unknown" for row in rows) > 14
    line = json.loads(command("predict", trained.path, image, "--json").out)
    assert line["decision"] == "unknown"
    assert isinstance(line["set"], list)
    assert line["unknown_score"] > trained.metrics["decision"]["ships"]["unknown"]["threshold"]
    command("predict", trained.path, other, "--no-decide", "--out", tmp_path / "y.csv")
    head = (tmp_path / "y.csv").read_text().splitlines()[0]
    assert head == "path,label,probability,label_2,probability_2"


def test_evaluate_says_what_is_answered(
    trained: Run, data: Path, command: Callable[..., Any]
) -> None:
    found = evaluate(trained.path, data, split="test", talk=Talk(quiet=True)).to_json()
    stated = trained.metrics["decision"]
    for part in ("answered", "unknown", "sets", "calibration"):
        assert found["decision"][part] == stated[part]
    shown = command("evaluate", trained.path, data, "--split", "test").out
    for words in ("answered ", "right when answered", "called unknown", "class in its set"):
        assert words in shown


@pytest.mark.parametrize("options", [{"unfreeze": 0}, {}, {"cache_gib": 0.0}],
                         ids=["probe", "cached", "streamed"])  # fmt: skip
def test_without_a_test_split_halves_of_validation_report(
    data: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any], options: dict[str, Any]
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(data, folder)
    shutil.rmtree(folder / "test")
    run = plusx.train(
        folder, weights=tiny_weights, out=tmp_path / "run", talk=Talk(quiet=True),
        **(quick | options),
    )  # fmt: skip
    found = run.metrics["decision"]
    assert (found["split"], found["role"], found["n"]) == ("val", "report", 80)
    assert "cross-fitted" in found["method"]
    assert found["unknown"]["share"]["value"] < 0.2
    before, after = (found["calibration"][when]["nll"]["value"] for when in ("before", "after"))
    assert after < before
    roles = {(e["split"], e["role"]) for e in run.metrics["evaluations"]}
    assert ("val", "report") in roles
    reported = next(
        e for e in run.metrics["evaluations"] if (e["split"], e["role"]) == ("val", "report")
    )
    assert reported["figures"]["nll"]["value"] == pytest.approx(after, rel=1e-4)
    assert "temperature" in reported["method"]
    assert run.metrics["notes"] == [] or not any("calibrated" in n for n in run.metrics["notes"])
    # The features that ship are those that the shipped network has at answer time.
    predictor = plusx.Predictor(run.path)
    bank = predictor.decision.unknown
    assert bank is not None
    mine = [answer.unknown_score for answer in predictor.predict(folder / "train")]  # type: ignore[union-attr]
    theirs = [answer.unknown_score for answer in predictor.predict(folder / "val")]  # type: ignore[union-attr]
    assert np.median(mine) < np.median(theirs)
    card = (run.model_path / "README.md").read_text(encoding="utf-8")
    assert "is called unknown" in card
    assert "has been calibrated" in card


def test_a_decision_may_be_left_out(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    run = plusx.train(
        photos, weights=tiny_weights, out=tmp_path / "run", talk=Talk(quiet=True),
        **(quick | {"unfreeze": 0, "decide": "unknown=none,sets=none"}),
    )  # fmt: skip
    assert sorted(p.name for p in run.model_path.iterdir()) == [
        "README.md", "config.json", "model.safetensors"]  # fmt: skip
    assert run.metrics["decision"]["unknown"] is run.metrics["decision"]["sets"] is None
    assert "It always answers" in (run.model_path / "README.md").read_text(encoding="utf-8")


def test_few_images_are_said(
    make_stripes: Callable[..., Path], tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    data = make_stripes(tmp_path / "few", {"train/a": 6, "train/b": 6, "val/a": 3, "val/b": 1})
    run = plusx.train(
        data, weights=tiny_weights, out=tmp_path / "run", talk=Talk(quiet=True),
        **(quick | {"unfreeze": 0, "decide": "precision=0.9"}),
    )  # fmt: skip
    notes = " ".join(run.metrics["notes"])
    for words in ("not calibrated: 4 images", "no sets of classes", "called unknown", "answered"):
        assert words in notes
    assert run.metrics["decision"] == {"ships": {}}
    assert "has not been calibrated" in (run.model_path / "README.md").read_text(encoding="utf-8")


def test_wishes_that_cannot_be_are_refused_before_training(
    photos: Path, tiny_weights: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    for wish, words in (
        ("precision=2", "share between 0 and 1"),
        ("sensitivity:x=0.9", "no class 'x'; there are: across, upright"),
    ):
        said = command("train", photos, "--weights", tiny_weights, "--decide", wish,
                       "--out", tmp_path / "run")  # fmt: skip
        assert words in said.error
    assert not (tmp_path / "run").exists()
