"""Engines over exported files: the network part runs, decoding and preprocessing stay ours.

The graph is cut at the tensor ``preprocessed``, so that images of different sizes go in one batch
and preprocessing overlaps with the network. A ``torch.export`` archive cannot be cut: it runs
whole, image by image.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.engines.choose import AUTO, check_name
from plusx.engines.convert import FEATURES, LOGITS
from plusx.engines.onnxruntime import OnnxRuntimeEngine
from plusx.engines.openvino import OpenVINOEngine, core, has_bfloat16
from plusx.engines.protocol import Engine, EngineName, Outputs
from plusx.errors import ArtifactError, MissingExtra, UsageError
from plusx.weights.exported import KEY, OUTPUTS, PREPROCESSED, UNKNOWN_SCORE, ExportMetadata
from plusx.weights.seal import check_seal

if TYPE_CHECKING:
    import onnx
    import openvino

ENDINGS: dict[str, tuple[EngineName, ...]] = {
    ".onnx": ("openvino", "onnxruntime"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
}
"""What runs each kind of file, the fastest first."""

_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


@dataclass(frozen=True)
class Exported:
    """An exported file, opened.

    Attributes:
        metadata: what it says about itself.
        engine: runs it.
        whole: the engine takes decoded images (1, H, W, C), and prepares them itself.
        notes: what a person should be told.
    """

    metadata: ExportMetadata
    engine: Engine
    whole: bool = False
    notes: tuple[str, ...] = ()


def is_exported(path: Path) -> bool:
    """Whether the name is that of an exported file."""
    return path.suffix.lower() in ENDINGS and not path.is_dir()


def open_exported(path: Path, *, name: str = AUTO, precision: str | None = None) -> Exported:
    """Open an ``.onnx``, ``.xml`` or ``.pt2`` file that plusx exported.

    Args:
        path: the file.
        name: of the engine; ``auto`` takes the fastest installed.
        precision: ``float32`` or ``bfloat16`` to compute in, where the file holds float32 or
            bfloat16 and OpenVINO runs it; by default the file's own.

    Raises:
        ArtifactError: it is absent, damaged, edited, of a later plusx, or none of plusx's.
        UsageError: that engine does not run such files.
        MissingExtra: the engine is not installed.
    """
    check_name(name)
    if not path.is_file():
        raise ArtifactError(f"{path}: is not there")
    check_seal(path)
    engines = ENDINGS[path.suffix.lower()]
    if name == AUTO:
        name = _installed(engines)
    elif name not in engines:
        raise UsageError(
            f"--engine {name}: {path.name} runs in {' or '.join(engines)}; use --engine auto"
        )
    if name == "torch":
        return _torch(path, precision)
    graph, metadata = _read_onnx(path) if path.suffix.lower() == ".onnx" else _read_ir(path)
    own = _PRECISIONS[metadata.precision]
    if name == "onnxruntime":
        _refuse(precision, own)
        return Exported(metadata, OnnxRuntimeEngine(graph, precision=own))
    if not hasattr(graph, "get_ops"):
        graph = core().read_model(io.BytesIO(graph.SerializeToString()))
    wanted, notes = _openvino_precision(precision, own)
    return Exported(metadata, OpenVINOEngine(graph, precision=wanted), notes=notes)


def read_metadata(path: Path) -> ExportMetadata:
    """What an exported file says about itself; its seal is checked, nothing is run.

    Raises:
        ArtifactError: it is absent, damaged, edited, of a later plusx, or none of plusx's.
        MissingExtra: the library that reads such files is not installed.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: is not there")
    check_seal(path)
    suffix = path.suffix.lower()
    if suffix != ".pt2":
        return _read_onnx(path)[1] if suffix == ".onnx" else _read_ir(path)[1]
    with zipfile.ZipFile(path) as archive:  # loading the program would take seconds
        found = [one for one in archive.namelist() if one.endswith(f"/extra/{KEY}")]
        text = archive.read(found[0]).decode("utf-8", "replace") if found else None
    return _metadata(path, text, None)


def _openvino_precision(asked: str | None, own: str) -> tuple[str, tuple[str, ...]]:
    if own in ("int8", "float16"):
        _refuse(asked, own)
        return own, ()
    wanted = own if asked is None else "bfloat16" if asked == AUTO else asked
    if wanted not in ("float32", "bfloat16"):
        _refuse(asked, own)
    if wanted == "bfloat16" and not has_bfloat16():
        return "float32", ("this processor has no bfloat16 instructions: float32 is taken",)
    return wanted, ()


def _refuse(asked: str | None, own: str) -> None:
    if asked not in (None, AUTO, own):
        raise UsageError(f"--precision {asked}: the file holds {own}; leave the option out")


def _installed(engines: tuple[EngineName, ...]) -> EngineName:
    from importlib.util import find_spec

    there = [name for name in engines if find_spec(name)]
    return there[0] if there else engines[-1]


def _read_onnx(path: Path) -> tuple[onnx.ModelProto, ExportMetadata]:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra(f"reading {path.name}", "onnx") from error
    try:
        model = onnx.load(str(path))
        outputs = {output.name for output in model.graph.output}
    except Exception as error:  # protobuf's own kinds, by version
        raise _damaged(path, error) from error
    said = {entry.key: entry.value for entry in model.metadata_props}
    metadata = _metadata(path, said.get(KEY), outputs)
    try:
        return (model if metadata.preprocessed else cut_onnx(model)), metadata
    except ValueError as error:
        raise _damaged(path, error) from error


def cut_onnx(model: onnx.ModelProto) -> onnx.ModelProto:
    """The part after ``preprocessed``, which becomes its input; outputs keep their names.

    Raises:
        ValueError: there is no such tensor.
    """
    from onnx import TensorProto, helper

    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    if PREPROCESSED not in makers:
        raise ValueError(f"it has no tensor {PREPROCESSED!r}")
    kept: set[int] = set()
    wanted = [output.name for output in graph.output]
    seen = {PREPROCESSED, ""}
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        node = makers.get(name)
        if node is not None:
            kept.add(id(node))
            wanted += node.input
    images = helper.make_tensor_value_info(PREPROCESSED, TensorProto.FLOAT, ["N", None, None, None])
    cut = helper.make_graph(
        [node for node in graph.node if id(node) in kept],
        graph.name,
        [images],
        list(graph.output),
        [value for value in graph.initializer if value.name in seen],
    )
    return helper.make_model(
        cut, opset_imports=model.opset_import, ir_version=model.ir_version,
        functions=list(model.functions),
    )  # fmt: skip


def _read_ir(path: Path) -> tuple[openvino.Model, ExportMetadata]:
    reader = core()
    try:
        model = reader.read_model(str(path))
        said = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
    except Exception as error:  # OpenVINO raises RuntimeError for all there is
        raise _damaged(path, error) from error
    names = {name for output in model.outputs for name in output.names}
    metadata = _metadata(path, said, names)
    return (model if metadata.preprocessed else _cut_ir(model, path)), metadata


def _cut_ir(model: openvino.Model, path: Path) -> openvino.Model:
    import openvino

    inside = [output for node in model.get_ops() for output in node.outputs()
              if PREPROCESSED in output.get_names()]  # fmt: skip
    if not inside:
        raise _damaged(path, ValueError(f"it has no tensor {PREPROCESSED!r}"))
    shape = openvino.PartialShape([-1, -1, -1, -1])
    start = openvino.opset13.parameter(shape, np.float32, name=PREPROCESSED)
    for target in inside[0].get_target_inputs():
        target.replace_source_output(start.output(0))
    return openvino.Model(model.get_results(), [start], KEY)


class _Archive:
    """A ``torch.export`` program: decoded images (N, H, W, C) -> outputs."""

    name: EngineName = "torch"
    parallel = True

    def __init__(self, program: Any, precision: str) -> None:
        self._module, self.precision = program.module(), precision

    def run(self, images: npt.NDArray[Any], *, one_core: bool = False) -> Outputs:
        import torch

        with torch.inference_mode():
            found = self._module(torch.from_numpy(np.ascontiguousarray(images)))
        if not isinstance(found, dict):
            found = dict(zip((*OUTPUTS, UNKNOWN_SCORE), found, strict=False))
        scores = found.get(UNKNOWN_SCORE)
        return Outputs(
            found[LOGITS].float().numpy(),
            found[FEATURES].float().numpy(),
            None if scores is None else scores.float().numpy().reshape(-1),
        )


def _torch(path: Path, precision: str | None) -> Exported:
    import torch

    said = {KEY: ""}
    try:
        program = torch.export.load(str(path), extra_files=said)
    except Exception as error:  # zip's, JSON's and its own kinds
        raise _damaged(path, error) from error
    text: Any = said[KEY]
    text = text.decode() if isinstance(text, bytes) else text
    metadata = _metadata(path, text or None, None)
    own = _PRECISIONS[metadata.precision]
    _refuse(precision, own)
    return Exported(metadata, _Archive(program, own), whole=not metadata.preprocessed)


def _metadata(path: Path, text: str | None, outputs: set[str] | None) -> ExportMetadata:
    if text is None:
        raise ArtifactError(
            f"{path}: plusx did not export it: it does not say what its classes and preprocessing "
            "are; make one with plusx export"
        )
    metadata = ExportMetadata.from_json(text, str(path))
    if outputs is not None and not {LOGITS, FEATURES} <= outputs:
        raise _damaged(path, ValueError(f"its outputs are {sorted(outputs)}"))
    return metadata


def _damaged(path: Path, error: Exception) -> ArtifactError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return ArtifactError(f"{path}: cannot be read ({said[:200]}); export it again")
