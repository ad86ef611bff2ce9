"""``--compile``: what ``torch.compile`` is given, and what happens where it refuses.

Inductor takes minutes and a C++ compiler, so its place is taken by torch's tracing alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import plusx
from plusx.errors import UsageError
from plusx.jobs.talk import Talk

compile_net = torch.compile


@pytest.fixture
def train(photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]) -> Any:
    def run(name: str, **options: Any) -> dict[str, torch.Tensor]:
        usual = quick | {"weights": tiny_weights, "unfreeze": 2, "precision": "float32"}
        made = plusx.train(photos, out=tmp_path / name, talk=Talk(quiet=True), **usual | options)
        assert (name == "compiled") == ("compile = true" in (made.path / "config.toml").read_text())
        return load_file(made.model_path / "model.safetensors")

    return run


def test_compiled_steps_train_the_same_network(
    train: Callable[..., dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.nn.Module] = []

    def traced(net: torch.nn.Module) -> Any:
        given.append(net)
        return compile_net(net, backend="aot_eager")

    whole = train("whole")
    monkeypatch.setattr(torch, "compile", traced)
    compiled = train("compiled", compile=True)
    assert len(given) == 1
    assert whole.keys() == compiled.keys()
    for name, value in whole.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_compiled_is_said_in_a_line(
    train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(compile_net, backend=refuses))
    with pytest.raises(UsageError, match=r"--compile: torch.compile cannot .*; leave it out") as it:
        train("compiled", compile=True)
    assert "\n" not in str(it.value)
    assert "no C++ compiler" in str(it.value)


def test_a_probe_compiles_nothing(train: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="--compile is of fine-tuning"):
        train("compiled", compile=True, unfreeze=0)
