"""``plusx study field`` and ``refinement`` as a person types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest


def test_field_of_a_run(command, finished, tmp_path):
    options = ["--field-images", 3, "--inits", 1, "--grids", "1,2", "--threads", 1,
               "--out", tmp_path / "out"]  # fmt: skip
    said = command("study", "field", finished.path, *options)
    assert said.code == 0, said
    assert "2 x 2 tiles shuffled" in said.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"field.json", "fields.csv", "context.csv", "field.svg", "field_maps.png"} <= names
    arrays = np.load(tmp_path / "out" / "arrays.npz")
    assert {name.split("_")[0] for name in arrays} == {"trained", "initialised"}
    again = command("study", "field", finished.path, *options, "--json")
    assert "finished before" in again.err
    rows = json.loads(again.out)["tables"]["fields"]
    assert [row["weights"] for row in rows[:1]] == ["trained"]
    kept = arrays[f"trained_0_{rows[0]['place'].replace(' ', '_')}"]
    assert kept.shape == (rows[0]["image"],) * 2


def test_a_net_with_random_weights_has_a_field_but_no_answer(command, photos, tmp_path):
    said = command("study", "field", "none", "none", "--model", "resnet14_cifar_a",
                   "--model", "cnn", "--data", photos, "--field-images", 2, "--inits", 1,
                   "--threads", 1, "--out", tmp_path / "out")  # fmt: skip
    assert said.code == 0, said
    assert "resnet14_cifar_a (initialised): a unit after stage 3" in said.out
    assert "cnn (initialised): a unit after stage" in said.out
    assert "shuffled tiles and hidden parts would say nothing" in said.out


def test_tiles_that_do_not_fit(command, finished, tmp_path):
    odd = command("study", "field", finished.path, "--grids", "5", "--out", tmp_path / "out")
    assert "equal tiles; choose among 1, 2" in odd.error
    word = command("study", "field", finished.path, "--grids", "two")
    assert "--grids 'two' must be whole numbers" in word.error


def test_refinement_of_a_run(command, finished, tmp_path):
    options = ["--step-images", 8, "--folds", 3, "--split", "all", "--threads", 1,
               "--out", tmp_path / "out"]  # fmt: skip
    said = command("study", "refinement", finished.path, *options)
    assert said.code == 0, said
    assert "a probe after stem is right on" in said.out
    assert "(the net's own head: " in said.out
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"refinement.json", "blocks.csv", "exits.csv", "curve.csv", "refinement.png"} <= left
    assert "features" not in left
    again = command("study", "refinement", finished.path, *options, "--json")
    assert "finished before" in again.err
    blocks = json.loads(again.out)["tables"]["blocks"]
    assert sum(row["settled_here"] for row in blocks) > 0


@pytest.mark.parametrize("study", ["field", "refinement"])
def test_one_class_is_refused(command, finished, photos, tmp_path, study):
    one = tmp_path / "one" / "across"
    one.mkdir(parents=True)
    for path in sorted(Path(photos, "val", "across").iterdir())[:3]:
        (one / path.name).write_bytes(path.read_bytes())
    assert "one class" in command("study", study, finished.path, "--data", one.parent).error


def test_refinement_of_other_classes(command, tiny_weights, photos, tmp_path):
    """A backbone of other classes is read by probes; its own head is not asked."""
    said = command("study", "refinement", tiny_weights, "--data", photos, "--folds", 3,
                   "--step-images", 4, "--split", "all", "--threads", 1,
                   "--out", tmp_path / "out")  # fmt: skip
    assert said.code == 0, said
    assert "its own head has other classes than the images" in said.out
    assert "own head:" not in said.out
