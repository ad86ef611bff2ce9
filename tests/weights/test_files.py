from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plusx.errors import WeightsError
from plusx.weights.files import WRAPPERS, read_state, sha256_file, write_tensors


class Code:
    """A pickle that runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def tensors() -> dict[str, torch.Tensor]:
    return {"conv1.weight": torch.ones(2, 3, 1, 1), "fc.bias": torch.arange(4.0)}


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_state(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin", ".pth.tar", ".ckpt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files_of_every_suffix(tmp_path, suffix, legacy):
    path = tmp_path / f"w{suffix}"
    torch.save(tensors(), path, _use_new_zipfile_serialization=not legacy)
    state, notes = read_state(path)
    assert notes == ()
    assert all(torch.equal(state[k], v) for k, v in tensors().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    counter = torch.tensor(3)
    save_file(
        {k: v.to(dtype) for k, v in tensors().items()} | {"num_batches_tracked": counter}, path
    )
    state, _ = read_state(path)
    assert {v.dtype for k, v in state.items() if k != "num_batches_tracked"} == {torch.float32}
    assert torch.equal(state["fc.bias"], tensors()["fc.bias"])
    assert state["num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(tmp_path, wrapper):
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, wrapper: tensors(), "optimizer": {"lr": 0.1}}, path)
    state, notes = read_state(path)
    assert list(state) == list(tensors())
    assert notes == ()


def test_averaged_weights_win_and_that_is_said(tmp_path):
    path = tmp_path / "w.pth"
    averaged = {k: v + 1 for k, v in tensors().items()}
    torch.save({"state_dict": tensors(), "state_dict_ema": averaged}, path)
    state, notes = read_state(path)
    assert torch.equal(state["fc.bias"], averaged["fc.bias"])
    assert notes == ("w.pth: took 'state_dict_ema', not 'state_dict'",)


def test_missing(tmp_path):
    assert "no such file" in refusal(tmp_path / "w.pth")


def test_a_folder(tmp_path):
    (tmp_path / "w.pth").mkdir()
    assert "folder" in refusal(tmp_path / "w.pth")


def test_unknown_suffix(tmp_path):
    path = tmp_path / "w.weights"
    path.write_bytes(b"x")
    assert ".safetensors" in refusal(path)


def test_exported_file(tmp_path):
    path = tmp_path / "w.onnx"
    path.write_bytes(b"x")
    assert "is an exported file" in refusal(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_empty(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    path.touch()
    assert "0 bytes" in refusal(path)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated(tmp_path, kind, part):
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(tensors(), path)
    else:
        torch.save(tensors(), path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    text = refusal(path)
    assert "truncated" in text or "not a torch weights file" in text


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"hello, this is a text\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8]
)
def test_something_else_altogether(tmp_path, suffix, content):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    assert "not a" in refusal(path)


def test_a_zip_of_something_else(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "x")
    assert "not a torch weights file" in refusal(path)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, kind):
    marker, path = tmp_path / "ran", tmp_path / "w.pth"
    content = {"state_dict": tensors(), "extra": Code(marker)}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"extra": Code(marker)}, protocol=2))
    assert "holds code" in refusal(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Code(marker)))  # while it would have run elsewhere
    assert marker.exists()


def test_a_whole_pickled_model_is_refused_with_the_remedy(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "state_dict()" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_numbers(tmp_path, value):
    state = tensors()
    state["fc.bias"][2] = value
    save_file(state, tmp_path / "w.safetensors")
    assert "NaN or infinite values in 1 of 2 tensors (fc.bias)" in refusal(
        tmp_path / "w.safetensors"
    )


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], {"state_dict": {}}])
def test_no_tensors(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert "holds no tensors" in refusal(tmp_path / "w.pth")


def test_other_things_among_the_tensors(tmp_path):
    torch.save(tensors() | {"epoch": 3}, tmp_path / "w.pth")
    assert "epoch" in refusal(tmp_path / "w.pth")


def test_integer_weights(tmp_path):
    save_file({"fc.weight": torch.ones(2, 2, dtype=torch.int8)}, tmp_path / "w.safetensors")
    assert "fc.weight has torch.int8" in refusal(tmp_path / "w.safetensors")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_a_name_that_stands_twice_in_a_header(tmp_path):
    entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = f"{{{entry % (0, 4)},{entry % (4, 8)}}}".encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "not a safetensors file" in refusal(path)


def test_options_of_a_training_script_beside_the_weights(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": tensors(), "args": argparse.Namespace(lr=0.1, out=["a"])}, path)
    state, _ = read_state(path)
    assert list(state) == list(tensors())


def test_weights_may_be_read_by_whoever_may_read_other_files(tmp_path):
    (tmp_path / "other").write_text("")
    write_tensors({"x": torch.zeros(2)}, tmp_path / "w.safetensors", {"format": "pt"})
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    assert read_state(tmp_path / "w.safetensors")[0]["x"].shape == (2,)
