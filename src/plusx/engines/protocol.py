"""What every engine takes and gives. Numpy alone, so that no runtime needs another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

EngineName = Literal["torch", "onnxruntime", "openvino"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Outputs:
    """One batch's answers, float32.

    Attributes:
        logits: (N, K).
        features: (N, D), the pooled vector before the head.
        unknown_scores: (N,) where the network computes them itself (exported files do); else None.
    """

    logits: Floats
    features: Floats
    unknown_scores: Floats | None = None


class Engine(Protocol):
    """Runs one network in evaluation mode; safe to call in several threads at once.

    Attributes:
        name: ``torch``, ``onnxruntime`` or ``openvino``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        parallel: whether calls in one thread a core, with ``one_core``, do more images a second
            than one call after the other: so on CPUs, where each core then works on its own batch
            and waits for no other; not on GPUs.
    """

    @property
    def name(self) -> EngineName: ...
    @property
    def precision(self) -> str: ...
    @property
    def parallel(self) -> bool: ...
    def run(self, images: npt.NDArray[Any], *, one_core: bool = False) -> Outputs:
        """Preprocessed images (N, C, S, S) float32, whatever their strides -> their outputs.

        Args:
            images: one batch.
            one_core: take one core for it, because the caller has a call under way on each;
                without, all cores work on this batch.
        """
        ...
