"""Weights files: safetensors, and torch's pickles without running any code in them."""

from __future__ import annotations

import argparse
import hashlib
import math
import stat
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from plusx.errors import WeightsError
from plusx.weights.names import OPTIONAL

TORCH_SUFFIXES = (".pth", ".pt", ".th", ".bin", ".tar", ".ckpt")
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
EXPORTED = (".onnx", ".xml", ".pt2")
"""Files that ``plusx export`` makes: a network to be run, not weights to be read."""
ONLY_EXPORTED = (
    "is an exported file, which predict, evaluate, explain and serve take; give the run it was "
    "made from"
)

SUFFIXES = (".safetensors", *TORCH_SUFFIXES, *KERAS_SUFFIXES)

WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "teacher",
    "student",
)
"""Under which key a checkpoint keeps its weights; the first one present wins. Averaged weights
(EMA) come first, as in timm: they are the ones a training run that keeps them was judged by. DINO's
teacher is such an average too."""

HARMLESS: list[Any] = [argparse.Namespace]
"""What training scripts put beside the weights (their options), besides what torch itself allows: a
holder of attributes whose making runs no code."""

AVERAGED = "n_averaged"
"""The counter that torch.optim.swa_utils.AveragedModel puts beside its weights."""


def read_state(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a weights file, on the CPU, floating point in float32, and notes about it.

    Raises:
        WeightsError: as ``read_tensors``; or NaN or infinite values, or integer weights.
    """
    state, notes = read_tensors(path)
    check_values(state, path)
    return state, notes


def read_tensors(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """As ``read_state``, with whatever values the file holds.

    Files other than ``.safetensors`` are read by ``torch.load(weights_only=True)``: code in a
    pickle is refused, never run.

    Raises:
        WeightsError: no such file, empty, truncated, not a weights file, code in the pickle, or no
            tensors.
    """
    check_file(path)
    if path.suffix in KERAS_SUFFIXES:
        raise WeightsError(f"{path}: is a file of Keras, which is read for residual networks only")
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    entries, notes = _unwrap(content, path)
    state = {}
    for name, value in entries.items():
        state[name] = value.float() if value.is_floating_point() else value
    state.pop(AVERAGED, None)
    return state, notes


def write_tensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """A ``.safetensors`` file that whoever may read this user's other files may read as well.

    Raises:
        OSError: it cannot be written.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(state), path, metadata=dict(metadata))  # which lets only the owner read
    except SafetensorError as error:
        raise OSError(str(error)) from error
    path.chmod(mode)


def sha256_file(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: Path) -> None:
    """Whether there is a file with something in it, of a known suffix.

    Raises:
        WeightsError: there is not.
    """
    if path.suffix == ".pkl":
        raise WeightsError(
            f"{path}: is a pickle of numpy arrays (detectron2's model zoo): reading it would run "
            "code that it names; where you trust it, convert it once: torch.save({k: "
            "torch.as_tensor(v) for k, v in pickle.load(open(FILE, 'rb'), encoding='latin1')"
            "['model'].items()}, 'NAME.pth')"
        )
    if path.suffix.lower() in EXPORTED:
        raise WeightsError(f"{path}: {ONLY_EXPORTED}")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: not a weights file; known are {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise WeightsError(f"{path}: is a folder; give the weights file in it")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; check the path given to --weights") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise WeightsError(f"{path}: is empty (0 bytes); download or export it again")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: is truncated or not a safetensors file ({error}); download or export it again"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # torch remarks on pickle protocols and old storages; what matters is raised below.
            warnings.simplefilter("ignore")
            with torch.serialization.safe_globals(HARMLESS):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything at all
        raise WeightsError(f"{path}: {_why_not_torch(error)}") from error


def _why_not_torch(error: Exception) -> str:
    text = str(error)
    if any(word in text for word in ("GLOBAL", "Unsupported class", "TorchScript")):
        return (
            "holds code besides tensors, which plusx does not run; save its state_dict() alone "
            "(torch.save(model.state_dict(), FILE) or safetensors) where you trust it"
        )
    if isinstance(error, RuntimeError | EOFError | OSError):
        return "is truncated or not a torch weights file; download or export it again"
    return "is not a torch weights file; export the model's state_dict() or use safetensors"


def _unwrap(content: Any, path: Path) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    if isinstance(content, Mapping):
        found = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if found:
            content = content[found[0]]
            if len(found) > 1:
                notes = (f"{path.name}: took {found[0]!r}, not {', '.join(map(repr, found[1:]))}",)
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            f"{path}: holds no tensors under names; expected a state_dict, bare or under one of "
            f"{', '.join(WRAPPERS)}"
        )
    if others := [str(name) for name, value in content.items() if not isinstance(value, Tensor)]:
        raise WeightsError(
            f"{path}: {len(others)} entries besides the tensors ({', '.join(others[:5])}); "
            "save the model's state_dict() alone"
        )
    return content, notes


def check_values(state: Mapping[str, Tensor], path: Path) -> None:
    """Whether all weights are finite floating-point numbers.

    Raises:
        WeightsError: some are not; names them.
    """
    for name, value in state.items():
        if not value.is_floating_point() and not name.endswith(OPTIONAL):
            raise WeightsError(
                f"{path}: {name} has {value.dtype}; only floating-point weights can be used"
            )
    if wrong := [name for name, value in state.items() if not _is_finite(value)]:
        raise WeightsError(
            f"{path}: NaN or infinite values in {len(wrong)} of {len(state)} tensors "
            f"({', '.join(wrong[:5])}); the training run it comes from had diverged, use another"
        )


def _is_finite(value: Tensor) -> bool:
    if value.numel() == 0 or not value.is_floating_point():
        return True
    # Both carry NaN along; ten times as fast as torch.isfinite.
    low, high = torch.aminmax(value)
    return math.isfinite(low) and math.isfinite(high)
