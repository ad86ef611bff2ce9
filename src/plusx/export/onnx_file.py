"""Programs as ONNX files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from plusx.errors import UsageError
from plusx.export.targets import OPSET
from plusx.weights.exported import IMAGES, PREPROCESSED
from plusx.weights.seal import seal

IR_VERSION = 10
"""The newest that onnxruntime 1.20 reads."""


def to_onnx(program: ExportedProgram, *, name: str) -> Any:
    """A traced pipeline as an ``onnx.ModelProto``; the batch, and sides of uint8 images, dynamic.

    Args:
        program: what ``to_program`` gave.
        name: of the network, for complaints.

    Raises:
        UsageError: the exporter does not know an operation of the network.
    """
    given = _returned(program)
    try:
        with warnings.catch_warnings():
            # The exporter's own parts are deprecated from release to release; nothing of ours.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            made = torch.onnx.export(
                program, dynamo=True, input_names=[IMAGES], output_names=given,
                opset_version=OPSET, verbose=False,
            )  # fmt: skip
    except Exception as error:  # whatever a foreign network makes the exporter stumble over
        said = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{name} cannot be exported to ONNX: {said[0]}") from error
    assert made is not None
    model = made.model_proto
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name = "plusx"
    model.graph.name = "plusx"
    for node in model.graph.node:  # where it stood in whose source: nobody's business
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    _name_dimensions(model)
    if PREPROCESSED in given:  # its name stays with the tensor inside
        kept = [one for one in model.graph.output if one.name != PREPROCESSED]
        inside = [one for one in model.graph.output if one.name == PREPROCESSED]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        known = {one.name for one in model.graph.value_info}
        model.graph.value_info.extend(one for one in inside if one.name not in known)
    return model


def write_onnx(model: Any, keys: Mapping[str, str], path: Path) -> None:
    """Write a model with these metadata and seal it.

    Raises:
        OSError: it cannot be written.
    """
    del model.metadata_props[:]
    for key, value in keys.items():
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    seal(path)


def _returned(program: ExportedProgram) -> list[str]:
    spec = program.call_spec.out_spec
    return [] if spec is None else list(spec.context)


def _name_dimensions(model: Any) -> None:
    """N, H, W instead of the tracer's symbols."""
    free = [d for d in model.graph.input[0].type.tensor_type.shape.dim if d.dim_param]
    names = dict(zip((d.dim_param for d in free), "NHW", strict=False))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
