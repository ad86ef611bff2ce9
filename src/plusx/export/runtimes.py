"""Exported files, run in their own runtime from pixels on, as a program without plusx would."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from plusx.errors import ArtifactError, UsageError
from plusx.runtime import cpu_count
from plusx.weights.exported import IMAGES, PREPROCESSED, Format, Precision

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Runtime:
    """One file, opened.

    Attributes:
        name: of the library and its version.
        run: images as the file takes them -> outputs by name.
        prepare: uint8 images -> (N, C, S, S) where the network begins; None where the file leaves
            that to its user.
    """

    name: str
    run: Callable[[Array], dict[str, Array]]
    prepare: Callable[[Array], Array] | None


def open_exported(path: Path, to: Format, precision: Precision, *, preprocessed: bool) -> Runtime:
    """Open a file that was just written.

    Raises:
        ArtifactError: the runtime cannot read it.
        UsageError: this processor cannot run that precision.
    """
    opener = {"onnx": _onnx, "openvino": _openvino, "torch": _torch}[to]
    try:
        return opener(path, precision, not preprocessed)
    except (ArtifactError, UsageError):
        raise
    except Exception as error:  # each runtime has its own kinds
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path.name}: {to} cannot open it: {said}") from error


def _onnx(path: Path, precision: Precision, pixels: bool) -> Runtime:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_count()
    options.log_severity_level = 3
    model = onnx.load(path)
    outputs = [one.name for one in model.graph.output]
    given = list(outputs)
    if pixels:
        # Another output of the very graph that ships; its type is found by onnxruntime.
        model.graph.output.add(name=PREPROCESSED)
        given.append(PREPROCESSED)
    session = onnxruntime.InferenceSession(
        model.SerializeToString() if pixels else str(path), options,
        providers=["CPUExecutionProvider"],
    )  # fmt: skip

    def run(images: Array) -> dict[str, Array]:
        return dict(zip(outputs, session.run(outputs, {IMAGES: images}), strict=True))

    def prepare(images: Array) -> Array:
        return np.asarray(session.run([PREPROCESSED], {IMAGES: images})[0])

    return Runtime(f"onnxruntime {onnxruntime.__version__}", run, prepare if pixels else None)


def hint(precision: Precision) -> str:
    """What OpenVINO is told; without it some processors compute in bfloat16 unasked."""
    return "bf16" if precision == "bf16" else "f32"


def _openvino(path: Path, precision: Precision, pixels: bool) -> Runtime:
    import openvino

    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UsageError(
            "--precision bf16: this processor has no bfloat16 instructions, so that the file "
            "cannot be checked here; export on one that has, or --precision fp32"
        )
    model = core.read_model(path)
    names = [next(iter(one.get_names())) for one in model.outputs]
    if pixels:
        model.add_outputs(PREPROCESSED)
    config = {"INFERENCE_PRECISION_HINT": hint(precision), "INFERENCE_NUM_THREADS": cpu_count()}
    compiled = core.compile_model(model, "CPU", config)

    def run(images: Array) -> dict[str, Array]:
        found = compiled(images)
        return {name: np.array(found[i]) for i, name in enumerate(names)}

    def prepare(images: Array) -> Array:
        return np.array(compiled(images)[len(names)])

    version = openvino.__version__.partition("-")[0]
    return Runtime(f"OpenVINO {version}", run, prepare if pixels else None)


def _torch(path: Path, precision: Precision, pixels: bool) -> Runtime:
    module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    @torch.inference_mode()
    def run(images: Array) -> dict[str, Array]:
        return {k: v.numpy() for k, v in module(torch.from_numpy(images)).items()}

    cut = _until_prepared(module) if pixels else None

    @torch.inference_mode()
    def prepare(images: Array) -> Array:
        assert cut is not None
        found: Array = cut(torch.from_numpy(images)).numpy()
        return found

    return Runtime(f"torch {torch.__version__}", run, prepare if pixels else None)


def _until_prepared(module: torch.nn.Module) -> torch.nn.Module:
    """The same program as far as the part of ``Pipeline`` that is called ``prepare``."""
    assert isinstance(module, fx.GraphModule)
    whole, last = fx.Graph(), None
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.op == "output":
            break
        copies[node] = whole.node_copy(node, copies.__getitem__)
        stack = node.meta.get("nn_module_stack") or {}
        if any(str(name).endswith("prepare") for name, _ in stack.values()):
            last = copies[node]
    if last is None:
        raise ArtifactError("the exported program has lost where its preprocessing ends")
    whole.output(last)
    cut = fx.GraphModule(module, whole)
    cut.graph.eliminate_dead_code()
    cut.recompile()
    return cut
