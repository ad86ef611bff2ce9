"""int8 by NNCF: convolutions per channel, calibrated on images, what hurts left in float32.

Source: https://github.com/openvinotoolkit/nncf (Kozlov et al. 2020, arXiv 2002.08679).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from plusx.errors import UsageError
from plusx.runtime import without_telemetry
from plusx.weights.exported import IMAGES, OUTPUTS, PREPROCESSED

FEATURES = OUTPUTS[2]

Operation = tuple[str, set[str], set[str]]
"""Its name, the tensors it takes, those it gives."""

LEAST, MOST = 32, 300
"""Images to calibrate on: fewer say too little of the ranges; NNCF's own default is the other."""


def quantise(model: Any, images: Sequence[npt.NDArray[Any]], *, kept: Sequence[str] = ()) -> Any:
    """Quantise a model's convolutions to int8.

    All else stays in float32: the resize, pooling, the head (its few multiplications save nothing,
    and its rounding moves the logits) and the unknown score.

    NNCF's overflow fix, which halves the range of the first convolution's weights for processors
    without VNNI, is off: that one bit was half of all that int8 lost (ResNet-50 on 500 ImageNet
    images: divergence of the answers 0.0092 instead of 0.0230, see docs/export.md).

    Args:
        model: an ``onnx.ModelProto`` or ``openvino.Model`` with input ``images``.
        images: (1, ...) each, as the model takes them.
        kept: names of convolutions that stay in float32.

    Raises:
        UsageError: NNCF cannot quantise this network.
    """
    without_telemetry()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # NNCF's imports and its torch parts; nothing of ours
        loud = logging.getLogger("torch.utils.cpp_extension")  # says that there is no GPU
        level = loud.level
        loud.setLevel(logging.ERROR)
        try:
            import nncf  # the extra 'int8'

            nncf.set_log_level(logging.ERROR)
            return nncf.quantize(
                model,
                nncf.Dataset(list(images), lambda image: {IMAGES: image}),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(images),
                fast_bias_correction=True,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    overflow_fix=nncf.OverflowFix.DISABLE
                ),
                ignored_scope=nncf.IgnoredScope(
                    names=[*kept, *_outside(model)], validate=False
                ),
            )  # fmt: skip
        except Exception as error:  # whatever it makes of a foreign network
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(f"--precision int8: NNCF cannot quantise it: {said[0]}") from error
        finally:
            loud.setLevel(level)


def _outside(model: Any) -> list[str]:
    """Names of all operations before ``preprocessed`` and behind ``features``."""
    operations = _onnx_operations(model) if hasattr(model, "graph") else _ir_operations(model)
    before, behind = {PREPROCESSED}, {FEATURES}
    found = []
    for name, taken, given in reversed(operations):
        if before & given:
            before |= taken
            found.append(name)
    for name, taken, given in operations:
        if behind & taken:
            behind |= given
            found.append(name)
    return found


def _onnx_operations(model: Any) -> list[Operation]:
    return [(node.name, set(node.input), set(node.output)) for node in model.graph.node]


def _ir_operations(model: Any) -> list[Operation]:
    def known(output: Any) -> set[str]:
        own = f"{output.get_node().get_friendly_name()}:{output.get_index()}"
        return {own, *output.get_names()}

    kept = ("Constant", "Parameter", "Result")  # NNCF does not know these by name
    return [
        (
            op.get_friendly_name(),
            set().union(*(known(one.get_source_output()) for one in op.inputs())),
            set().union(*(known(one) for one in op.outputs())),
        )
        for op in model.get_ordered_ops()
        if op.get_type_name() not in kept
    ]


def reading(model: Any, weights: Sequence[str]) -> list[str]:
    """Names of the operations that read these weights."""
    wanted = set(weights)
    if hasattr(model, "graph"):
        return [node.name for node in model.graph.node if wanted & set(node.input)]
    return [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if any(
            one.get_source_output().get_node().get_friendly_name() in wanted for one in op.inputs()
        )
    ]
