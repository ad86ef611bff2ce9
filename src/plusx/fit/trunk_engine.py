"""What runs the frozen trunk: chosen once, written down, and part of the cache's key."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import torch

from plusx.engines import TorchEngine
from plusx.engines.openvino import has_bfloat16
from plusx.engines.openvino_split import OpenVINOSplit
from plusx.engines.split import SplitEngine
from plusx.model.classifier import Classifier

WORTH_CONVERTING = 1000
"""Forward passes from which on OpenVINO wins back what converting the trunk takes: 3 to 4 s for
ResNet-50, of whose passes each is some 8 ms shorter (bfloat16, 2 Zen 4 cores)."""


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
    if device.type == "cpu" and forwards >= WORTH_CONVERTING and _openvino_takes(dtype):
        return TrunkEngine("openvino", version("openvino"), precision, machine)
    return TrunkEngine("torch", str(torch.__version__), precision, machine)


def _openvino_takes(dtype: torch.dtype) -> bool:
    if find_spec("openvino") is None:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and has_bfloat16())


def make_trunk(
    chosen: TrunkEngine, model: Classifier, *, device: torch.device, top_blocks: int
) -> SplitEngine:
    """The engine itself, with ``model`` split before its last ``top_blocks`` blocks."""
    dtype: torch.dtype = getattr(torch, chosen.precision)
    if chosen.name == "openvino":
        return OpenVINOSplit(model, dtype=dtype, top_blocks=top_blocks)
    return TorchEngine(model, device=device, dtype=dtype, top_blocks=top_blocks)
