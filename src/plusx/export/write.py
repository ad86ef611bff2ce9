"""A model as an exported file: traced, perhaps quantised, described, written, sealed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from plusx.export.described import metadata_of, plain_keys
from plusx.export.graph import DTYPES, Pipeline, example
from plusx.export.onnx_file import to_onnx, write_onnx
from plusx.export.openvino_file import to_openvino, write_openvino
from plusx.export.program import to_program
from plusx.export.quantise import quantise, reading
from plusx.export.sensitive import sensitive
from plusx.export.torch_file import write_torch
from plusx.weights.artifact import Artifact
from plusx.weights.exported import ExportMetadata, Format, Precision


def write_exported(
    artifact: Artifact,
    path: Path,
    *,
    to: Format,
    precision: Precision,
    name: str,
    preprocessed: bool = False,
    images: Sequence[npt.NDArray[Any]] = (),
) -> ExportMetadata:
    """Write a model to ``path`` (OpenVINO: and the ``.bin`` beside it).

    Args:
        artifact: the model.
        path: with the suffix of its format.
        to: format.
        precision: one that the format takes (``check_target``).
        name: of the run.
        preprocessed: whether the graph leaves preprocessing to its user.
        images: to calibrate int8 on, (1, ...) each, as the graph takes them.

    Raises:
        UsageError: the network has a part that an exporter does not know.
        OSError: it cannot be written.
    """
    metadata = metadata_of(artifact, name=name, precision=precision, preprocessed=preprocessed)
    keys = plain_keys(metadata, to)
    # OpenVINO's precision is stored or hinted, not traced: its IR is made from float32.
    traced = "fp32" if to == "openvino" or precision == "int8" else precision
    pipeline = Pipeline(
        artifact.model,
        None if preprocessed else artifact.preprocessing,
        artifact.decision,
        task=artifact.task,
        inner=to != "torch",
        dtype=DTYPES[traced],
    )
    images_like = example(artifact.preprocessing, preprocessed=preprocessed)
    program = to_program(pipeline, images_like, name=artifact.spec.name)
    if to == "torch":
        write_torch(program, keys, path)
        return metadata
    model = to_onnx(program, name=artifact.spec.name)
    if to == "openvino":
        model = to_openvino(model)
    if precision == "int8":
        kept = reading(model, sensitive(pipeline, images))
        model = quantise(model, images, kept=kept)
    if to == "openvino":
        write_openvino(model, keys, path, half=precision == "fp16")
    else:
        write_onnx(model, keys, path)
    return metadata
