"""Trunk activations: what a frozen trunk gives is computed once and trained from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.fit.cache_rows import Bits, Rows
from plusx.fit.keyed_rows import KeyedRows

__all__ = ["ActivationShape", "ActivationStore", "Rows"]


@dataclass(frozen=True)
class ActivationShape:
    """Shape of what a trunk gives for one image.

    Attributes:
        activation: (C, H, W) at the split.
        pooled: number of features pooled before the split.
        dtype: of the activation, the one the trunk ran in (bfloat16, float16 or float32).
    """

    activation: tuple[int, int, int]
    pooled: int
    dtype: torch.dtype

    @property
    def activation_bytes(self) -> int:
        """Bytes of one activation."""
        return math.prod(self.activation) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes on disk for one image and view."""
        return self.activation_bytes + 4 * self.pooled

    def to_bits(self, activation: Tensor, pooled: Tensor) -> Bits:
        """(N, C, H, W) and (N, P) -> (N, row_bytes): the activation channels last, then pooled."""
        last = activation.to("cpu", self.dtype).permute(0, 2, 3, 1).contiguous()
        bits = last.flatten(1).view(torch.uint8).numpy()
        if not self.pooled:
            return bits
        rest = np.ascontiguousarray(pooled.float().cpu().numpy()).view(np.uint8)
        return np.concatenate([bits, rest], axis=1)

    def from_bits(self, bits: Bits) -> tuple[Tensor, Tensor]:
        """The way back; the activation lies channels last in memory, pooled is float32."""
        channels, height, width = self.activation
        own = np.ascontiguousarray(bits[:, : self.activation_bytes])
        flat = torch.from_numpy(own).view(self.dtype)
        activation = flat.view(len(bits), height, width, channels).permute(0, 3, 1, 2)
        rest = np.ascontiguousarray(bits[:, self.activation_bytes :]).view(np.float32)
        return activation, torch.from_numpy(rest.reshape(len(bits), self.pooled))


class ActivationStore:
    """Activations of n images: view 0 without augmentation, the others augmented.

    The row of view v of image i is v * n + i.

    Args:
        shape: of each.
        images: n.
        plain: holds view 0.
        augmented: holds the others; None where there are none.
    """

    def __init__(
        self,
        shape: ActivationShape,
        images: int,
        *,
        plain: KeyedRows,
        augmented: KeyedRows | None = None,
    ) -> None:
        self.shape, self.images, self.plain, self.augmented = shape, images, plain, augmented

    @property
    def views(self) -> int:
        """Number of views, the plain one included."""
        return 1 + (0 if self.augmented is None else len(self.augmented.views))

    def first(self, views: int) -> ActivationStore:
        """The same with no more than the first ``views`` views."""
        more = self.augmented.first(views - 1) if self.augmented and views > 1 else None
        return ActivationStore(self.shape, self.images, plain=self.plain, augmented=more)

    def of(self, view: int) -> KeyedRows:
        """What holds this view."""
        kept = self.plain if view == 0 else self.augmented
        if kept is None or view not in kept.views:
            raise IndexError(f"view {view} of {self.views}")
        return kept

    def write(self, view: int, positions: Rows, activation: Tensor, pooled: Tensor) -> None:
        """Keep (N, C, H, W) and (N, P) as view ``view`` of the images at ``positions``.

        Raises:
            OSError: the disk is full; nothing of it was kept.
        """
        self.of(view).write(view, positions, self.shape.to_bits(activation, pooled))

    def read(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Copies of ``rows``: (N, C, H, W) in the trunk's dtype and (N, P) float32."""
        views, positions = np.divmod(rows, self.images)
        plain: npt.NDArray[np.bool_] = views == 0
        if plain.all() or self.augmented is None:
            return self.shape.from_bits(self.plain.read(views, positions))
        if not plain.any():
            return self.shape.from_bits(self.augmented.read(views, positions))
        bits = np.empty((len(rows), self.shape.row_bytes), dtype=np.uint8)
        bits[plain] = self.plain.read(views[plain], positions[plain])
        bits[~plain] = self.augmented.read(views[~plain], positions[~plain])
        return self.shape.from_bits(bits)
