"""Nets besides ResNet go through train, evaluate, predict, resume and import as ResNets do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import plusx
from plusx.jobs.talk import Talk, Tick
from plusx.weights import build, load_artifact, spec_from_dict
from plusx.weights.load import disk_state

THIN = {"family": "vgg", "name": "thin", "depths": [1, 1, 1], "widths": [8, 16, 16],
        "norm": "batch", "hidden": 32, "image_size": 32}  # fmt: skip


@pytest.fixture
def thin(tmp_path: Path) -> Path:
    """A small VGG with dropout, as a spec file."""
    path = tmp_path / "thin.json"
    path.write_text(json.dumps(THIN))
    return path


class Interrupting(Talk):
    """Presses Ctrl-C when the text beside the bar begins as given."""

    def __init__(self, text: str) -> None:
        super().__init__(quiet=True)
        self._text = text

    @contextmanager
    def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
        def tick(n: int, text: str = "") -> None:
            if text.startswith(self._text):
                raise KeyboardInterrupt

        with super().phase(label, total):
            yield tick


def state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("model", ["cnn", "timm:test_resnet"])
def test_from_scratch_to_answers(
    model: str, photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    if model.startswith("timm:"):
        pytest.importorskip("timm", reason="extra 'timm' absent")
    run = tmp_path / "run"
    said = command("train", photos, "--model", model, "--weights", "none", "--image-size", 32,
                   "--epochs", 1, "--out", run, "--device", "cpu", "--threads", 1)  # fmt: skip
    assert said.code == 0, said
    assert "Traceback" not in said.err
    assert command("evaluate", run, photos / "val").code == 0
    found = command("predict", run, photos / "val" / "across" / "000.png")
    assert found.code == 0
    assert "across" in found.out or "upright" in found.out
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert "esidual" not in card
    assert "- resnet\n" not in card
    assert "esidual" not in (run / "report.html").read_text(encoding="utf-8")
    assert "the whole network" in card
    spec = load_artifact(run).spec
    assert spec.image_size == 32
    assert spec.name == model


def test_a_vgg_is_fine_tuned_from_cached_activations_and_assembled(
    thin: Path, photos: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    """The last two blocks are the hidden layers; the convolutions stay bit-identical."""
    first = plusx.train(photos, model=thin, weights="none", out=tmp_path / "first",
                        talk=Talk(quiet=True), **(quick | {"epochs": 3}))  # fmt: skip
    run = plusx.train(photos, weights=first.path, unfreeze=2, out=tmp_path / "second",
                      talk=Talk(quiet=True), **(quick | {"epochs": 3}))  # fmt: skip
    before, after = state(first.path), state(run.path)
    assert all(torch.equal(before[n], after[n]) for n in before if n.startswith("features."))
    assert {name.split(".")[0] for name in after} == {"features", "pre_logits", "head"}
    assert run.metrics["headline"]["figure"] == "top1"
    card = (run.path / "model" / "README.md").read_text(encoding="utf-8")
    assert "A VGG network (plusx\\_thin)" in card
    for unfreeze in (0, 4):
        other = plusx.train(photos, weights=first.path, unfreeze=unfreeze, epochs=1,
                            out=tmp_path / f"u{unfreeze}", talk=Talk(quiet=True), device="cpu",
                            threads=1)  # fmt: skip
        same = [torch.equal(before[n], v) for n, v in state(other.path).items() if "pre_log" in n]
        assert all(same) == (unfreeze == 0 or other.metrics["chosen"]["name"] == "probe")


def test_an_interrupted_run_with_dropout_goes_on_to_the_same_end(
    thin: Path, photos: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    options = quick | {"epochs": 3, "model": thin, "weights": "none"}
    whole = plusx.train(photos, out=tmp_path / "whole", talk=Talk(quiet=True), **options)
    with pytest.raises(KeyboardInterrupt):
        plusx.train(photos, out=tmp_path / "run", talk=Interrupting("epoch 3/"), **options)
    run = plusx.resume(tmp_path / "run", talk=Talk(quiet=True))
    one, other = state(whole.path), state(run.path)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("unfreeze", [0, 1])
def test_a_net_of_timms_is_probed_and_fine_tuned(
    unfreeze: int, photos: Path, tmp_path: Path
) -> None:
    timm = pytest.importorskip("timm", reason="extra 'timm' absent")
    torch.manual_seed(0)
    weights = tmp_path / "w.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), weights)
    run = plusx.train(photos, model="timm:test_resnet", weights=weights, unfreeze=unfreeze,
                      image_size=32, epochs=1, out=tmp_path / "run", device="cpu", threads=1,
                      talk=Talk(quiet=True))  # fmt: skip
    peer = timm.create_model(f"local-dir:{run.model_path}", pretrained=True).eval()
    ours = load_artifact(run.path).model
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), peer(x))
    answer = run.predict(photos / "val" / "across" / "000.png")
    assert answer.label in ("across", "upright")


def test_weights_of_a_vgg_are_imported(thin: Path, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build(spec_from_dict(THIN | {"classes": 2}))
    torch.save(disk_state(net), tmp_path / "v.pth")
    run = plusx.import_weights(tmp_path / "v.pth", tmp_path / "run", model=thin,
                               classes=["across", "upright"], talk=Talk(quiet=True))  # fmt: skip
    assert run.predict(photos / "val" / "across" / "000.png").label in ("across", "upright")
    assert "VGG network" in (run.model_path / "README.md").read_text(encoding="utf-8")


def test_without_the_extra_one_line_says_so(
    photos: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    said = command("train", photos, "--model", "timm:resnet10t", "--weights", "none")
    assert said.error == (
        "error: --model timm:NAME needs an extra; install it: pip install 'plusx[timm]'"
    )


def test_a_wrong_size_is_refused_before_any_image_is_read(
    photos: Path, command: Callable[..., Any]
) -> None:
    said = command("train", photos, "--model", "vgg11", "--weights", "none", "--image-size", 16)
    assert "image_size=16 is too small" in said.error
