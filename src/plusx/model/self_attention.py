"""Global self-attention in the place of a 3x3 convolution.

BoTNet: Srinivas et al. 2021 (arXiv 2101.11605), section 3 and figure 4; the authors' code is
https://gist.github.com/aravindsrinivas/56359b79f0ce4449bcb04ab4b56a57a2
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.model.spec_check import HEADS


class SelfAttention(nn.Module):
    """Every pixel attends to every pixel, by content and by relative position, with four heads.

    The tables of relative positions are made for maps of ``size`` x ``size`` pixels. For maps of
    another size they are interpolated linearly, so the network takes any image; accuracy there
    is for the user to measure, or to restore by fine-tuning.

    Args:
        channels: in and out, divisible by the number of heads.
        size: height and width of the map at the image size the network is meant for.
        stride: 2 averages the output over 2x2 pixels, as the paper does.
    """

    def __init__(self, channels: int, size: int, stride: int) -> None:
        super().__init__()
        self.head_channels = channels // HEADS
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        spread = self.head_channels**-0.5
        self.height = nn.Parameter(torch.randn(2 * size - 1, self.head_channels) * spread)
        self.width = nn.Parameter(torch.randn(2 * size - 1, self.head_channels) * spread)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        n, channels, height, width = x.shape
        heads = self.qkv(x).reshape(n, 3, HEADS, self.head_channels, height, width)
        q, k, v = heads.permute(1, 0, 2, 4, 5, 3).unbind(0)  # each (N, heads, H, W, d)
        scaled = q * self.head_channels**-0.5
        # The bias of query (x, y) for key (u, v) is q.height[u - x] + q.width[v - y].
        rows = torch.einsum("nhxyd,xud->nhxyu", scaled, _relative(self.height, height))
        columns = torch.einsum("nhxyd,yvd->nhxyv", scaled, _relative(self.width, width))
        bias = (rows[..., :, None] + columns[..., None, :]).flatten(4).flatten(2, 3)
        out = functional.scaled_dot_product_attention(
            q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3), attn_mask=bias
        )
        out = out.transpose(2, 3).reshape(n, channels, height, width)
        pooled: Tensor = self.pool(out)
        return pooled


def _relative(table: Tensor, size: int) -> Tensor:
    """(2 S - 1, d) -> (size, size, d): the vector for each pair of positions (from, to)."""
    if table.shape[0] != 2 * size - 1:
        stretched = functional.interpolate(
            table.float().t()[None], size=2 * size - 1, mode="linear", align_corners=True
        )
        table = stretched[0].t().to(table.dtype)
    place = torch.arange(size, device=table.device)
    return table[place[None, :] - place[:, None] + size - 1]
