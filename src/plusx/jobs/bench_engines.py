"""Which engines there are, which of them are here, and a network ready to be timed on one."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from plusx.engines import TorchEngine
from plusx.engines.onnxruntime import OnnxRuntimeEngine
from plusx.engines.openvino import OpenVINOEngine, has_bfloat16
from plusx.errors import MissingExtra, UsageError
from plusx.model.classifier import Classifier
from plusx.runtime import PRECISIONS, fast_dtype, resolve_device

ENGINES = {"torch": "", "onnxruntime": "onnx", "openvino": "openvino"}
"""Engine -> the extra that it comes with; none for the one that is always there."""

CPU_PRECISIONS = {"onnxruntime": ("float32",), "openvino": ("float32", "bfloat16")}
"""What those that run on CPUs alone compute in."""

AS_EXPORTED = "as exported"
"""The precision of a file that somebody exported: it is what it is."""

Images = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Run = Callable[[Images], object]
"""Runs one batch to its end."""


def installed(engine: str) -> bool:
    """Whether its library is here."""
    return find_spec(engine) is not None


def missing(engine: str) -> str:
    """What to say of an engine that is not here."""
    return f"not installed: pip install 'plusx[{ENGINES[engine]}]'"


def parse_engines(text: str | None) -> tuple[str, ...]:
    """``torch,openvino`` -> names; all where nothing is asked for.

    Raises:
        UsageError: a name is no engine.
    """
    names = _names(text) or tuple(ENGINES)
    for name in names:
        if name not in ENGINES:
            raise UsageError(f"--engine {name!r} is not one of {', '.join(ENGINES)}")
    return names


def parse_precisions(text: str | None, device: str) -> tuple[str, ...]:
    """``float32,bfloat16`` -> names; by default float32 and the fastest of the same range.

    Raises:
        UsageError: a name is no precision.
    """
    fastest = str(fast_dtype(resolve_device(device))).removeprefix("torch.")
    names = _names(text) or ("float32", fastest)
    known = ("auto", *PRECISIONS)
    for name in names:
        if name not in known:
            raise UsageError(f"--precision {name!r} is not one of {', '.join(known)}")
    return tuple(dict.fromkeys(fastest if name == "auto" else name for name in names))


def make(engine: str, precision: str, model: Classifier, *, device: str = "auto") -> Run:
    """The network on an engine, as a function of preprocessed images (N, C, S, S) float32.

    Args:
        engine: one of ``ENGINES``.
        precision: one of ``plusx.runtime.PRECISIONS``.
        model: the network; a copy of it runs.
        device: of torch.

    Raises:
        MissingExtra: the engine is not installed.
        UsageError: it does not know that precision.
    """
    if engine == "torch":
        dtype = getattr(torch, precision)
        return TorchEngine(model, device=resolve_device(device), dtype=dtype).run
    if precision not in CPU_PRECISIONS[engine]:
        known = " or ".join(CPU_PRECISIONS[engine])
        raise UsageError(f"{engine} computes in {known} on CPUs, not in {precision}")
    if not installed(engine):
        raise MissingExtra(f"--engine {engine}", ENGINES[engine])
    if engine == "onnxruntime":
        return OnnxRuntimeEngine.of(model).run
    if precision == "bfloat16" and not has_bfloat16():
        raise UsageError("this processor has no bfloat16 instructions: OpenVINO would take float32")
    return OpenVINOEngine.of(model, precision=precision).run


def _names(text: str | None) -> tuple[str, ...]:
    parts = [part.strip() for part in (text or "").split(",")]
    return tuple(dict.fromkeys(part for part in parts if part))
