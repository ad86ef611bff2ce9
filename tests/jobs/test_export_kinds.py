"""Models of every kind, on images of any shape: the file decides as its run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.data import Preprocessing
from plusx.decide import Decision
from plusx.jobs.export import Checking, export
from plusx.jobs.talk import Talk
from plusx.predict import Predictor
from plusx.weights import save_artifact, write_decision

SHAPES = [(1, 1), (1, 300), (300, 2), (31, 33), (200, 120), (9, 64)]
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "pad": ("onnx", ".onnx", {"mode": "pad", "interpolation": "bicubic"}),
    "squish": ("openvino", ".xml", {"mode": "squish"}),
    "grey": ("torch", ".pt2", {"channels": 1}),
    "several labels": ("onnx", ".onnx", {}),
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph of each shape, and a grey one, in one folder."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for number, shape in enumerate(SHAPES):
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    return folder


@pytest.mark.parametrize("kind", list(KINDS))
def test_it_decides_as_its_run(
    kind: str, shapes: Path, tmp_path: Path, randomise: Callable[..., Any]
) -> None:
    to, ending, changed = KINDS[kind]
    pytest.importorskip(
        {"onnx": "onnxruntime"}.get(to, to), reason=f"extra '{to}' absent"
    )  # fmt: skip
    channels = changed.get("channels", 3)
    task: Any = "multi" if kind == "several labels" else "single"
    net = randomise(plusx.create("resnet8_cifar_a", weights="none", classes=3, seed=1,
                                 in_channels=channels))  # fmt: skip
    own = {name: value for name, value in changed.items() if name != "channels"}
    p = replace(Preprocessing.for_size(32, channels=channels), **own)
    model = tmp_path / "run" / "model"
    save_artifact(model, net, classes="xyz", preprocessing=p, task=task, provenance={}, card="")
    if task == "multi":
        write_decision(model, Decision(thresholds=(0.05, 0.5, 0.95)))
    out = tmp_path / f"it{ending}"
    done = export(tmp_path / "run", to=to, out=out, checking=Checking(shapes),
                  talk=Talk(quiet=True))  # fmt: skip
    assert done.parity is not None
    assert done.parity.largest <= 1e-4
    assert done.parity.images == len(SHAPES) + 1
    wanted = Predictor(model, device="cpu").predict(shapes)
    found = Predictor(out, device="cpu").predict(shapes)
    assert isinstance(wanted, list)
    assert isinstance(found, list)
    for one, other in zip(wanted, found, strict=True):
        assert (one.labels, one.task) == (other.labels, other.task)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    if task == "multi":
        assert {one.marks.tolist()[0] for one in wanted if one.marks is not None} == {True}


def test_a_file_is_no_model_to_train_or_export(
    exported: Callable[[str, str], Any], photos: Path, tmp_path: Path, command: Any
) -> None:
    """Each command that needs weights says in one line what it needs instead."""
    file = exported("torch", "fp32").path
    for words in (
        ("export", file),
        ("slim", file),
        ("train", photos, "--weights", file, "--out", tmp_path / "run"),
        ("import", file, "--out", tmp_path / "run"),
    ):
        said = command(*words)
        assert said.code == 2, words
        assert Path(file).name in said.error
        assert "is an exported file" in said.error, words
        assert not (tmp_path / "run").exists()
