"""``plusx recipes``, and recipes on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib


def test_recipes_are_listed_and_shown(command: Callable[..., Any]) -> None:
    said = command("recipes")
    assert said.code == 0
    for name in ("default", "full", "cifar", "torchvision-v2", "a1", "a3", "fast-cifar"):
        assert f"\n{name} " in "\n" + said.out
    assert tomllib.loads(command("recipes", "a3").out)["train"]["train_size"] == 160
    assert json.loads(command("recipes", "a3", "--json").out)["name"] == "a3"
    assert len(json.loads(command("recipes", "--json").out)) >= 9
    wrong = command("recipes", "a9")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--recipe 'a9' is not one of a1" in wrong.err


def test_the_command_line_overrules_a_recipe(
    command: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(
        "train", photos, "--recipe", "cifar", "--epochs", "1", "--image-size", "16", "--model",
        "resnet8_cifar_a", "--batch-size", "16", "--set", "momentum=0.5", "--set", "pad=2",
        "--warmup", "0.2", "--no-neighbours", "--threads", "1", "--out", "run",
    )  # fmt: skip
    assert said.code == 0, said.err
    with Path("run/config.toml").open("rb") as file:
        tables = tomllib.load(file)
    assert tables["augmentation"]["pad"] == 2
    wanted = {"momentum": 0.5, "warmup": 0.2, "nesterov": False, "schedule": "step", "epochs": 1,
              "batch_size": 16, "weight_decay": 1e-4}  # fmt: skip
    assert wanted.items() <= tables["recipe"].items()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "momentum"), "must be NAME=VALUE"),
        (("--set", "lr=1", "--lr", "2"), "given twice"),
        (("--set", "speed=1"), "unknown option speed"),
        (("--recipe", "mine.toml"), "a file of yours is --config FILE"),
        (("--find-lr", "--unfreeze", "two"), "must be a number of blocks"),
    ],
)
def test_what_cannot_be_is_one_line(
    command: Callable[..., Any], photos: Path, more: tuple[str, ...], said: str
) -> None:
    found = command("train", photos, *more)
    assert found.code == 2
    assert said in found.err
