"""The onnxruntime engine: float32, or what a quantised file holds (it has no bfloat16
convolution on CPUs)."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.engines.convert import FEATURES, LOGITS, to_onnx
from plusx.engines.protocol import EngineName, Outputs
from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier
from plusx.runtime import cpu_count
from plusx.weights.exported import UNKNOWN_SCORE

if TYPE_CHECKING:
    import onnx
    import onnxruntime


class OnnxRuntimeEngine:
    """Runs an ONNX model on the CPU.

    A session is made when first run: one for calls that take all cores, one for those that take
    one.

    Args:
        model: takes preprocessed images; gives outputs named ``logits`` and ``features``, and
            perhaps ``unknown_score``.
        precision: of the model: ``float32``, or ``int8`` or ``float16`` of an exported file.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """

    name: EngineName = "onnxruntime"
    parallel = True

    def __init__(self, model: onnx.ModelProto, *, precision: str = "float32") -> None:
        try:
            import onnxruntime  # noqa: F401 (said now, not at the first image)
        except ImportError as error:
            raise MissingExtra("--engine onnxruntime", "onnx") from error
        self.precision = precision
        self._content = model.SerializeToString()
        self._input = model.graph.input[0].name
        given = {output.name for output in model.graph.output}
        self._outputs = [name for name in (LOGITS, FEATURES, UNKNOWN_SCORE) if name in given]
        self._opening = threading.Lock()

    @classmethod
    def of(cls, model: Classifier) -> OnnxRuntimeEngine:
        """Converts a copy of ``model`` in memory.

        Raises:
            MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        """
        return cls(to_onnx(model))

    def run(self, images: npt.NDArray[Any], *, one_core: bool = False) -> Outputs:
        """Preprocessed images (N, C, S, S) float32 -> their outputs."""
        with self._opening:
            session = self._one_core if one_core else self._all_cores
        found = session.run(self._outputs, {self._input: np.ascontiguousarray(images)})
        logits, features, *scores = (np.asarray(array, np.float32) for array in found)
        return Outputs(logits, features, scores[0].reshape(-1) if scores else None)

    @cached_property
    def _all_cores(self) -> onnxruntime.InferenceSession:
        return self._open(cpu_count())

    @cached_property
    def _one_core(self) -> onnxruntime.InferenceSession:
        return self._open(1)

    def _open(self, threads: int) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors alone
        # threads that spin while they wait take the cores from those that decode
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(
            self._content, options, providers=["CPUExecutionProvider"]
        )
