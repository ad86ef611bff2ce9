"""From our network to another runtime's, in memory. The network alone: preprocessing stays ours.

OpenVINO's front end takes a traced module in about half the time of an exported one (ResNet-50:
2.9 s against 4.9 s), and both give the same graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier
from plusx.model.surgery import fold_batchnorm, split_trunk
from plusx.weights.exported import IMAGES

if TYPE_CHECKING:
    import onnx
    import openvino

LOGITS, FEATURES = "logits", "features"
ACTIVATION, POOLED = "activation", "pooled"


class _Both(nn.Module):
    """(N, C, S, S) -> logits (N, K), features (N, D)."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = fold_batchnorm(model).float().cpu()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return self.model.head(features), features


class _Trunk(nn.Module):
    """(N, C, S, S) -> activation, and pooled features if there are any: OpenVINO takes no output
    without values."""

    def __init__(self, model: Classifier, top_blocks: int, *, pools: bool) -> None:
        super().__init__()
        self.trunk, _ = split_trunk(fold_batchnorm(model).float().cpu(), top_blocks)
        self.pools = pools

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, Tensor] = self.trunk(images)
        return found if self.pools else found[:1]


def to_openvino(model: Classifier) -> openvino.Model:
    """A copy of ``model``, folded, as OpenVINO's model with any batch size.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    return _traced(_Both(model), model, (LOGITS, FEATURES))


def trunk_to_openvino(model: Classifier, top_blocks: int, *, pools: bool) -> openvino.Model:
    """The same of the part before the last ``top_blocks`` blocks.

    Args:
        model: the network.
        top_blocks: how many blocks it lacks.
        pools: whether that part gives pooled features too.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    names = (ACTIVATION, POOLED) if pools else (ACTIVATION,)
    return _traced(_Trunk(model, top_blocks, pools=pools), model, names)


def _traced(module: nn.Module, model: Classifier, outputs: Sequence[str]) -> openvino.Model:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtra("--engine openvino", "openvino") from error
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that tracing is old; its successor takes twice as long
        trace: Any = torch.jit.trace  # has no types
        traced = trace(module.eval(), _example(model), check_trace=False)
    converted = openvino.convert_model(traced, input=[-1, model.spec.in_channels, -1, -1])
    converted.input(0).tensor.set_names({IMAGES})
    for output, name in zip(converted.outputs, outputs, strict=True):
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
