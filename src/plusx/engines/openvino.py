"""The OpenVINO engine."""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plusx.engines.convert import FEATURES, LOGITS, to_openvino
from plusx.engines.protocol import EngineName, Outputs
from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier
from plusx.runtime import cpu_count
from plusx.weights.exported import UNKNOWN_SCORE

if TYPE_CHECKING:
    import openvino


class OpenVINOEngine:
    """Runs an OpenVINO model on the CPU.

    It is compiled when first run, once for calls that take all cores (one stream) and once for
    those that take one (a stream a core); most programs need one of the two.

    Args:
        model: takes preprocessed images; gives outputs named ``logits`` and ``features``, and
            perhaps ``unknown_score``.
        precision: to compute in; ``int8`` where the model is quantised. With ``bfloat16`` OpenVINO
            uses what instructions the processor has for it (AMX, else AVX-512 BF16); see
            :func:`has_bfloat16`.
    """

    name: EngineName = "openvino"
    parallel = True

    def __init__(self, model: openvino.Model, *, precision: str = "float32") -> None:
        self.precision = precision
        self._model = model
        self._own = threading.local()
        self._compiling = threading.Lock()
        self._outputs = {name for output in model.outputs for name in output.names}

    @classmethod
    def of(cls, model: Classifier, *, precision: str = "float32") -> OpenVINOEngine:
        """Converts a copy of ``model`` in memory.

        Raises:
            MissingExtra: OpenVINO is not installed.
        """
        return cls(to_openvino(model), precision=precision)

    def run(self, images: npt.NDArray[Any], *, one_core: bool = False) -> Outputs:
        """Preprocessed images (N, C, S, S) float32 -> their outputs."""
        requests = self._own.__dict__.setdefault("requests", {})
        if one_core not in requests:
            with self._compiling:
                compiled = self._one_core if one_core else self._all_cores
                requests[one_core] = compiled.create_infer_request()
        request = requests[one_core]
        request.infer([np.ascontiguousarray(images)], share_inputs=True)
        names = (LOGITS, FEATURES, UNKNOWN_SCORE)
        found = [
            np.array(request.get_tensor(name).data, np.float32) if name in self._outputs else None
            for name in names
        ]
        logits, features, scores = found
        assert logits is not None
        assert features is not None
        return Outputs(logits, features, None if scores is None else scores.reshape(-1))

    @cached_property
    def _all_cores(self) -> openvino.CompiledModel:
        return self._compile(1)

    @cached_property
    def _one_core(self) -> openvino.CompiledModel:
        return self._compile(cpu_count())

    def _compile(self, streams: int) -> openvino.CompiledModel:
        return compiled(self._model, bfloat16=self.precision == "bfloat16", streams=streams)


def compiled(model: openvino.Model, *, bfloat16: bool, streams: int) -> openvino.CompiledModel:
    """The model ready to run on the CPU, with threads for all cores, divided among ``streams``."""
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": cpu_count(),
        # pinned threads would fight for a core with the threads that decode
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(model, "CPU", config)


def core() -> openvino.Core:
    """OpenVINO's entry.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("--engine openvino", "openvino") from error
    return openvino.Core()


def has_bfloat16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor; elsewhere it would take float32
    without a word."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
