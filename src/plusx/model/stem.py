"""The entry of the network: one convolution, norm, activation and, if wanted, a pool."""

from __future__ import annotations

from torch import Tensor, nn

from plusx.model.spec import ResNetSpec


class Stem(nn.Module):
    """Convolution, norm, pool and activation; 7x7 for photographs or 3x3 for small images."""

    def __init__(self, spec: ResNetSpec) -> None:
        super().__init__()
        kernel = {"7x7": 7, "3x3": 3}[spec.stem]
        self.conv = nn.Conv2d(
            spec.in_channels,
            spec.stem_width,
            kernel,
            stride=spec.stem_stride,
            padding=kernel // 2,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(spec.stem_width)
        self.act = nn.ReLU(inplace=True)
        self.pool: nn.Module = {
            "max": nn.MaxPool2d(3, stride=2, padding=1),
            "max-ceil": nn.MaxPool2d(3, stride=2, ceil_mode=True),
            "none": nn.Identity(),
        }[spec.stem_pool]

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, stem_width, H', W')."""
        # Pooled before the activation: max and ReLU commute, and a quarter of the pixels is left.
        out: Tensor = self.act(self.pool(self.norm(self.conv(x))))
        return out


def stem_size(spec: ResNetSpec) -> int:
    """Height (and width) of the stem's output for an image of ``spec.image_size`` pixels."""
    size = -(-spec.image_size // spec.stem_stride)
    if spec.stem_pool == "max-ceil":  # no padding, and the last window may hang over the edge
        return max(1, -(-(size - 3) // 2) + 1)
    return -(-size // 2) if spec.stem_pool == "max" else size
