"""The residual network: stem, stages of residual blocks, head, as its spec describes them."""

from __future__ import annotations

from torch import nn

from plusx.errors import SpecError
from plusx.model.blocks import BasicResidual, BottleneckResidual, ResidualBlock
from plusx.model.classifier import Classifier, Head
from plusx.model.shortcut import Shape, make_shortcut, shortcut_shape
from plusx.model.spec import EXPANSION, ResNetSpec
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
        self.norm = nn.Identity()
        self.head = Head(spec.feature_channels, spec.classes)
        _initialise(self)


def _make_stage(spec: ResNetSpec, index: int, shape: Shape) -> tuple[nn.Sequential, Shape]:
    """Stage ``index`` for an input of ``shape``, and the shape it gives."""
    blocks: list[nn.Module] = []
    for position in range(spec.depths[index]):
        stride = 2 if index > 0 and position == 0 else 1
        block, shape = _make_block(spec, (index, position), shape, stride)
        blocks.append(block)
    return nn.Sequential(*blocks), shape


def _make_block(
    spec: ResNetSpec, place: tuple[int, int], shape: Shape, stride: int
) -> tuple[ResidualBlock, Shape]:
    width = spec.widths[place[0]]
    out_channels = width * EXPANSION[spec.block]
    channels, height, size = shape
    out = (out_channels, -(-height // stride), -(-size // stride))
    bypass = shortcut_shape(spec.shortcut, shape, out_channels, stride)
    if bypass != out:
        raise SpecError(
            f"stage {place[0]}, block {place[1]}: the branch gives {out} and the "
            f"{spec.shortcut!r} shortcut {bypass} (channels, height, width), which cannot be "
            "added; use a projection there: shortcut='conv'"
        )
    residual: nn.Module
    if spec.block == "basic":
        residual = BasicResidual(channels, width, stride)
    else:
        residual = BottleneckResidual(channels, width, stride, spec.bottleneck_stride)
    bypass_module = make_shortcut(spec.shortcut, channels, out_channels, stride)
    return ResidualBlock(residual, bypass_module), out


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
