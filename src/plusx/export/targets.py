"""What plusx exports to: which format takes which precision, and what each needs installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from plusx.errors import MissingExtra, UsageError
from plusx.weights.exported import Format, Precision

OPSET = 18
"""Of ONNX files: the newest that torch's exporter writes in all its versions since 2.6."""


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes:
        suffix: of the file's name.
        precisions: precision -> what it means there.
        refused: precision -> why there is none.
        modules: module that must be installed -> extra that installs it.
    """

    suffix: str
    precisions: dict[Precision, str]
    refused: dict[Precision, str]
    modules: dict[str, str]


TARGETS: dict[Format, Target] = {
    "onnx": Target(
        ".onnx",
        {
            "fp32": "float32 throughout",
            "fp16": "convolutions and their weights in float16, the rest in float32",
            "int8": "convolutions in int8 (QDQ, weights per channel), the rest in float32",
        },
        {"bf16": "onnxruntime has no bfloat16 convolution on CPUs; use --to openvino or torch"},
        {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"},
    ),
    "openvino": Target(
        ".xml",
        {
            "fp32": "float32 weights; run with INFERENCE_PRECISION_HINT f32",
            "bf16": "float32 weights; bfloat16 is a run-time hint: INFERENCE_PRECISION_HINT bf16",
            "fp16": "float16 weights in the file; run with INFERENCE_PRECISION_HINT f32 on CPUs",
            "int8": "convolutions in int8 (weights per channel), the rest by the hint: f32",
        },
        {},
        {"openvino": "openvino", "onnx": "onnx", "onnxscript": "onnx"},
    ),
    "torch": Target(
        ".pt2",
        {
            "fp32": "float32 throughout",
            "bf16": "convolutions and their weights in bfloat16, the rest in float32",
            "fp16": "convolutions and their weights in float16, the rest in float32",
        },
        {"int8": "torch.export programs carry no int8 here; use --to onnx or openvino"},
        {},
    ),
}
"""The table of docs/export.md."""


def check_target(to: str, precision: str) -> tuple[Format, Precision]:
    """Both names, if plusx writes such files and all that it takes is installed.

    Raises:
        UsageError: a name is unknown, or the format has no such precision.
        MissingExtra: a library is not installed; the extra is named.
    """
    formats = {name: name for name in get_args(Format)}
    precisions = {name: name for name in get_args(Precision)}
    if to not in formats:
        raise UsageError(f"--to {to!r} is not one of {', '.join(formats)}")
    if precision not in precisions:
        raise UsageError(f"--precision {precision!r} is not one of {', '.join(precisions)}")
    target = TARGETS[formats[to]]
    if why := target.refused.get(precisions[precision]):
        raise UsageError(f"--to {to} --precision {precision}: {why}")
    needed = target.modules | ({"nncf": "int8", "openvino": "int8"} if precision == "int8" else {})
    for module, extra in needed.items():
        if find_spec(module) is None:
            raise MissingExtra(f"--to {to} --precision {precision}", extra)
    return formats[to], precisions[precision]


def check_suffix(path: Path, to: Format) -> None:
    """Raise UsageError unless the file's name ends as the format wants."""
    if path.suffix.lower() != TARGETS[to].suffix:
        raise UsageError(f"--out {path}: the file's name must end in {TARGETS[to].suffix}")
