"""Exported files predict as the run does that they were made from, unknown images included."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plusx
from plusx.data import read_image
from plusx.decide import Decision, Sets, Unknown, normalised
from plusx.engines.exported import open_exported
from plusx.errors import ArtifactError, UsageError
from plusx.export.write import write_exported
from plusx.predict import Prediction, Predictor
from plusx.weights import Artifact, load_artifact

onnx = pytest.importorskip("onnx", reason="extra 'onnx' absent")
pytest.importorskip("openvino", reason="extra 'openvino' absent")

FILES = [
    ("onnx", ".onnx", "onnxruntime"),
    ("onnx", ".onnx", "openvino"),
    ("openvino", ".xml", "openvino"),
    ("torch", ".pt2", "torch"),
]


@pytest.fixture(scope="module")
def artifact(finished: plusx.Run, photos: Path) -> Artifact:
    """One that decides: sets, sureness, and a bank so near one class that others are unknown."""
    loaded = load_artifact(finished.path)
    images = [loaded.preprocessing(torch.from_numpy(read_image(path)))
              for path in sorted((photos / "train" / "across").iterdir())[:12]]  # fmt: skip
    with torch.inference_mode():
        features = loaded.model.eval().features(torch.stack(images)).numpy()
    unknown = Unknown(0.02, 0.1, 3, normalised(features).astype(np.float16))
    decision = Decision(temperature=1.7, sureness=0.8, sets=Sets(0.9, (0.2, 0.3)), unknown=unknown)
    return replace(loaded, decision=decision)


@pytest.fixture(scope="module")
def file(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("exported")

    def make(to: Any, ending: str, preprocessed: bool = False) -> Path:
        path = folder / f"net-{preprocessed}{ending}"
        if not path.exists():
            write_exported(artifact, path, to=to, precision="fp32", name="net",
                           preprocessed=preprocessed)  # fmt: skip
        return path

    return make


@pytest.mark.parametrize(("to", "ending", "engine"), FILES)
def test_a_file_decides_as_its_run(
    artifact: Artifact, file: Callable[..., Path], photos: Path, to: str, ending: str, engine: str
) -> None:
    path = file(to, ending)
    predictor = Predictor(path, engine=engine, threads=2)
    assert (predictor.engine.name, predictor.engine.precision) == (engine, "float32")
    wanted = Predictor(artifact, device="cpu").predict(photos / "val")
    found = predictor.predict(photos / "val")
    assert isinstance(wanted, list)
    assert isinstance(found, list)
    assert {one.decision for one in wanted} >= {"answer", "unknown"}
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
        assert (one.path, one.label, one.set) == (other.path, other.label, other.set)
        assert one.unknown_score == pytest.approx(other.unknown_score, abs=1e-3)
        if abs((other.unknown_score or 0) - 0.02) > 1e-3:
            assert one.decision == other.decision


def test_a_file_without_preprocessing_is_given_it(
    artifact: Artifact, file: Callable[..., Path], photos: Path
) -> None:
    image = next((photos / "val" / "upright").iterdir())
    found = Predictor(file("onnx", ".onnx", True)).predict(image)
    wanted = Predictor(artifact, device="cpu").predict(image)
    assert isinstance(found, Prediction)
    assert isinstance(wanted, Prediction)
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-4)


def test_evaluate_takes_a_file_and_says_what_it_leaves_out(
    file: Callable[..., Path], photos: Path, command: Callable[..., Any]
) -> None:
    said = command("evaluate", file("onnx", ".onnx"), photos, "--engine", "onnxruntime", "--json")
    assert said.code == 0, said.err
    assert '"engine": {"name": "onnxruntime", "precision": "float32"}' in said.out
    assert "unknown images are not judged" in said.err


@pytest.mark.parametrize(("to", "ending"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_an_edited_file_is_refused(
    file: Callable[..., Path], tmp_path: Path, to: str, ending: str
) -> None:
    good = file(to, ending)
    copy = tmp_path / f"copy{ending}"
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    if ending == ".xml":
        shutil.copy(good.with_suffix(".bin"), copy.with_suffix(".bin"))
    with pytest.raises(ArtifactError, match=r"edited, damaged|cannot be read|carries no"):
        open_exported(copy)
    copy.write_bytes(bytes(data[: len(data) // 3]))
    with pytest.raises(ArtifactError):
        open_exported(copy)


def test_what_is_no_file_of_ours_is_one_line(
    file: Callable[..., Path], photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    foreign = onnx.load(str(file("onnx", ".onnx")))
    del foreign.metadata_props[:]
    onnx.save(foreign, str(tmp_path / "foreign.onnx"))
    (tmp_path / "text.pt2").write_text("no archive")
    for name, said in (
        ("foreign.onnx", "plusx did not export it"),
        ("text.pt2", "cannot be read"),
        ("absent.xml", "is not there"),
    ):
        ended = command("predict", tmp_path / name, photos / "val")
        assert said in ended.error
    ended = command("predict", file("onnx", ".onnx"), photos / "val", "--engine", "torch")
    assert "runs in openvino or onnxruntime" in ended.error
    for how in ({"device": "cuda"}, {"precision": "float16"}, {"engine": "onnxruntime",
                "precision": "bfloat16"}):  # fmt: skip
        with pytest.raises(UsageError, match=r"--device|--precision"):
            Predictor(file("onnx", ".onnx"), **how)  # type: ignore[arg-type]
