from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx import Run
from plusx.data import read_listing
from plusx.errors import ArtifactError
from plusx.evaluate import Predictions, evaluate, to_json
from plusx.jobs.neighbours import load_neighbours
from plusx.jobs.report import write_report
from plusx.jobs.report_pair import write_pair

MEGABYTES = 3e6


def text_of(page: Path) -> str:
    bare = re.sub(
        r"<(script|style)>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare))


def made(folder: Path, predictions: Predictions, decision: dict[str, Any] | None = None) -> Path:
    """A run of these predictions, without a network."""
    (folder / "predictions").mkdir(parents=True)
    (folder / "model").mkdir()
    predictions.save(folder / "predictions" / "test.npz")
    found = to_json(evaluate(predictions), split="test", role="report")
    found |= {"method": "images that took no part", "predictions": "predictions/test.npz"}
    about = {key: found[key] for key in ("split", "role", "method", "n")}
    metrics = {"schema_version": 1, "classes": list(predictions.classes), "evaluations": [found],
               "headline": {"figure": "top1", **found["figures"]["top1"], **about}}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    model = {"label_names": list(predictions.classes), "plusx": {"decision": decision or {}}}
    (folder / "model" / "config.json").write_text(json.dumps(model), encoding="utf-8")
    return folder


def drawn(n: int, k: int, *, scale: float = 1.0, seed: int = 0) -> Predictions:
    """Predictions whose probabilities are right at ``scale`` 1, too sure above."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, k)).astype(np.float32) * 1.5
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=k - 1)
    names = tuple(f"class {i}" for i in range(k))
    paths = tuple(f"p/{names[t]}/{i}.jpg" for i, t in enumerate(targets))
    return Predictions(logits * np.float32(scale), targets.astype(np.int64), paths, names)


def test_photographs_come_with_heat_maps_and_neighbours(finished: Run, tmp_path: Path) -> None:
    page = write_report(finished.path, out=tmp_path / "page.html").read_text(encoding="utf-8")
    photographs = page.count("labelled across, called") + page.count("labelled upright, called")
    assert photographs
    assert page.count('alt="Heat map: where ') == photographs
    assert page.count("Nearest training images</p>") == photographs
    assert page.count('<span class="label') == 4 * photographs
    assert "are left out" not in page
    assert write_report(finished.path, out=tmp_path / "again.html").read_text() == page


def test_no_thumbnails_leaves_words_alone(
    finished: Run, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "page.html"
    said = command("report", finished.path, "--no-thumbnails", "--out", out)
    assert said.code == 0, said
    assert said.out.strip() == str(out)
    page = out.read_text(encoding="utf-8")
    assert "<img" not in page
    assert "data:image" not in page
    assert "as asked for by --no-thumbnails" in page
    assert "Nearest training images" in page
    said = command("report", finished.path, finished.path, "--no-thumbnails", "--out", out)
    assert "<img" not in out.read_text(encoding="utf-8")


def test_a_training_without_thumbnails_is_obeyed_afterwards(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any],
    command: Callable[..., Any]
) -> None:  # fmt: skip
    run = plusx.train(photos, weights=tiny_weights, out=tmp_path / "run", thumbnails=False,
                      **(quick | {"unfreeze": 0}))  # fmt: skip
    assert "<img" not in run.report_path.read_text(encoding="utf-8")
    assert command("report", run.path).code == 0
    assert "<img" not in run.report_path.read_text(encoding="utf-8")
    assert command("report", run.path, "--thumbnails").code == 0
    assert "<img" in run.report_path.read_text(encoding="utf-8")


def test_a_run_killed_half_way(finished: Run, tmp_path: Path, command: Callable[..., Any]) -> None:
    run = tmp_path / "killed"
    shutil.copytree(finished.path, run)
    for name in ("metrics.json", "neighbours.npz", "report.html"):
        (run / name).unlink()
    for name in ("model", "predictions"):
        shutil.rmtree(run / name)
    lines = (run / "history.csv").read_text().splitlines()
    (run / "history.csv").write_text("\n".join(lines[:3]) + "\n")
    said = command("report", run)
    assert said.code == 0, said
    text = text_of(run / "report.html")
    assert "Nothing measured yet" in text
    assert "Every epoch in numbers" in text
    assert "batch_size" in text
    assert "NaN" not in text
    assert command("report", run, finished.path).code == 0
    assert "Not compared image by image." in text_of(run / f"report-with-{finished.path.name}.html")


def test_open_shows_the_page(
    finished: Run, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) is not None)
    said = command("report", finished.path, "--open", "--out", tmp_path / "a page.html")
    assert shown == [(tmp_path / "a page.html").as_uri()]
    assert "no browser was found" in said.err


def test_reports_of_nothing_are_refused(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert "not a run folder" in command("report", tmp_path / "none").error
    (tmp_path / "folder").mkdir()
    assert "is a folder" in command("report", tmp_path, "--out", tmp_path / "folder").error


def test_calibration_before_and_after_in_words(tmp_path: Path) -> None:
    good = drawn(4000, 3)
    page = text_of(write_report(made(tmp_path / "good", good, {"temperature": 2.0})))
    assert "It is about as often right as it says." in page
    assert "Its probabilities are calibrated: 2 divides the logits." in page
    assert "Before: without the temperature 2 that ships." in page
    page = text_of(write_report(made(tmp_path / "sure", drawn(4000, 3, scale=3))))
    assert "It is surer of itself than it is right." in page
    assert "No temperature ships with this model." in page
    page = text_of(write_report(made(tmp_path / "modest", drawn(4000, 3, scale=0.3))))
    assert "It is right more often than it says." in page


def test_silence_is_told_by_shares_that_a_threshold_reaches(tmp_path: Path) -> None:
    logits = np.zeros((40, 2), np.float32)
    logits[:20, 0] = np.arange(20, 0, -1)  # right, and told apart by how sure
    predictions = Predictions(logits, np.repeat([0, 1], 20), tuple(f"{i}" for i in range(40)),
                              ("a", "b"))  # fmt: skip
    page = text_of(write_report(made(tmp_path / "run", predictions)))
    # the 20 undecided ones can only be answered together
    rows = re.search(r"if at least so sure (.*?) Mean over", page)
    assert rows
    assert rows[1].split() == ["100.0%", "50.0%", "20", "of", "40", "50.0%",
                               "50.0%", "0.0%", "0", "of", "20", "73.1%"]  # fmt: skip


def test_too_few_images_are_said_not_drawn(tmp_path: Path) -> None:
    page = text_of(write_report(made(tmp_path / "run", drawn(12, 2))))
    assert page.count("12 images are too few to say anything (20 are needed).") == 2
    assert "NaN" not in page


def test_what_decides_is_told(tmp_path: Path) -> None:
    decision = {
        "sureness": 0.8,
        "sets": {"coverage": 0.9, "per_class": True},
        "unknown": {"false_reject": 0.05},
        "favoured": {"index": 1, "threshold": 0.2},
    }
    page = text_of(write_report(made(tmp_path / "run", drawn(50, 2), decision)))
    assert "has 80.0% or more" in page
    assert "hold the right one for 90% of the images of every class" in page
    assert "5% are lost to that" in page
    assert "“class 1” is its answer from 20.0% on." in page


def test_audit_and_robustness_where_they_are(tmp_path: Path) -> None:
    run = made(tmp_path / "run", drawn(50, 2))
    page = text_of(write_report(run))
    assert "This run has no audit of its data" in page
    assert "This run has no robustness.json." in page
    finding = {
        "kind": "leaks",
        "severity": "error",
        "text": "3 <images> lie in two splits.",
        "remedy": "Remove them.",
        "count": 3,
        "items": [],
    }
    (run / "audit.json").write_text(json.dumps({"findings": [finding, finding]}))
    points = [
        {
            "kind": kind,
            "strength": s,
            "level": s or None,
            "value": 0.9 - s * drop,
            "low": 0.5 - s * drop,
            "high": 0.95,
        }
        for kind, drop in (("noise", 0.05), ("blur", 0.08))
        for s in range(6)
    ]
    harmed = {"figure": "top1", "n": 50, "of": 50, "seed": 0, "points": points}
    written = {"split": "test", "role": "report", "robustness": harmed}
    (run / "robustness.json").write_text(json.dumps(written))
    page = text_of(write_report(run))
    assert "Found in the data before training: 2 errors." in page
    assert "3 &lt;images&gt; lie in two splits. Remove them." in page
    assert "It loses most to blur: 40 points at full strength." in page
    assert "noise 90.0% 85.0% 80.0% 75.0% 70.0% 65.0%" in page
    (run / "robustness.json").write_text("{}")
    assert "robustness.json holds no curves." in text_of(write_report(run))


def test_ten_thousand_images_of_a_hundred_classes(tmp_path: Path) -> None:
    page = write_report(made(tmp_path / "run", drawn(10_000, 100)))
    assert page.stat().st_size < MEGABYTES / 4  # the photographs are not there
    assert text_of(page).count("class 57 ") >= 1


def test_eighteen_large_photographs_stay_below_three_megabytes(
    finished: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    rng = np.random.default_rng(0)
    photo = tmp_path / "photo.jpg"
    noise = rng.integers(0, 255, (700, 1400, 3), dtype=np.uint8)  # nothing compresses worse
    Image.fromarray(noise).save(photo)
    classes = ("across", "upright")
    logits = rng.normal(size=(40, 2)).astype(np.float32)
    predictions = Predictions(logits, np.arange(40) % 2, (str(photo),) * 40, classes)
    predictions.save(run / "predictions" / "val.npz")
    metrics = json.loads((run / "metrics.json").read_text())
    for one in metrics["evaluations"]:
        if one.get("predictions"):
            one["predictions"] = "predictions/val.npz"
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(run)
    assert page.read_text().count("Heat map: where") == 18
    assert page.stat().st_size < MEGABYTES


def test_neighbours_of_another_network_cost_no_report(finished: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.path, run)
    kept = load_neighbours(run)
    assert kept is not None
    type(kept)(kept.features[:, :5], kept.paths, kept.labels, kept.root, kept.images).save(
        run / "neighbours.npz"
    )
    assert "they do not belong together" in text_of(write_report(run))


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    one = drawn(400, 3)
    worse = one.logits.copy()
    worse[:150] = worse[:150, ::-1]
    other = Predictions(worse, one.targets, one.paths, one.classes)
    a, b = made(tmp_path / "better", one), made(tmp_path / "worse", other)
    (a / "config.toml").write_text('[asked]\nout = "a"\nlr = 0.1\n')
    (b / "config.toml").write_text('[asked]\nout = "b"\nlr = 0.2\n')
    page = text_of(write_pair(a, b))
    right = [(p.predicted == p.targets).mean() for p in (one, other)]
    assert f"better is better than worse by {100 * (right[0] - right[1]):.1f} points" in page
    assert "Measured on 400 images of test (role report)" in page
    only = int(((one.predicted == one.targets) & (other.predicted != one.targets)).sum())
    assert f"Only better is right on {only} of them" in page
    assert "asked.lr 0.1 0.2" in page
    assert "asked.out" not in page
    assert "No difference can be shown" in text_of(write_pair(a, a))


def test_runs_of_other_images_or_classes_are_not_compared(tmp_path: Path) -> None:
    a = made(tmp_path / "a", drawn(60, 3))
    b = made(tmp_path / "b", drawn(60, 2))
    assert "know different classes (class 2)" in text_of(write_pair(a, b))
    moved = drawn(60, 3)
    moved = Predictions(moved.logits, moved.targets, tuple(f"q{p}" for p in moved.paths),
                        moved.classes)  # fmt: skip
    c = made(tmp_path / "c", moved)
    assert "have no image in common" in text_of(write_pair(a, c))
    with pytest.raises(ArtifactError, match="not a run folder"):
        write_pair(a, tmp_path / "none")


def test_the_files_of_the_data_are_found_again(finished: Run, photos: Path) -> None:
    kept = load_neighbours(finished.path)
    assert kept is not None
    below = {str(Path(kept.root, path)) for path in kept.paths}
    listed = {s.path for s in read_listing(photos).samples if s.split == "train"}
    assert below == {str(Path(path).absolute()) for path in listed}
