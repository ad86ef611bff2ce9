"""Several labels an image, from the manifest to the report, on a network that trains in seconds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx import Predictions, Run
from plusx.jobs.run import read_config
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact


def composed(folder: Path, count: int = 160, *, seed: int = 0) -> list[tuple[str, bool, bool]]:
    """Noisy 32x32 pictures with stripes across, upright, both or neither: two independent classes;
    (name, across, upright) of each."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    made = []
    for number in range(count):
        across, upright = (bool(rng.random() < share) for share in (0.5, 0.35))
        pixels = rng.integers(60, 196, (32, 32, 3)).astype(float)
        wave = (((np.arange(32) + rng.integers(8)) // 4 % 2) * 2 - 1) * 45.0
        pixels += across * wave[:, None, None] + upright * wave[None, :, None]
        name = f"{number:03}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        made.append((name, across, upright))
    return made


def as_list(across: bool, upright: bool) -> str:
    return ";".join(["across"] * across + ["upright"] * upright)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``list.csv`` with labels as a list, ``columns.csv`` with a column for each class."""
    root = tmp_path_factory.mktemp("multi")
    made = composed(root / "pictures")
    rows = [f"pictures/{name},{as_list(a, u)}\n" for name, a, u in made]
    (root / "list.csv").write_text("path,label\n" + "".join(rows))
    rows = [f"pictures/{name},{a:d},{u:d}\n" for name, a, u in made]
    (root / "columns.csv").write_text("path,across,upright\n" + "".join(rows))
    new = [f"new/{name},{as_list(a, u)}\n" for name, a, u in composed(root / "new", 60, seed=1)]
    (root / "new.csv").write_text("path,label\n" + "".join(new))
    return root


@pytest.fixture(scope="module")
def trained(
    listed: Path,
    tiny_weights: Path,
    quick: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    out = tmp_path_factory.mktemp("multi-run") / "run"
    return plusx.train(listed / "list.csv", weights=tiny_weights, out=out, **quick)


def by_role(run: Run, role: str) -> dict[str, Any]:
    return {e["split"]: e for e in run.metrics["evaluations"] if e["role"] == role}


def test_it_learns_both_classes(trained: Run, listed: Path) -> None:
    headline = trained.metrics["headline"]
    assert headline["figure"] == "mean_average_precision"
    assert trained.top1 is None
    result = trained.evaluate(listed / "new.csv")
    chance = result.predictions.targets.mean()
    assert chance < 0.5
    assert result.evaluation.figure("mean_average_precision").low > chance + 0.2
    assert result.evaluation.figure("macro_f1").value > 0.7
    found = result.to_json()
    assert [one["class"] for one in found["per_class"]] == ["across", "upright"]
    assert found["confusion"] is None


def test_what_is_written_down(trained: Run) -> None:
    artifact = load_artifact(trained.path)
    assert artifact.task == "multi"
    assert artifact.decision.thresholds is not None
    assert trained.metrics["thresholds"] == dict(
        zip(artifact.classes, artifact.decision.thresholds, strict=True)
    )
    assert read_config(trained.path / "config.toml")["data"]["task"] == "multi"
    with (trained.path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["val_map"] and not row["val_top1"] for row in rows)
    assert all(sum(n.values()) > 0 for n in trained.metrics["counts"].values())
    page = trained.report_path.read_text(encoding="utf-8")
    assert "Mean average precision" in page
    assert "average precision</th>" in page
    assert "labelled <strong>" in page
    card = (trained.model_path / "README.md").read_text(encoding="utf-8")
    assert "which it has, any number or none" in card


def test_thresholds_report_on_images_that_did_not_set_them(trained: Run) -> None:
    selected, reported = by_role(trained, "selection"), by_role(trained, "report")
    assert set(reported) == {"val", "train+val"}
    kept = Predictions.load(trained.path / selected["val"]["predictions"])
    thresholds = np.array(load_artifact(trained.path).decision.thresholds)
    np.testing.assert_array_equal(kept.marks, kept.probabilities.astype(float) >= thresholds)
    crossed = Predictions.load(trained.path / reported["val"]["predictions"])
    assert sorted(crossed.paths) == sorted(kept.paths)
    assert "thresholds too" in reported["val"]["method"]


def test_the_columns_say_the_same_as_the_list(
    trained: Run, listed: Path, tiny_weights: Path, quick: dict[str, Any], tmp_path: Path
) -> None:
    run = plusx.train(
        listed / "columns.csv", weights=tiny_weights, out=tmp_path / "run", talk=Talk(quiet=True),
        **quick,
    )  # fmt: skip
    drop = ("seconds", "evaluations")
    one, other = ({k: v for k, v in r.metrics.items() if k not in drop} for r in (run, trained))
    assert one == other


def test_predict(trained: Run, listed: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    out = tmp_path / "new.csv"
    assert command("predict", trained.path, listed / "new", "--out", out).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "labels", "probability_across", "probability_upright"]
    assert len(rows) == 60
    assert {row["labels"] for row in rows} <= {"", "across", "upright", "across;upright"}
    answer = trained.predict(rows[0]["path"])
    assert not isinstance(answer, list)
    assert ";".join(answer.labels) == rows[0]["labels"]
    assert answer.task == "multi"
    assert repr(answer).endswith(f"{list(answer.labels)!r})")
    said = command("predict", trained.path, rows[0]["path"], "--json")
    line = json.loads(said.out)
    assert line["labels"] == list(answer.labels)
    assert set(line["probabilities"]) == {"across", "upright"}
    shown = command("predict", trained.path, rows[0]["path"]).out
    assert shown.startswith(f"{rows[0]['path']}: {rows[0]['labels'] or '(none)'}  (")


def test_evaluate_on_the_command_line(
    trained: Run, listed: Path, photos: Path, command: Callable[..., Any]
) -> None:
    said = command("evaluate", trained.path, listed / "new.csv")
    assert said.code == 0
    assert "mean_average_precision" in said.out
    assert "mean_average_precision" in said.out
    assert "auprc" in said.out
    single = listed / "one-each.csv"
    single.write_text("path,label\nnew/000.png,across\nnew/001.png,\n")
    assert command("evaluate", trained.path, single, "--json").code == 0
    assert "gives it any number" in command("evaluate", trained.path, photos).error


def test_a_model_of_one_label_refuses_several(
    finished: Run, listed: Path, command: Callable[..., Any]
) -> None:
    said = command("evaluate", finished.path, listed / "columns.csv").error
    assert "any number of labels" in said


@pytest.mark.parametrize(
    "options",
    [
        {"unfreeze": 0},
        {"unfreeze": 1, "class_weights": "balanced", "cache_gib": 0.0},
        {"weights": "none", "model": "tiny.json", "epochs": 2, "unfreeze": "all"},
    ],
)
def test_the_other_ways_to_train(
    listed: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any],
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from tests.conftest import TINY

    monkeypatch.chdir(tmp_path)
    Path("tiny.json").write_text(json.dumps(TINY | {"classes": 2}))
    chosen = quick | {"weights": tiny_weights, "epochs": 2} | options
    run = plusx.train(listed / "list.csv", out="run", talk=Talk(quiet=True), **chosen)
    assert by_role(run, "report")
    if chosen["unfreeze"] == 0:
        assert "each half come from the other" in by_role(run, "report")["val"]["method"]
        assert run.metrics["headline"]["split"] == "train+val"


def test_folds_and_a_test_split(
    listed: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    lines = (listed / "list.csv").read_text().splitlines()
    split = [f"{line},{'test' if i % 5 == 0 else 'train'}" for i, line in enumerate(lines[1:])]
    path = listed / "split.csv"
    path.write_text("\n".join(["path,label,split", *split]) + "\n")
    run = plusx.train(
        path, weights=tiny_weights, out=tmp_path / "run", folds=2, talk=Talk(quiet=True),
        **(quick | {"unfreeze": 0}),
    )  # fmt: skip
    reported = by_role(run, "report")
    assert len(reported["out of fold"]["mean_average_precision_by_fold"]) == 2
    assert run.metrics["headline"]["split"] == "test"
    kept = Predictions.load(run.path / reported["test"]["predictions"])
    assert kept.called is not None


def test_resume_goes_on_where_it_was_cut(
    listed: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from plusx.jobs import train as job

    options = quick | {"weights": tiny_weights, "talk": Talk(quiet=True), "epochs": 2}
    whole = plusx.train(listed / "list.csv", out=tmp_path / "whole", **options)
    monkeypatch.setattr(job, "assess", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        plusx.train(listed / "list.csv", out=tmp_path / "parts", **options)
    monkeypatch.undo()
    again = plusx.resume(tmp_path / "parts", talk=Talk(quiet=True))
    assert again.metrics["headline"] == whole.metrics["headline"]
    assert again.metrics["thresholds"] == whole.metrics["thresholds"]


def test_dry_run(listed: Path, tiny_weights: Path, command: Callable[..., Any]) -> None:
    said = command("train", listed / "list.csv", "--weights", tiny_weights, "--dry-run", "--json")
    assert json.loads(said.out)["images"] == 160


@pytest.mark.parametrize(("mark", "words"), [("0", "none of the"), ("1", "every one of the")])
def test_a_class_of_no_image_or_of_all_is_refused(
    listed: Path, tiny_weights: Path, command: Callable[..., Any], mark: str, words: str
) -> None:
    head, *rows = (listed / "columns.csv").read_text().splitlines()
    path = listed / f"same-{mark}.csv"
    path.write_text("\n".join([f"{head},same", *(f"{row},{mark}" for row in rows)]) + "\n")
    said = command("train", path, "--weights", tiny_weights, "--dry-run").error
    assert words in said
    assert "class 'same'" in said


def test_a_class_that_val_lacks_and_images_nobody_has_looked_at_are_said(
    listed: Path, tiny_weights: Path, command: Callable[..., Any]
) -> None:
    head, *rows = (listed / "columns.csv").read_text().splitlines()
    path = listed / "val.csv"
    given = [f"{row},{'val' if row.endswith(',0') and i % 3 == 0 else 'train'}"
             for i, row in enumerate(rows)]  # fmt: skip
    path.write_text("\n".join([f"{head},split", *given, "new/000.png,,,train"]) + "\n")
    said = command("train", path, "--weights", tiny_weights, "--dry-run")
    assert said.code == 0
    assert "no image of val has 'upright'" in said.err
    assert "left out because they have no label yet: 1" in said.err
