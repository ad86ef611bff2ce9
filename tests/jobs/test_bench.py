"""Networks timed: the figures hang together, what cannot be run is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import plusx
from plusx.errors import ArtifactError, UsageError
from plusx.evaluate.bench_plots import Point, front, latencies, save_plot
from plusx.evaluate.intervals import Figure
from plusx.jobs.bench import parse_batches
from plusx.jobs.bench_engines import AS_EXPORTED, ENGINES, make, parse_engines, parse_precisions
from plusx.jobs.bench_memory import peak_memory
from plusx.jobs.bench_subjects import find_subject
from plusx.jobs.bench_timing import busy_note, interleave
from plusx.jobs.talk import Talk

QUICK = {"seconds": 0.02, "memory": False, "engine": "torch"}


def test_a_model_folder_beside_a_variant(tiny_weights, tmp_path):
    found = plusx.bench(
        tiny_weights, "resnet8_cifar_a", batch="1,3", precision="float32,bfloat16",
        out=tmp_path / "out", talk=Talk(quiet=True), **QUICK,
    )  # fmt: skip
    keys = [(row.subject.name, row.precision, row.batch) for row in found.rows]
    assert keys == [
        (name, kind, size)
        for name in (tiny_weights.name, "resnet8_cifar_a")
        for kind in ("float32", "bfloat16")
        for size in (1, 3)
    ]
    for row in found.rows:
        time = row.timing
        assert 0 < time.low_ms <= time.p50_ms <= time.high_ms
        assert time.p50_ms <= time.p95_ms
        assert time.calls >= 5
    run = found.rows[0].subject
    assert run.params == sum(p.numel() for p in plusx.create(
        weights=str(tiny_weights)).parameters())  # fmt: skip
    assert run.file_mib == (tiny_weights / "model.safetensors").stat().st_size / 2**20
    assert (found.rows[-1].subject.params, found.rows[-1].subject.size) == (75_290, 32)
    kept = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert kept == json.loads(json.dumps(found.to_json()))
    assert kept["machine"]["cores"] >= 1
    assert "bfloat16" in (tmp_path / "out" / "bench.svg").read_text()
    assert (tmp_path / "out" / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_calls_take_turns_and_none_follows_the_same_other_always():
    seen: list[str] = []
    calls = {name: lambda name=name: seen.append(name) for name in "abc"}
    told: list[str] = []
    found = interleave(
        calls, seconds=1e-9, items={"a": 1, "b": 2, "c": 4}, rounds=3, tick=told.append
    )
    assert seen[:3] == ["a", "b", "c"]  # warming up
    turns = seen[3::2]  # each share is a call that is not timed, and one that is
    assert turns == seen[4::2] == told == [*"abc", *"bca", *"cab"]
    assert [one.calls for one in found.values()] == [3, 3, 3]


def test_images_a_second_count_images():
    found = interleave({"a": lambda: None}, seconds=0.001, items={"a": 1000}, rounds=2)["a"]
    assert found.per_s == pytest.approx(1000 * 1000 / found.p50_ms, rel=0.9)


def test_memory_grows_with_the_batch():
    found = peak_memory("resnet18", "torch", "float32", [1, 16], device="cpu")
    if not Path("/proc/self/status").is_file():
        assert found == {}
        return
    assert found[1] > 40  # the weights alone are 45 MiB
    assert found[16] > found[1] + 30


def test_a_busy_machine_is_said():
    assert busy_note(None) is None
    assert busy_note(0.0) is None
    assert "so these figures mislead" in str(busy_note(64.0))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_an_engine_runs_the_network_it_was_given(tiny_weights, engine):
    pytest.importorskip(engine, reason=f"extra '{ENGINES[engine]}' absent")
    model = plusx.create(weights=str(tiny_weights)).eval()
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images))
    found = make(engine, "float32", model)(images)
    assert np.allclose(found.logits, wanted.numpy(), atol=1e-3)


def test_a_precision_that_an_engine_lacks_is_refused(tiny_weights):
    model = plusx.create(weights=str(tiny_weights))
    with pytest.raises(UsageError, match="onnxruntime computes in float32 on CPUs, not in bfl"):
        make("onnxruntime", "bfloat16", model)
    with pytest.raises(UsageError, match="openvino computes in float32 or bfloat16 on CPUs"):
        make("openvino", "float16", model)
    talk = Talk(quiet=True)
    with pytest.raises(UsageError, match=r"none of it can be run here .*onnxruntime computes in"):
        plusx.bench(tiny_weights, engine="onnxruntime", precision="float16", talk=talk)


def test_names_are_checked():
    assert parse_engines("torch, openvino,torch") == ("torch", "openvino")
    assert "float32" in parse_precisions(None, "cpu")
    assert parse_batches("1, 8,1") == (1, 8)
    assert parse_batches([2, 4]) == (2, 4)
    for bad in ("0", "1,x", "", "5000", "-1"):
        with pytest.raises(UsageError, match="--batch"):
            parse_batches(bad)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resnet8_cifar_a", "--engine", "tensorflow"], "--engine 'tensorflow' is not one of"),
        (["resnet8_cifar_a", "--precision", "int4"], "--precision 'int4' is not one of"),
        (["resnet8_cifar_a", "--batch", "0"], "--batch '0' must be whole numbers"),
        (["resnet8_cifar_a", "--seconds", "0"], "--seconds 0 must be above 0"),
        (["resnet8x"], "is neither a run, nor an exported file (.onnx, .xml), nor a network"),
        (["nothing.onnx"], "nothing.onnx: does not exist"),
        (["resnet8_cifar_a", "--plot", "speed.pdf"], "must end in .svg or .png"),
        (["resnet8_cifar_a", "--device", "cuda:77"], "is not available on this machine"),
    ],
)
def test_what_cannot_be_timed_is_one_line(command, words, said):
    assert said in command("bench", *words).error


def test_a_folder_without_a_model_is_refused(command, tmp_path):
    assert "holds no model" in command("bench", tmp_path).error


def test_from_files_to_answers_bad_images_are_listed(command, tiny_weights, photos, tmp_path):
    for number, path in enumerate(sorted(photos.rglob("*.png"))[:3]):
        (tmp_path / f"{number}.png").write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    done = command("bench", tiny_weights, "--engine", "torch", "--seconds", "0.02", "--no-memory",
                   "--precision", "float32", "--end-to-end", tmp_path, "--json")  # fmt: skip
    assert done.code == 1
    (whole,) = json.loads(done.out)["end_to_end"]
    assert whole["images"] == 3
    assert [path.rpartition("/")[2] for path in whole["bad"]] == ["broken.png"]


def test_the_table_says_what_was_measured(command, tmp_path):
    done = command("bench", "resnet8_cifar_a", "--engine", "torch", "--seconds", "0.02",
                   "--batch", "2", "--no-memory", "--plot", tmp_path / "speed.svg")  # fmt: skip
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1].split()[:4] == ["network", "engine", "precision", "batch"]
    assert lines[2].split()[:4] == ["resnet8_cifar_a", "torch", "float32", "2"]
    assert "75,290" in lines[2]
    assert (tmp_path / "speed.svg").read_text().startswith("<svg")


def onnx_file(path, shape, kind):
    """A graph that takes the mean over pixels."""
    onnx = pytest.importorskip("onnx", reason="extra 'onnx' absent")
    pytest.importorskip("onnxruntime", reason="extra 'onnx' absent")
    helper, proto = onnx.helper, onnx.TensorProto
    image = helper.make_tensor_value_info("images", getattr(proto, kind), shape)
    out = helper.make_tensor_value_info("logits", proto.FLOAT, None)
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=proto.FLOAT),
        helper.make_node("ReduceMean", ["x"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "g", [image], [out])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("shape", "kind", "given"),
    [
        (["n", 3, 32, 32], "FLOAT", (2, 3, 32, 32)),
        (["n", "h", "w", 3], "UINT8", (2, 256, 256, 3)),
    ],
)
def test_an_exported_file_runs_as_it_is(tmp_path, shape, kind, given):
    path = onnx_file(tmp_path / "net.onnx", shape, kind)
    subject = find_subject(str(path))
    assert subject.images(2).shape == given
    found = plusx.bench(path, engine="onnxruntime", batch="2", seconds=0.02, memory=False,
                        talk=Talk(quiet=True))  # fmt: skip
    (row,) = found.rows
    assert (row.engine, row.precision) == ("onnxruntime", AS_EXPORTED)
    assert row.subject.params is None


def test_openvino_runs_the_same_file(tmp_path):
    path = onnx_file(tmp_path / "net.onnx", ["n", 3, 32, 32], "FLOAT")
    pytest.importorskip("openvino", reason="extra 'openvino' absent")
    subject = find_subject(str(path))
    images = subject.images(2)
    found = subject.prepare("openvino", AS_EXPORTED)(images)
    assert np.allclose(next(iter(found.values())), images.mean((2, 3)), atol=1e-5)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    path = onnx_file(tmp_path / "net.onnx", ["n", "c", 8, 8], "FLOAT")
    with pytest.raises(ArtifactError, match=r"net\.onnx.*is no batch of images"):
        find_subject(str(path))
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="cannot read it"):
        find_subject(str(path))


def test_pictures_name_what_they_show(tmp_path):
    svg = latencies({1: {"a net": (1.0, 2.0, 900.0)}, 16: {"a net": (9.0, 11.0, 1700.0)}}).svg()
    assert "a net" in svg
    assert "1.7e+03 images/s" in svg
    with pytest.raises(UsageError, match="nothing to draw"):
        latencies({})
    points = [Point("slow <b>", 40.0, Figure(0.9, 0.85, 0.93), True, True),
              Point("fast", 2.0, Figure(0.8, 0.7, 0.9), True, False)]  # fmt: skip
    svg = front(points, budget_ms=20.0).svg()
    assert "slow &lt;b&gt;" in svg
    assert ">20<" in svg
    with pytest.raises(UsageError, match="nothing to draw"):
        front([])
    with pytest.raises(UsageError, match="must end in"):
        save_plot(front(points), tmp_path / "front.pdf")
