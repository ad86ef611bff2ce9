"""Trunk activations on disk: what a frozen trunk gives is computed once and trained from.

Rows are written and read in any order through memory-mapped files, so memory stays flat in the
number of images. The files belong to one run and are removed when it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ActivationShape:
    """Shape of what a trunk gives for one image.

    Attributes:
        activation: (C, H, W) at the split.
        pooled: number of features pooled before the split.
        dtype: of the activation, the one the trunk ran in (bfloat16 or float32).
    """

    activation: tuple[int, int, int]
    pooled: int
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes on disk for one image and view."""
        return math.prod(self.activation) * self.dtype.itemsize + 4 * self.pooled


class ActivationStore:
    """``rows`` activations in memory-mapped files below ``folder``."""

    def __init__(self, folder: Path, rows: int, shape: ActivationShape) -> None:
        self.shape = shape
        # numpy has no bfloat16: its bits are kept as uint16.
        kind = {torch.bfloat16: np.uint16, torch.float32: np.float32}[shape.dtype]
        self._activation = np.lib.format.open_memmap(
            folder / "activation.npy", "w+", kind, (rows, *shape.activation)
        )
        self._pooled = np.lib.format.open_memmap(
            folder / "pooled.npy", "w+", np.float32, (rows, shape.pooled)
        )

    def write(self, rows: Rows, activation: Tensor, pooled: Tensor) -> None:
        """Keep (N, C, H, W) and (N, P) as ``rows``."""
        bits = activation.to("cpu", self.shape.dtype).contiguous()
        if self.shape.dtype == torch.bfloat16:
            bits = bits.view(torch.uint16)
        self._activation[rows] = bits.numpy()
        self._pooled[rows] = pooled.float().cpu().numpy()

    def read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Copies of ``rows``: (N, C, H, W) in the trunk's dtype and (N, P) float32."""
        activation = torch.from_numpy(self._activation[rows])
        return activation.view(self.shape.dtype), torch.from_numpy(self._pooled[rows])
