"""A run as a file for another runtime: every target and precision, and the check that can fail."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import plusx
from plusx import Run
from plusx.data import read_image
from plusx.errors import ArtifactError, MissingExtra
from plusx.export import TARGETS
from plusx.export.runtimes import Runtime, open_exported
from plusx.jobs.export import Exported
from plusx.jobs.parity import check
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact
from plusx.weights.exported import KEY, ExportMetadata
from plusx.weights.seal import SEAL, check_seal

ALL = [(to, precision) for to, target in TARGETS.items() for precision in target.precisions]
EXTRA = {"onnx": "onnx", "openvino": "openvino"}


@pytest.fixture(scope="module")
def val(photos: Path) -> list[str]:
    return sorted(str(path) for path in (photos / "val").rglob("*.png"))


@pytest.mark.parametrize(("to", "precision"), ALL)
def test_every_target_and_precision_gives_the_run_s_answers(
    exported: Callable[[str, str], Exported], finished: Run, val: list[str], to: str, precision: str
) -> None:
    done = exported(to, precision)
    assert done.parity is not None
    assert done.parity.images == len(val)
    report = json.loads(Path(done.files[-1]).read_text(encoding="utf-8"))
    assert report["parity"]["agreement"] == done.parity.agreement >= 0.9
    check_seal(Path(done.path))
    runtime = open_exported(Path(done.path), done.to, done.precision, preprocessed=False)
    predictor = plusx.Predictor(finished.model_path, device="cpu")
    answers = predictor.predict(val)
    assert isinstance(answers, list)
    images = np.stack([read_image(path) for path in val])
    found = runtime.run(images)
    allowed = {"fp32": 1e-4, "fp16": 0.01, "bf16": 0.05, "int8": 0.2}[precision]
    wanted = np.stack([one.probabilities for one in answers])
    assert np.abs(found["probabilities"] - wanted).max() <= allowed
    assert done.parity.largest <= allowed
    assert {value.dtype.name for value in found.values()} == {"float32"}
    if answers[0].unknown_score is not None:
        scores = np.array([one.unknown_score for one in answers])
        assert np.abs(found["unknown_score"] - scores).max() <= allowed
    # One image, and other sizes: nothing in the file is fixed to what it was traced with.
    np.testing.assert_allclose(runtime.run(images[:1])["logits"], found["logits"][:1], atol=1e-3)
    other = np.random.default_rng(0).integers(0, 256, (3, 77, 51, 3), dtype=np.uint8)
    assert runtime.prepare is not None
    p = load_artifact(finished.path).preprocessing
    inputs = np.stack([p(torch.from_numpy(one)).numpy() for one in other])
    assert np.abs(runtime.prepare(other) - inputs).max() < (0.1 if precision == "bf16" else 1e-3)


def test_what_the_file_says_of_itself(
    exported: Callable[[str, str], Exported], finished: Run
) -> None:
    onnx = pytest.importorskip("onnx", reason="extra 'onnx' absent")
    artifact = load_artifact(finished.path)
    found = onnx.load(exported("onnx", "fp32").path)
    said = {one.key: one.value for one in found.metadata_props}
    metadata = ExportMetadata.from_json(said[KEY], "it")
    assert metadata.classes == artifact.classes
    assert metadata.parent == artifact.sha256
    assert metadata.preprocessing == artifact.preprocessing
    assert metadata.decision == artifact.decision.to_dict()
    assert json.loads(said["classes"]) == list(artifact.classes)
    assert "uint8" in said["input"]
    assert [(one.domain, one.version) for one in found.opset_import] == [("", 18)]
    shape = found.graph.input[0].type.tensor_type.shape.dim
    assert [one.dim_param for one in shape[:3]] == ["N", "H", "W"]
    assert not any(node.metadata_props or node.doc_string for node in found.graph.node)
    assert not any(node.op_type in ("BatchNormalization", "Resize") for node in found.graph.node)
    assert str(Path(__file__).parents[2]).encode() not in found.SerializeToString()


def test_int8_keeps_what_hurts_in_float(exported: Callable[[str, str], Exported]) -> None:
    """At least one convolution reads its weights as they are; the others are quantised, per
    channel; nothing before the network or behind it is."""
    onnx = pytest.importorskip("onnx", reason="extra 'onnx' absent")
    graph = onnx.load(exported("onnx", "int8").path).graph
    plain = {one.name: one for one in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = [node for node in convolutions if node.input[1] in plain]
    assert 1 <= len(kept) < len(convolutions)
    made = {name: node for node in graph.node for name in node.output}
    quantised = next(node for node in convolutions if node not in kept)
    scale = plain[made[quantised.input[1]].input[1]]
    assert len(scale.dims) == 1
    for node in convolutions:  # all 8 bits, of the first one too
        if node not in kept:
            eight = onnx.numpy_helper.to_array(plain[made[node.input[1]].input[0]])
            assert np.abs(eight.astype(int)).max() >= 126
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            assert all(made[one].op_type != "DequantizeLinear" for one in node.input if one in made)


def test_openvino_and_torch_carry_the_same(
    exported: Callable[[str, str], Exported], finished: Run
) -> None:
    openvino = pytest.importorskip("openvino", reason="extra 'openvino' absent")
    model = openvino.Core().read_model(exported("openvino", "fp32").path)
    text = model.get_rt_info([KEY]).astype(str)
    extra = {KEY: "", SEAL: ""}
    torch.export.load(exported("torch", "fp32").path, extra_files=extra)
    wanted = load_artifact(finished.path).sha256
    assert ExportMetadata.from_json(text, "it").parent == wanted
    assert ExportMetadata.from_json(extra[KEY], "it").parent == wanted


def test_an_edited_file_is_refused(
    exported: Callable[[str, str], Exported], tmp_path: Path
) -> None:
    for to in TARGETS:
        source = Path(exported(to, "fp32").path)
        file = tmp_path / source.name
        shutil.copy(source, file)
        if to == "openvino":
            with pytest.raises(ArtifactError, match="copy both files"):
                check_seal(file)
            shutil.copy(source.with_suffix(".bin"), file.with_suffix(".bin"))
        check_seal(file)
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"as plusx wrote it|cannot be read"):
            check_seal(file)
        file.write_bytes(b"something else")
        with pytest.raises(ArtifactError, match=r"did not export it|cannot be read"):
            check_seal(file)


def test_a_file_that_answers_otherwise_fails_the_check(
    exported: Callable[[str, str], Exported], finished: Run
) -> None:
    done = exported("torch", "fp32")
    artifact = load_artifact(finished.path)
    good = open_exported(Path(done.path), done.to, done.precision, preprocessed=False)
    samples = [plusx.data.Sample(str(path), int(path.parent.name == artifact.classes[1]))
               for path in sorted(finished_images(finished))]  # fmt: skip
    extra = {KEY: ""}
    torch.export.load(done.path, extra_files=extra)
    exact = ExportMetadata.from_json(extra[KEY], "it")
    rough = ExportMetadata.from_json(extra[KEY].replace('"fp32"', '"int8"'), "it")

    def compared(runtime: Runtime, metadata: ExportMetadata) -> str:
        return check(runtime, artifact, metadata, samples, source="them", tolerance=None,
                     talk=Talk(quiet=True)).failed  # fmt: skip

    def darker(images: np.ndarray) -> dict[str, np.ndarray]:
        return good.run((images * 0.97).astype(np.uint8))

    def swapped(images: np.ndarray) -> dict[str, np.ndarray]:
        found = good.run(images)
        return found | {"probabilities": found["probabilities"][:, ::-1]}

    def nothing(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value * np.nan for name, value in good.run(images).items()}

    assert good.prepare is not None
    prepare = good.prepare
    assert compared(good, exact) == compared(good, rough) == ""
    assert "differ by" in compared(Runtime("it", darker, prepare), exact)
    assert "the resize alone" in compared(
        Runtime("it", good.run, lambda images: prepare(np.roll(images, 1, axis=1))), exact
    )
    assert "accuracy lost" in compared(Runtime("it", swapped, prepare), rough)
    assert compared(Runtime("it", nothing, prepare), rough)


def finished_images(run: Run) -> list[Path]:
    kept = plusx.Predictions.load(run.path / "predictions" / "val.npz")
    return [Path(path) for path in kept.paths]


def test_beyond_the_tolerance_nothing_is_left(
    finished: Run, photos: Path, tmp_path: Path, command
) -> None:
    """Calibrated on black images, int8 answers alike for all: the export fails, and says so."""
    pytest.importorskip("nncf", reason="extra 'int8' absent")
    from PIL import Image

    (tmp_path / "black").mkdir()
    for number in range(32):
        Image.new("RGB", (32, 32)).save(tmp_path / "black" / f"{number}.png")
    out = tmp_path / "new" / "it.onnx"
    said = command("export", finished.path, "--precision", "int8", "--calibrate",
                   tmp_path / "black", "--out", out, "--tolerance", "0.5")  # fmt: skip
    assert "was not written" in said.error
    assert "points" in said.error
    assert not out.parent.exists()


def test_no_preprocessing_takes_the_network_s_input(finished: Run, tmp_path: Path, command) -> None:
    pytest.importorskip("onnxruntime", reason="extra 'onnx' absent")
    out = tmp_path / "it.onnx"
    said = command("export", finished.path, "--no-preprocessing", "--out", out, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["parity"]["resize_grey_levels"] is None
    runtime = open_exported(out, "onnx", "fp32", preprocessed=True)
    size = load_artifact(finished.path).preprocessing.size
    assert len(runtime.run(np.zeros((5, 3, size, size), np.float32))["logits"]) == 5
    again = command("export", finished.path, "--out", out)
    assert "--overwrite" in again.error


def test_bad_input(finished: Run, photos: Path, tmp_path: Path, command) -> None:
    def error(*words: object) -> str:
        return str(command("export", finished.path, *words).error)

    assert "onnxruntime has no bfloat16" in error("--precision", "bf16")
    assert "--to openvino or torch" in error("--precision", "bf16")
    assert "--to onnx or openvino" in error("--to", "torch", "--precision", "int8")
    assert "'coreml' is not one of onnx" in error("--to", "coreml")
    assert "'fp8' is not one of fp32" in error("--precision", "fp8")
    assert "must end in .onnx" in error("--out", tmp_path / "x.pt")
    assert "is a folder" in error("--out", tmp_path)
    assert "for --precision int8" in error("--calibrate", photos)
    assert "lower precisions" in error("--tolerance", 1)
    assert "leaves nothing" in error("--no-check", "--check", photos)
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted((photos / "val" / "across").iterdir())[:5]:
        shutil.copy(path, few)
    assert "5 images to calibrate on, int8 needs at least 32" in error(
        "--precision", "int8", "--calibrate", few
    )
    for number in range(40):
        (few / f"bad{number}.png").write_bytes(b"no image")
    assert "can be read, int8 needs at least 32" in error("--precision", "int8", "--calibrate", few)
    locked = tmp_path / "file"
    locked.write_text("")
    assert "cannot be written" in error("--to", "torch", "--out", locked / "sub" / "x.pt2")


def test_without_images_at_hand_it_asks_for_them(
    finished: Run, photos: Path, tmp_path: Path, command
) -> None:
    model = tmp_path / "alone"
    shutil.copytree(finished.model_path, model)
    said = command("export", model, "--to", "torch")
    assert "--check DATA" in said.error
    assert not (model / "export").exists()
    assert "--calibrate DATA" in command("export", model, "--precision", "int8").error
    done = command("export", model, "--to", "torch", "--no-check", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["checked"] is False
    assert "--no-check" in done.err
    labels = command("export", model, "--to", "torch", "--check", photos / "val" / "across",
                     "--json", "--overwrite")  # fmt: skip
    parity = json.loads(labels.out)["parity"]
    assert parity["images"] == 16
    assert parity["drop"] is None


def test_a_full_disk_leaves_nothing(finished: Run, tmp_path: Path) -> None:
    """A process that may write 20 kB to a file, run as a user runs it."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        f"sys.argv = ['plusx', 'export', {str(finished.path)!r}, '--to', 'torch', '--no-check',"
        f" '--out', {str(tmp_path / 'new' / 'x.pt2')!r}];"
        "from plusx.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import plusx.export.targets as targets

    monkeypatch.setattr(targets, "find_spec", lambda name: None)
    for to, precision, extra in [("onnx", "fp32", "onnx"), ("openvino", "bf16", "openvino")]:
        with pytest.raises(MissingExtra, match=rf"plusx\[{extra}\]"):
            targets.check_target(to, precision)
    targets.check_target("torch", "fp32")
