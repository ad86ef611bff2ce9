"""Channel attention at the end of a branch: each channel is scaled by what the whole map shows.

A new kind is a class that takes the number of channels, and its line in ``CHANNEL_ATTENTION``. On
disk its parameters are named as timm names them, ``layerS.B.se.`` and the name in the class.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Two 1x1 convolutions on the pooled map (Hu et al. 2018, arXiv 1709.01507, section 3).

    The inner width is a sixteenth, to the nearest multiple of 8 and at least 8, as in timm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 16 + 4) // 8 * 8)
        self.fc1 = nn.Conv2d(channels, inner, 1)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        gate: Tensor = self.fc2(self.act(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * gate.sigmoid()


CHANNEL_ATTENTION: dict[str, Callable[[int], nn.Module]] = {"se": SqueezeExcite}
"""``ResNetSpec.channel_attention`` -> what it builds from the number of channels."""


def make_attention(kind: str, channels: int) -> nn.Module:
    """The attention of that kind; the identity for ``none``."""
    return nn.Identity() if kind == "none" else CHANNEL_ATTENTION[kind](channels)
