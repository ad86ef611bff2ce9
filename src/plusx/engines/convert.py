"""From our network to another runtime's, in memory. The network alone: preprocessing stays ours.

OpenVINO's front end takes a traced module in about half the time of an exported one (ResNet-50:
2.9 s against 4.9 s), and both give the same graph.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier
from plusx.model.surgery import fold_batchnorm
from plusx.weights.exported import IMAGES

if TYPE_CHECKING:
    import onnx
    import openvino

LOGITS, FEATURES = "logits", "features"


class _Both(nn.Module):
    """(N, C, S, S) -> logits (N, K), features (N, D)."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = fold_batchnorm(model).float().cpu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return self.model.head(features), features


def to_openvino(model: Classifier) -> openvino.Model:
    """A copy of ``model``, folded, as OpenVINO's model with any batch size.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("--engine openvino", "openvino") from error
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is old; its successor takes twice as long
        trace: Any = torch.jit.trace  # has no types
        traced = trace(_Both(model).eval(), _example(model), check_trace=False)
    spec = model.spec
    shape = [-1, spec.in_channels, -1, -1]
    converted = openvino.convert_model(traced, input=shape)
    converted.input(0).tensor.set_names({IMAGES})
    for output, name in zip(converted.outputs, (LOGITS, FEATURES), strict=True):
        output.tensor.set_names({name})
    return converted


def to_onnx(model: Classifier) -> onnx.ModelProto:
    """A copy of ``model``, folded, as an ONNX model with any batch size.

    Raises:
        MissingExtra: what writes ONNX is not installed.
    """
    try:
        import onnx  # noqa: F401 (only whether they are there)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra("--engine onnxruntime", "onnx") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _Both(model).eval(),
            (_example(model),),
            dynamo=True,
            verbose=False,
            input_names=[IMAGES],
            output_names=[LOGITS, FEATURES],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
        )
    assert program is not None
    found: onnx.ModelProto = program.model_proto
    return found


def _example(model: Classifier) -> Tensor:
    side = model.spec.image_size
    return torch.zeros(2, model.spec.in_channels, side, side)
