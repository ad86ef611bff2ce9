"""Exported files, run as they are by the runtime that they are for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.errors import ArtifactError, MissingExtra, UsageError
from plusx.jobs.bench_engines import ENGINES, Images, Run, installed
from plusx.runtime import cpu_count

SUFFIXES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}
"""Of files that can be timed -> engines that run them."""


@dataclass(frozen=True)
class ExportedFile:
    """An exported file.

    Attributes:
        path: of it.
        engines: that can run it.
        size: pixels of a side of its images.
        channels: of its images.
        takes_pixels: whether it takes (N, H, W, C) uint8, else preprocessed (N, C, S, S) float32.
        mib: on disk, with its weights.
    """

    path: Path
    engines: tuple[str, ...]
    size: int
    channels: int
    takes_pixels: bool
    mib: float

    @classmethod
    def of(cls, path: Path) -> ExportedFile:
        """Read what a file takes.

        Raises:
            UsageError: there is no such file.
            MissingExtra: nothing that reads it is installed.
            ArtifactError: it cannot be read, or has an input that is not an image.
        """
        if not path.is_file():
            raise UsageError(f"{path}: does not exist; give a run, a network's name or a file")
        engines = SUFFIXES[path.suffix.lower()]
        reader = next((engine for engine in engines if installed(engine)), None)
        if reader is None:
            raise MissingExtra(f"{path.name}: timing it", ENGINES[engines[0]])
        try:
            shape, kind = (_onnx_input if reader == "onnxruntime" else _openvino_input)(path)
        except Exception as error:  # either runtime has exceptions of its own
            raise ArtifactError(f"{path}: {reader} cannot read it ({_first(error)})") from error
        size, channels, pixels = _image(path, shape, kind)
        files = [path, *path.parent.glob(f"{path.name}.data")]
        files += [path.with_suffix(".bin")] if path.with_suffix(".bin").is_file() else []
        mib = sum(file.stat().st_size for file in files) / 2**20
        return cls(path, engines, size, channels, pixels, mib)


def open_file(file: ExportedFile, engine: str) -> Run:
    """The file in a runtime, ready to be run.

    Raises:
        MissingExtra: the runtime is not installed.
        ArtifactError: it does not take the file.
    """
    if not installed(engine):
        raise MissingExtra(f"--engine {engine}", ENGINES[engine])
    try:
        return (_onnx_run if engine == "onnxruntime" else _openvino_run)(file.path)
    except Exception as error:  # either runtime has exceptions of its own
        raise ArtifactError(f"{file.path}: {engine} cannot run it ({_first(error)})") from error


def _onnx_input(path: Path) -> tuple[list[int | None], str]:
    given = _session(path).get_inputs()[0]
    return [side if isinstance(side, int) else None for side in given.shape], given.type


def _onnx_run(path: Path) -> Run:
    session = _session(path)
    name = session.get_inputs()[0].name

    def run(images: Images) -> object:
        return session.run(None, {name: images})

    return run


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = cpu_count()
    # threads that spin while they wait take the cores from what is timed in turn with it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _openvino_input(path: Path) -> tuple[list[int | None], str]:
    import openvino

    given = openvino.Core().read_model(path).inputs[0]
    shape = [side.get_length() if side.is_static else None for side in given.get_partial_shape()]
    return shape, str(given.get_element_type().to_dtype())


def _openvino_run(path: Path) -> Run:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda images: request.infer([images])


def _image(path: Path, shape: list[int | None], kind: str) -> tuple[int, int, bool]:
    """Pixels a side, channels, and whether it takes unprocessed pixels."""
    pixels = "uint8" in kind
    if len(shape) == 4 and (pixels or "float" in kind):
        channels, side = (shape[3], shape[1]) if pixels else (shape[1], shape[2])
        if channels is not None:
            # A graph with its preprocessing takes any size: one that is usual for photographs.
            return side or (256 if pixels else 224), channels, pixels
    raise ArtifactError(
        f"{path}: its input {shape} of {kind} is no batch of images; (N, H, W, C) uint8 or "
        "(N, C, S, S) float32 can be timed"
    )


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
