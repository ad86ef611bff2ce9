from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from plusx import Run
from plusx.errors import UsageError
from plusx.jobs.compare import compare_runs
from plusx.weights import load_artifact, save_artifact


def changed(run: Run, out: Path, *, order: list[int], noise: float, names: str = "") -> Path:
    """The run's model with its classes in another order and its head shaken."""
    old = load_artifact(run.path)
    fc = old.model.head.fc
    with torch.no_grad():
        fc.weight.copy_(fc.weight[order])
        fc.bias.copy_(fc.bias[order])
        g = torch.Generator().manual_seed(0)
        fc.weight.add_(torch.randn(fc.weight.shape, generator=g) * noise)
    classes = tuple(names) or tuple(old.classes[i] for i in order)
    save_artifact(out, old.model, classes=classes, preprocessing=old.preprocessing,
                  provenance={}, card="")  # fmt: skip
    return out


def test_a_run_does_not_differ_from_itself_in_another_order(
    finished: Run, photos: Path, tmp_path: Path
) -> None:
    turned = changed(finished, tmp_path / "turned", order=[1, 0], noise=0.0)
    found = compare_runs(finished.path, turned, photos)
    assert (found.paired.only_a, found.paired.only_b) == (0, 0)
    assert found.paired.p == 1.0
    assert not found.paired.settled
    assert found.finding.startswith("No difference can be shown: +0.0 points")
    assert found.a.classes == found.b.classes
    assert (found.a.targets == found.b.targets).all()


def test_a_worse_run_is_told_with_its_images(
    finished: Run, photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    worse = changed(finished, tmp_path / "worse", order=[0, 1], noise=30.0)
    out = tmp_path / "found.json"
    said = command("compare", finished.path, worse, photos, "--split", "all", "--out", out)
    assert said.code == 0
    plain = json.loads(out.read_text())
    assert plain["top1"][0] > plain["top1"][1]
    assert plain["settled"]
    assert plain["mcnemar_p"] < 0.01
    assert f"{finished.path.name} is better than worse by" in said.out
    wrong = [one for one in plain["differing"] if one["b"] != one["true"]]
    assert len(wrong) == plain["only_a"] > 0
    for one in wrong:
        assert Path(one["path"]).parent.name == one["true"] == one["a"]
    gap = plain["only_a"] - plain["only_b"]
    assert plain["difference"]["value"] == pytest.approx(gap / plain["n"])
    per_class = plain["per_class"]
    for name in ("across", "upright"):
        one = per_class[name]
        assert one["n"] == 48
        assert one["value"] == pytest.approx(one["top1"][0] - one["top1"][1])
        assert 0 <= one["p"] <= 1
        assert name in said.out
    assert sum(one["value"] * one["n"] for one in per_class.values()) == pytest.approx(gap)
    again = command("compare", finished.path, worse, photos, "--split", "all", "--json")
    assert json.loads(again.out) == plain


def test_runs_of_other_classes_are_refused(finished: Run, photos: Path, tmp_path: Path) -> None:
    other = changed(finished, tmp_path / "other", order=[0, 1], noise=0.0)
    listed = photos / "val"
    renamed = tmp_path / "data"
    renamed.mkdir()
    (renamed / "across").symlink_to(listed / "across")
    config = other / "config.json"
    config.write_text(config.read_text().replace('"upright"', '"zebra"'))
    with pytest.raises(UsageError, match=r"know different classes \(upright, zebra\)"):
        compare_runs(finished.path, other, renamed)
