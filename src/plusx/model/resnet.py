"""The residual network: stem, stages of residual blocks, head, as its spec describes them."""

from __future__ import annotations

from torch import nn

from plusx.errors import SpecError
from plusx.model.blocks import (
    BasicResidual,
    BottleneckResidual,
    Place,
    PreActivationBlock,
    ResidualBlock,
)
from plusx.model.classifier import Classifier, Head
from plusx.model.norm import NormActivation
from plusx.model.shortcut import Shape, make_shortcut, shortcut_shape
from plusx.model.spec import ResNetSpec
from plusx.model.stem import Stem, stem_size


class ResNet(Classifier):
    """A residual network as its spec describes it.

    Weights are drawn as in He et al. 2015 (arXiv 1502.01852): normal, fan out, for convolutions;
    the norms start as the identity and the linear layer as torch makes it.

    Args:
        spec: everything about the network.

    Raises:
        SpecError: a block's branch and shortcut cannot be added; the text names stage, block,
            both shapes and the remedy.
    """

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        self.spec: ResNetSpec = spec
        self.stem = Stem(spec)
        self.stages = nn.ModuleList()
        size = stem_size(spec)
        shape = (spec.stem_width, size, size)
        for index in range(spec.stages):
            stage, shape = _make_stage(spec, index, shape)
            self.stages.append(stage)
        pre = spec.order == "pre"
        self.norm = NormActivation(spec, shape[0]) if pre else nn.Identity()
        self.head = Head(spec.feature_channels, spec.classes)
        initialise(self)
        if spec.zero_init_last:
            for module in self.modules():
                if isinstance(module, BasicResidual | BottleneckResidual):
                    module.zero_last()


def _make_stage(spec: ResNetSpec, index: int, shape: Shape) -> tuple[nn.Sequential, Shape]:
    """Stage ``index`` for an input of ``shape``, and the shape it gives."""
    blocks: list[nn.Module] = []
    for position in range(spec.depths[index]):
        place = _place(spec, (index, position), shape)
        blocks.append(_make_block(spec, place))
        shape = place.out
    return nn.Sequential(*blocks), shape


def _place(spec: ResNetSpec, at: tuple[int, int], shape: Shape) -> Place:
    """Where the block ``at`` (stage, position) stands, for an input of ``shape``."""
    stage, position = at
    if spec.stride_block == "first":
        strides = stage > 0 and position == 0
    else:
        strides = stage < spec.stages - 1 and position == spec.depths[stage] - 1
    stride = 2 if strides else 1
    _, height, width = shape
    out = (spec.stage_channels[stage], -(-height // stride), -(-width // stride))
    bypass = shortcut_shape(spec.shortcut, shape, out[0], stride)
    if bypass != out:
        raise SpecError(
            f"stage {stage}, block {position}: the branch gives {out} and the "
            f"{spec.shortcut!r} shortcut {bypass} (channels, height, width), which cannot be "
            "added; use a projection there: shortcut='conv'"
        )
    if spec.blur and strides and min(height, width) < 2:
        raise SpecError(
            f"stage {stage}, block {position}: a map of {height}x{width} pixels cannot be blurred, "
            f"it needs 2x2; choose a larger image_size than {spec.image_size}"
        )
    return Place(stage, position, shape, out, stride)


def _make_block(spec: ResNetSpec, place: Place) -> nn.Module:
    residual: nn.Module
    if spec.block == "basic":
        residual = BasicResidual(spec, place)
    else:
        residual = BottleneckResidual(spec, place)
    channels, out_channels = place.shape[0], place.out[0]
    shortcut = make_shortcut(spec, channels, out_channels, place.stride)
    number = sum(spec.depths[: place.stage]) + place.position + 1
    drop_path = spec.drop_path * number / spec.blocks
    droppable = place.shape == place.out
    if spec.order == "post":
        return ResidualBlock(residual, shortcut, drop_path=drop_path, droppable=droppable)
    preact = NormActivation(spec, channels)
    return PreActivationBlock(preact, residual, shortcut, drop_path=drop_path, droppable=droppable)


def initialise(module: nn.Module) -> None:
    """Weights of convolutions as in He et al. 2015 (arXiv 1502.01852), biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
