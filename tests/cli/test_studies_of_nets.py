"""``plusx study landscape``, ``lesion`` and ``paths`` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def test_lesion_of_a_run(command, finished, tmp_path):
    options = ["--draws", 1, "--threads", 1, "--out", tmp_path / "out"]
    said = command("study", "lesion", finished.path, *options)
    assert said.code == 0, said
    assert "has no block that keeps the shape" in said.out or "costs" in said.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"lesion.json", "blocks.csv", "lesion.svg", "lesion.png"} <= names
    again = command("study", "lesion", finished.path, *options, "--json")
    assert "finished before" in again.err
    assert json.loads(again.out)["settings"]["subjects"][0]["split"] == "val"


def test_landscape_beside_another_net(command, finished, tiny_weights, photos, tmp_path):
    few = ["--images", 16, "--grid", 3, "--threads", 1, "--out", tmp_path / "out"]
    said = command("study", "landscape", finished.path, *few)
    assert said.code == 0, said
    assert said.out.startswith("tiny (loss ")
    arrays = np.load(tmp_path / "out" / "arrays.npz")
    assert arrays["loss_0"].shape == (3, 3)
    assert command("study", "landscape", finished.path, *few, "--line").code == 0
    estimated = command("study", "landscape", finished.path, *few, "--estimate")
    assert estimated.out.startswith("about ")


def test_a_grid_of_days_and_missing_checkpoints_are_refused(command, finished, tmp_path):
    long = command("study", "landscape", finished.path, "--grid", 200_001, "--threads", 1,
                   "--out", tmp_path / "out")  # fmt: skip
    assert "this would take about" in long.error
    assert "--force" in long.error
    (tmp_path / "empty").mkdir()
    gone = command("study", "landscape", finished.path, "--path", tmp_path / "empty")
    assert "no checkpoints there" in gone.error


def test_paths_of_a_run(command, finished, tmp_path):
    said = command("study", "paths", finished.path, "--images", 8, "--draws", 2, "--threads", 1,
                   "--train", 2, "--out", tmp_path / "out")  # fmt: skip
    assert said.code == 0, said
    assert "3 blocks, 8 images" in said.out
    assert "2 steps of training on paths of" in said.out
    rows = json.loads((tmp_path / "out" / "paths.json").read_text())["tables"]["lengths"]
    assert [row["paths"] for row in rows] == [1, 3, 3, 1]


def test_what_cannot_be_studied_is_said(command, tiny_weights, photos, finished, tmp_path):
    assert "give --data FOLDER" in command("study", "lesion", tiny_weights).error
    one = tmp_path / "one" / "across"
    one.mkdir(parents=True)
    for path in sorted(Path(photos, "val", "across").iterdir())[:3]:
        (one / path.name).write_bytes(path.read_bytes())
    said = command("study", "lesion", finished.path, "--data", one.parent)
    assert "one class" in said.error
    cnn = command("study", "paths", "none", "--model", "cnn", "--data", photos)
    assert "classes" in cnn.error
