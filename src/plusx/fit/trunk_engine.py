"""What runs the frozen trunk: chosen once, written down, and part of the cache's key."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

from plusx.engines import TorchEngine
from plusx.model.classifier import Classifier


@dataclass(frozen=True)
class TrunkEngine:
    """An engine, its version, its precision and the machine's instructions: each of them changes
    the last digits of an activation.

    Attributes:
        name: of the engine.
        version: of the engine.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        machine: device and instruction set.
    """

    name: str
    version: str
    precision: str
    machine: str


def resolve_trunk_engine(device: torch.device, dtype: torch.dtype) -> TrunkEngine:
    """The engine that runs a frozen trunk on ``device`` in ``dtype``."""
    if device.type == "cuda":
        machine = f"cuda {torch.cuda.get_device_name(device)}"
    elif device.type == "cpu":
        instructions = torch.backends.cpu.get_cpu_capability()
        machine = f"cpu {platform.machine()} {instructions}"
    else:
        machine = f"{device.type} {platform.machine()}"
    precision = str(dtype).removeprefix("torch.")
    return TrunkEngine("torch", str(torch.__version__), precision, machine)


def make_trunk(
    chosen: TrunkEngine, model: Classifier, *, device: torch.device, top_blocks: int
) -> TorchEngine:
    """The engine itself, with ``model`` split before its last ``top_blocks`` blocks."""
    dtype: torch.dtype = getattr(torch, chosen.precision)
    return TorchEngine(model, device=device, dtype=dtype, top_blocks=top_blocks)
