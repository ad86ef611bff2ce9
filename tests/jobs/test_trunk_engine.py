"""Which engine runs the frozen trunk of a training, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import plusx
from plusx.engines import openvino_split
from plusx.errors import MissingExtra
from plusx.fit import trunk_engine
from plusx.jobs.run import read_config
from plusx.jobs.talk import Talk

pytest.importorskip("openvino", reason="extra 'openvino' absent")


@pytest.fixture
def train(
    photos: Path, tiny_weights: Path, quick: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:  # fmt: skip
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(trunk_engine, "WORTH_CONVERTING", 1)

    def call(name: str, **options: Any) -> plusx.Run:
        how = quick | {"epochs": 2, "weights": tiny_weights, "out": tmp_path / name} | options
        return plusx.train(photos, talk=Talk(quiet=True), **how)

    return call


def engine_of(run: plusx.Run) -> str:
    name = read_config(run.path / "config.toml")["cache"]["engine"]["name"]
    assert isinstance(name, str)
    return name


def likelihood(run: plusx.Run) -> float:
    found = run.metrics["evaluations"][0]["figures"]["nll"]
    return float(found["value"])


def test_enough_images_run_on_openvino_and_give_the_same_answers(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, again = train("fast"), train("again")
    monkeypatch.setattr(trunk_engine, "WORTH_CONVERTING", 10**9)
    plain = train("plain")
    assert [engine_of(run) for run in (fast, again, plain)] == ["openvino", "openvino", "torch"]
    assert "used again" in (again.path / "train.log").read_text()
    assert "used again" not in (plain.path / "train.log").read_text()
    assert likelihood(again) == likelihood(fast)
    assert likelihood(fast) == pytest.approx(likelihood(plain), rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"unfreeze": 0}, {"cache_gib": 0.0}])
def test_where_openvino_answers_otherwise_torch_runs_it_and_it_is_said(
    train: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(openvino_split, "difference", lambda found, exact: 0.5)
    run = train("refused", **options)
    log = (run.path / "train.log").read_text()
    assert "openvino cannot run the frozen trunk" in log
    assert "50.0% off): torch does" in log
    assert engine_of(run) == "torch"


def test_an_openvino_that_cannot_be_imported_is_done_without(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> bool:
        raise MissingExtra("--engine openvino", "openvino")

    monkeypatch.setattr(trunk_engine, "has_bfloat16", broken)
    found = trunk_engine.resolve_trunk_engine(
        torch.device("cpu"), torch.bfloat16, forwards=trunk_engine.WORTH_CONVERTING
    )
    assert (found.name, found.precision) == ("torch", "bfloat16")
