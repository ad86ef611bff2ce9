"""Residual blocks: ``act(shortcut(x) + residual(x))``.

He et al. 2015 (arXiv 1512.03385), figures 2 and 5. ``residual`` and ``shortcut`` are named
submodules, so a block can be lesioned, frozen or made plain from outside.
"""

from __future__ import annotations

from torch import Tensor, nn

from plusx.model.spec import StrideSite


class BasicResidual(nn.Module):
    """Two 3x3 convolutions; the first one strides."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, width, H / stride, W / stride)."""
        x = self.act(self.norm1(self.conv1(x)))
        out: Tensor = self.norm2(self.conv2(x))
        return out


class BottleneckResidual(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width; ``stride_site`` says which one strides."""

    def __init__(self, in_channels: int, width: int, stride: int, stride_site: StrideSite) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_site == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride=stride1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride2, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        out: Tensor = self.norm3(self.conv3(x))
        return out


class ResidualBlock(nn.Module):
    """A post-activation block: ``act(shortcut(x) + residual(x))``.

    Args:
        residual: the learned branch F.
        shortcut: the bypass; ``None`` gives a plain block, ``act(residual(x))``.
    """

    def __init__(self, residual: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        # The residual reads x before anything writes in place: an identity shortcut is x itself.
        out: Tensor = self.residual(x)
        if self.shortcut is not None:
            out = self.shortcut(x) + out
        out = self.act(out)
        return out
