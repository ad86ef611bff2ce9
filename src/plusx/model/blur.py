"""Anti-aliased striding: a blur, then every second pixel.

Zhang 2019, "Making Convolutional Networks Shift-Invariant Again" (arXiv 1904.11486), section 3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BlurPool(nn.Module):
    """The 3x3 binomial filter, stride 2, mirrored at the border; no parameters.

    The filter is a non-persistent buffer: it follows device and dtype and is not saved.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        kernel = (line[:, None] * line).expand(channels, 1, 3, 3)
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)); H and W at least 2."""
        x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(x, self.kernel, stride=2, groups=x.shape[1])
