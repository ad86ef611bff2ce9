"""Norms, alone and with an activation."""

from __future__ import annotations

from torch import Tensor, nn

from plusx.model.spec import ResNetSpec
from plusx.model.spec_check import NORM_GROUPS


def make_norm(spec: ResNetSpec, channels: int) -> nn.Module:
    """The norm that the spec asks for, for that many channels."""
    if spec.norm == "group":
        return nn.GroupNorm(NORM_GROUPS, channels, eps=spec.norm_eps)
    return nn.BatchNorm2d(channels, eps=spec.norm_eps)


class NormActivation(nn.Module):
    """Norm and ReLU: before a pre-activation block, and after the last one.

    No convolution stands right before it (an addition does), so nothing folds into it.
    """

    def __init__(self, spec: ResNetSpec, channels: int) -> None:
        super().__init__()
        self.norm = make_norm(spec, channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        out: Tensor = self.act(self.norm(x))
        return out
