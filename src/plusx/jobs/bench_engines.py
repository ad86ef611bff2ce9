"""Which engines there are, which of them are here, and a network ready to be timed on one."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch

from plusx.engines import TorchEngine
from plusx.errors import MissingExtra, UsageError
from plusx.model.classifier import Classifier
from plusx.runtime import PRECISIONS, fast_dtype, resolve_device

ENGINES = {"torch": "", "onnxruntime": "onnx", "openvino": "openvino"}
"""Engine -> the extra that it comes with; none for the one that is always there."""

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
    if not installed(engine):
        raise MissingExtra(f"--engine {engine}", ENGINES[engine])
    if engine != "torch":
        raise UsageError(f"--engine {engine} runs exported files only; give one, or --engine torch")
    made = TorchEngine(model, device=resolve_device(device), dtype=getattr(torch, precision))
    return lambda images: made.run(torch.from_numpy(images))


def _names(text: str | None) -> tuple[str, ...]:
    parts = [part.strip() for part in (text or "").split(",")]
    return tuple(dict.fromkeys(part for part in parts if part))
