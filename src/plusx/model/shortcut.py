"""The bypass of a block: identity, projection, zero padding, fewer pixels, or none.

Options A, B and C are those of He et al. 2015 (arXiv 1512.03385), sections 3.3 and 4.1; the
averaged one is ResNet-D's (He, Tong et al. 2018, arXiv 1812.01187, figure 2).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from plusx.model.norm import make_norm
from plusx.model.spec import ResNetSpec
from plusx.model.spec_check import ShortcutKind

Shape = tuple[int, int, int]
"""(channels, height, width)."""


class ZeroPad(nn.Module):
    """Option A: every ``stride``-th pixel, missing channels filled with zeros; no parameters.

    The zeros go on both sides in equal number, as in the CIFAR nets that others have trained.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        missing = out_channels - in_channels
        self.before, self.after = missing // 2, missing - missing // 2
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))


class Projection(nn.Module):
    """Options B and C: 1x1 convolution and, in order ``post``, a norm; ResNet-D averages first."""

    folds = (("conv", "norm"),)

    def __init__(self, spec: ResNetSpec, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.pool: nn.Module = nn.Identity()
        if spec.shortcut == "avg-conv" and stride > 1:
            self.pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
            stride = 1
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=spec.conv_bias)
        self.norm = make_norm(spec, out_channels) if spec.order == "post" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.norm(self.conv(self.pool(x)))
        return out


def make_shortcut(
    spec: ResNetSpec, in_channels: int, out_channels: int, stride: int
) -> nn.Module | None:
    """The shortcut of one block; ``None`` for a plain network."""
    widens = in_channels != out_channels
    kind, changes = spec.shortcut, widens or stride != 1
    if kind == "none":
        return None
    projects = kind == "conv-all" or (kind in ("conv", "avg-conv") and changes)
    if projects or (kind == "conv-channels" and widens):
        return Projection(spec, in_channels, out_channels, stride)
    if kind in ("zero-pad", "conv-channels") and changes:
        return ZeroPad(in_channels, out_channels, stride)
    return nn.Identity()


def shortcut_shape(kind: ShortcutKind, shape: Shape, out_channels: int, stride: int) -> Shape:
    """What the shortcut of that kind gives for an input of ``shape``."""
    channels, height, width = shape
    if kind == "identity":
        return shape
    # Zero padding can add channels but not take any away.
    out = max(channels, out_channels) if kind == "zero-pad" else out_channels
    return out, -(-height // stride), -(-width // stride)
