"""Which engine runs a network: the one that is named, or the fastest that keeps the answers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from plusx.engines.onnxruntime import OnnxRuntimeEngine
from plusx.engines.openvino import OpenVINOEngine, has_bfloat16
from plusx.engines.protocol import Engine, EngineName, Floats
from plusx.engines.pytorch import TorchEngine
from plusx.errors import UsageError
from plusx.model.classifier import Classifier
from plusx.runtime import fast_dtype, resolve_device, resolve_precision

AUTO = "auto"

WORTH_CONVERTING = 300
"""Images from which on ``auto`` converts a network: that takes about 3 s (ResNet-50 on 2 cores),
which OpenVINO wins back over torch in about as many images."""

# Measured with ResNet-50, batch 16, on 2 Zen 4 cores, images/s: OpenVINO bfloat16 49, torch
# bfloat16 35, onnxruntime float32 25 (it has no bfloat16 convolution on CPUs), torch float32 16.
FASTEST: dict[str, tuple[EngineName, ...]] = {
    "float32": ("openvino", "onnxruntime", "torch"),
    "bfloat16": ("openvino", "torch"),
    "float16": ("torch",),
}
"""By precision, on a CPU, the fastest first. On other devices torch alone runs."""

NEEDS: dict[EngineName, tuple[str, ...]] = {
    "openvino": ("openvino",),
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "torch": (),
}

BOUNDS = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}
"""How far logits may lie from torch's in float32, as a share of the distance between the batch's
largest and smallest logit."""


class Choice:
    """The engine for one network, made when it is known how much there is to do.

    Args:
        model: the network.
        name: ``torch``, ``onnxruntime``, ``openvino`` or ``auto``.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto``.

    Attributes:
        notes: what a person should be told about the choice.

    Raises:
        UsageError: a name is unknown, or the engine cannot do what is asked.
        MissingExtra: the named engine is not installed.
    """

    def __init__(self, model: Classifier, *, name: str, device: str, precision: str) -> None:
        check_name(name)
        elsewhere = name in ("onnxruntime", "openvino")
        self.device = resolve_device("cpu" if elsewhere and device == "auto" else device)
        if elsewhere and self.device.type != "cpu":
            raise UsageError(
                f"--engine {name} runs on the CPU alone, not on {device}; use --device cpu, or "
                "--engine torch"
            )
        dtype = resolve_precision(precision, self.device)
        self.notes: list[str] = []
        self._model, self._asked, self._name = model, precision, name
        self._precision = str(dtype).removeprefix("torch.")
        self._engine: Engine | None = None
        self._doubted = False
        if name != AUTO:
            self._engine = self._open(name)

    def engine(self, images: int | None = None) -> Engine:
        """The engine; the first call makes it.

        Args:
            images: how many there are to run, as far as known.
        """
        if self._engine is None:
            few = images is not None and images < WORTH_CONVERTING
            self._engine = self._open("torch") if few else self._fastest()
        return self._engine

    @property
    def open(self) -> bool:
        """Whether the next images may still change the engine: ``auto`` has not seen it run."""
        return self._engine is None or self._doubted

    def confirm(self, images: npt.NDArray[Any]) -> None:
        """Keep what ``auto`` took only if it answers as torch does in float32, within ``BOUNDS``.

        Args:
            images: (N, C, S, S) float32, real ones, as many as are at hand.
        """
        engine = self.engine()
        if not self._doubted:
            return
        self._doubted = False
        exact = TorchEngine(self._model, device=self.device).run(images).logits
        off = difference(engine.run(images).logits, exact)
        if off > BOUNDS[engine.precision]:
            self.notes.append(
                f"{engine.name} in {engine.precision} gives other answers than torch in float32 "
                f"(logits are {off:.1%} off): torch in float32 is taken"
            )
            self._engine = TorchEngine(self._model, device=self.device)

    def _fastest(self) -> Engine:
        order = FASTEST[self._precision] if self.device.type == "cpu" else ("torch",)
        for name in order:
            if name == "torch" or not all(find_spec(package) for package in NEEDS[name]):
                continue
            try:
                engine = self._open(name)
            except Exception as error:  # whatever a foreign network makes a converter stumble over
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self.notes.append(f"{name} cannot take this network ({said})")
                continue
            self._doubted = True
            return engine
        return self._open("torch")

    def _open(self, name: str) -> Engine:
        if name == "onnxruntime":
            if self._asked not in (AUTO, "float32"):
                raise UsageError(
                    f"--precision {self._asked}: onnxruntime computes in float32 on CPUs; use "
                    "--engine openvino or torch"
                )
            return OnnxRuntimeEngine.of(self._model)
        if name == "openvino":
            return OpenVINOEngine.of(self._model, precision=self._openvino_precision())
        dtype: torch.dtype = getattr(torch, self._precision)
        slow = dtype == torch.bfloat16 and fast_dtype(self.device) != dtype
        if slow and self.device.type == "cpu":
            self.notes.append(
                "this processor has no bfloat16 instructions: it is slower than float32 here"
            )
        return TorchEngine(self._model, device=self.device, dtype=dtype)

    def _openvino_precision(self) -> str:
        if self._asked == "float16":
            raise UsageError(
                "--precision float16: OpenVINO computes in float32 or bfloat16 on CPUs"
            )
        wanted = "float32" if self._asked == "float32" else "bfloat16"
        if wanted == "bfloat16" and not has_bfloat16():
            if self._asked == "bfloat16":
                self.notes.append("this processor has no bfloat16 instructions: float32 is taken")
            return "float32"
        return wanted


def check_name(name: str) -> None:
    """Raise UsageError unless there is such an engine."""
    known = (AUTO, *get_args(EngineName))
    if name not in known:
        raise UsageError(f"--engine {name!r} is not one of {', '.join(known)}")


def difference(found: Floats, exact: Floats) -> float:
    """The largest difference of logits (N, K), as a share of the distance between the largest and
    the smallest exact one; infinite where one is not a number and the other is."""
    if not np.array_equal(np.isfinite(found), np.isfinite(exact)):
        return float("inf")
    whole = np.isfinite(exact)
    if not whole.any():
        return 0.0
    spread = max(float(np.ptp(exact[whole])), 1e-6)
    return float(np.abs(found[whole] - exact[whole]).max()) / spread
