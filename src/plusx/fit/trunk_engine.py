"""What runs the frozen trunk: chosen once, written down, and part of the cache's key."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from plusx.engines import TorchEngine
from plusx.engines.openvino import has_bfloat16
from plusx.engines.openvino_split import OpenVINOSplit
from plusx.engines.split import SplitEngine
from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier

WORTH_CONVERTING = 1000
"""Forward passes from which on OpenVINO wins back what converting the trunk takes: about 3 s for
ResNet-50, of whose passes each is 4.5 ms shorter (102 images/s against 70, bfloat16, 2 Zen 4
cores: benchmarks/inference.py)."""


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


def resolve_trunk_engine(
    device: torch.device, dtype: torch.dtype, *, forwards: int = 0
) -> TrunkEngine:
    """The fastest engine at hand for a frozen trunk on ``device`` in ``dtype``.

    Args:
        device: of the training.
        dtype: of the activations.
        forwards: images and views that the run needs, those kept from before included, so that the
            next run resolves to the same: below ``WORTH_CONVERTING`` torch runs them.
    """
    if device.type == "cuda":
        machine = f"cuda {torch.cuda.get_device_name(device)}"
    elif device.type == "cpu":
        instructions = torch.backends.cpu.get_cpu_capability()
        machine = f"cpu {platform.machine()} {instructions}"
    else:
        machine = f"{device.type} {platform.machine()}"
    precision = str(dtype).removeprefix("torch.")
    worth = device.type == "cpu" and forwards >= WORTH_CONVERTING
    if worth and (found := _openvino_for(dtype)):
        return TrunkEngine("openvino", found, precision, machine)
    return TrunkEngine("torch", str(torch.__version__), precision, machine)


def _openvino_for(dtype: torch.dtype) -> str | None:
    """Its version, where it is installed whole and computes in ``dtype`` here."""
    try:
        found = version("openvino")
        fits = dtype == torch.float32 or (dtype == torch.bfloat16 and has_bfloat16())
    except (PackageNotFoundError, MissingExtra):
        return None
    return found if fits else None


def make_trunk(
    chosen: TrunkEngine, model: Classifier, *, device: torch.device, top_blocks: int
) -> SplitEngine:
    """The engine itself, with ``model`` split before its last ``top_blocks`` blocks."""
    dtype: torch.dtype = getattr(torch, chosen.precision)
    if chosen.name == "openvino":
        return OpenVINOSplit(model, dtype=dtype, top_blocks=top_blocks)
    return TorchEngine(model, device=device, dtype=dtype, top_blocks=top_blocks)
