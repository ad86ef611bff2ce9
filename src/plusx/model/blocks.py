"""Residual blocks: ``shortcut + residual``, with the activation after the sum or before it all.

He et al. 2015 (arXiv 1512.03385), figures 2 and 5, and He et al. 2016 (arXiv 1603.05027), figure
4. ``residual`` and ``shortcut`` are named submodules, so a block can be lesioned, frozen or made
plain from outside. ``folds`` of a module names the pairs (convolution, norm right after it).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plusx.model.attention import make_attention
from plusx.model.blur import BlurPool
from plusx.model.norm import make_norm
from plusx.model.self_attention import SelfAttention
from plusx.model.shortcut import Projection, Shape
from plusx.model.spec import ResNetSpec


@dataclass(frozen=True)
class Place:
    """Where a block stands.

    Attributes:
        stage, position: from 0.
        shape: (channels, height, width) of its input at the spec's image size.
        out: the same of its output.
        stride: 1 or 2.
    """

    stage: int
    position: int
    shape: Shape
    out: Shape
    stride: int


class BasicResidual(nn.Module):
    """Two 3x3 convolutions; the first one strides."""

    folds = (("conv1", "norm1"), ("conv2", "norm2"))

    def __init__(self, spec: ResNetSpec, place: Place) -> None:
        super().__init__()
        channels, width, post = place.shape[0], place.out[0], spec.order == "post"
        stride, self.blur = _striding(spec, width, place.stride)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = make_norm(spec, width)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=spec.conv_bias)
        self.norm2 = make_norm(spec, width) if post else nn.Identity()
        self.attention = make_attention(spec.channel_attention, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, width, H / stride, W / stride)."""
        x = self.blur(self.act(self.norm1(self.conv1(x))))
        out: Tensor = self.attention(self.norm2(self.conv2(self.dropout(x))))
        return out

    def zero_last(self) -> None:
        """Let the branch start as zero."""
        _zero(self.norm2, self.conv2)


class BottleneckResidual(nn.Module):
    """1x1 down, 3x3 (or self-attention), 1x1 up to four times the width.

    ``spec.bottleneck_stride`` says which of the first two strides.
    """

    folds = (("conv1", "norm1"), ("conv2", "norm2"), ("conv3", "norm3"))

    def __init__(self, spec: ResNetSpec, place: Place) -> None:
        super().__init__()
        channels, out_channels = place.shape[0], place.out[0]
        width, post = spec.inner_width(place.stage), spec.order == "post"
        first = place.stride if spec.bottleneck_stride == "1x1" else 1
        stride1, self.blur1 = _striding(spec, width, first)
        stride2, self.blur2 = _striding(spec, width, place.stride // first)
        self.conv1 = nn.Conv2d(channels, width, 1, stride=stride1, bias=False)
        self.norm1 = make_norm(spec, width)
        self.act = nn.ReLU(inplace=True)
        self.conv2: nn.Module
        if place.stage >= spec.stages - spec.self_attention:
            size = -(-place.shape[1] // first)
            self.conv2 = SelfAttention(width, size, stride2)
        else:
            self.conv2 = nn.Conv2d(
                width, width, 3, stride=stride2, padding=1, groups=spec.cardinality, bias=False
            )
        self.norm2 = make_norm(spec, width)
        self.dropout = nn.Dropout(spec.dropout) if spec.dropout else nn.Identity()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=spec.conv_bias)
        self.norm3 = make_norm(spec, out_channels) if post else nn.Identity()
        self.attention = make_attention(spec.channel_attention, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        x = self.blur1(self.act(self.norm1(self.conv1(x))))
        x = self.blur2(self.act(self.norm2(self.conv2(x))))
        out: Tensor = self.attention(self.norm3(self.conv3(self.dropout(x))))
        return out

    def zero_last(self) -> None:
        """Let the branch start as zero."""
        _zero(self.norm3, self.conv3)


class DropPath(nn.Module):
    """Stochastic depth: in training, zero for a random part of the images (arXiv 1603.09382).

    What is kept is scaled up instead of scaling down in evaluation, as in dropout, so that a
    trained network is the same with and without it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not self.training:
            return x
        kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) >= self.rate
        return x * (kept / (1 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


class ResidualBlock(nn.Module):
    """A post-activation block: ``act(shortcut(x) + residual(x))``.

    Args:
        residual: the learned branch F.
        shortcut: the bypass; ``None`` gives a plain block, ``act(residual(x))``.
        drop_path: see ``ResNetSpec``; of this block.
        droppable: whether the block keeps the shape, so that it can be taken out.
    """

    def __init__(
        self, residual: nn.Module, shortcut: nn.Module | None, *, drop_path: float, droppable: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.droppable = droppable

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        # The residual reads x before anything writes in place: an identity shortcut is x itself.
        out: Tensor = self.drop_path(self.residual(x))
        if self.shortcut is not None:
            out = self.shortcut(x) + out
        out = self.act(out)
        return out


class PreActivationBlock(nn.Module):
    """``y = preact(x); (shortcut(y) if it projects else shortcut(x)) + residual(y)``.

    He et al. 2016 (arXiv 1603.05027), section 3 and appendix. The paper lets the first block's
    bypass start after its activation; here, as in timm and Keras, only a projection does.

    Args:
        preact: norm and activation before both.
        residual: the learned branch F.
        shortcut: the bypass; ``None`` gives a plain block, ``residual(preact(x))``.
        drop_path: see ``ResNetSpec``; of this block.
        droppable: whether the block keeps the shape, so that it can be taken out.
    """

    def __init__(
        self,
        preact: nn.Module,
        residual: nn.Module,
        shortcut: nn.Module | None,
        *,
        drop_path: float,
        droppable: bool,
    ) -> None:
        super().__init__()
        self.preact = preact
        self.residual = residual
        self.shortcut = shortcut
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.droppable = droppable
        self.projects = isinstance(shortcut, Projection)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        y = self.preact(x)
        out: Tensor = self.drop_path(self.residual(y))
        if self.shortcut is not None:
            out = self.shortcut(y if self.projects else x) + out
        return out


def _striding(spec: ResNetSpec, channels: int, stride: int) -> tuple[int, nn.Module]:
    """The stride of a convolution, and what follows its activation: a blur strides in its place."""
    if stride == 1 or not spec.blur:
        return stride, nn.Identity()
    return 1, BlurPool(channels)


def _zero(norm: nn.Module, conv: nn.Conv2d) -> None:
    last = norm if isinstance(norm, nn.BatchNorm2d | nn.GroupNorm) else conv
    nn.init.zeros_(last.weight)
