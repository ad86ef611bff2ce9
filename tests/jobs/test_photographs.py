"""From photographs to a run, end to end, on the real thing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import plusx
from plusx.jobs.talk import Talk


@pytest.fixture
def few(shared_data: Path, tmp_path: Path) -> Path:
    """20 ants and 20 bees to learn from, 10 and 10 to judge."""
    for split, count in (("train", 20), ("val", 10)):
        for name in ("ants", "bees"):
            target = tmp_path / "insects" / split / name
            target.mkdir(parents=True)
            folder = shared_data / "data" / "hymenoptera" / split / name
            for file in sorted(folder.glob("*.jpg"))[:count]:
                shutil.copy(file, target)
    return tmp_path / "insects"


@pytest.mark.parametrize("how", [{"unfreeze": 0}, {"epochs": 2}], ids=["probe", "default"])
def test_ants_and_bees(few: Path, shared_data: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    weights = shared_data / "weights" / "resnet18_imagenet_pq.safetensors"
    run = plusx.train(few, model="resnet18", weights=weights, image_size=96, out=tmp_path / "run",
                      talk=Talk(quiet=True), **how)  # fmt: skip
    assert run.top1 is not None
    assert run.top1 > 0.6
    judged = run.evaluate(few, split="val", talk=Talk(quiet=True)).to_json()
    assert judged["n"] == 20
    assert judged["figures"]["top1"]["value"] > 0.6
    assert any("states no preprocessing" in note for note in run.metrics["notes"])


def test_cifar_weights_of_others(
    shared_data: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    weights = shared_data / "weights" / "resnet20-12fca82f.th"
    out = tmp_path / "run"
    said = command("import", weights, "--model", "resnet20_cifar_a", "--out", out)
    assert said.code == 0, said.err
    photo = next((shared_data / "data" / "hymenoptera" / "val" / "bees").glob("*.jpg"))
    shown = command("predict", out, photo, "--top", "3")
    assert shown.code == 0
    assert shown.out.count("class_") == 3
