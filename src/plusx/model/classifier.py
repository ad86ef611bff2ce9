"""The straight line that every network here is: ``stem -> stages -> norm -> head``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Spec(Protocol):
    """What the rest of the house asks of a network's description; ``ResNetSpec`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def image_size(self) -> int: ...
    @property
    def stages(self) -> int: ...
    @property
    def blocks(self) -> int: ...
    @property
    def feature_stages(self) -> int: ...
    @property
    def feature_channels(self) -> int: ...
    def replace(self, **changes: Any) -> Any:
        """A copy with some fields changed, checked again."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""


class Head(nn.Module):
    """Global average pooling and one linear layer."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, classes)

    def pool(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of (N, C_i, H_i, W_i) -> features (N, sum of C_i), at least float32."""
        return torch.cat([average(m) for m in maps], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, C) -> logits (N, classes)."""
        logits: Tensor = self.fc(features.to(self.fc.weight.dtype))
        return logits


def average(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> mean over pixels (N, C), summed and kept in float32 for half precision."""
    return maps.mean(dim=(2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


class Classifier(nn.Module):
    """Abstract. A network as named children in a straight line.

    Freezing, splitting a trunk off and removing blocks need no more than this, so they work on
    every network that is built so.

    Attributes:
        spec: everything about the network.
        stem: image -> maps.
        stages: one ``nn.Sequential`` of blocks per stage.
        norm: after the last stage, before pooling; the identity but in pre-activation nets.
        head: pooling and the linear layer.
    """

    spec: Spec
    stem: nn.Module
    stages: nn.ModuleList
    norm: nn.Module
    head: Head

    def pyramid(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) -> the stages' outputs by name, ``C2`` (stride 4 at 224) up to ``C5``."""
        x = self.stem(x)
        maps = {}
        for index, stage in enumerate(self.stages):
            x = stage(x)
            maps[f"C{index + 2}"] = x
        return maps

    def features(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> pooled features (N, spec.feature_channels)."""
        *lower, last = self.pyramid(x).values()
        maps = [*lower, self.norm(last)]
        return self.head.pool(maps[-self.spec.feature_stages :])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> logits (N, classes)."""
        logits: Tensor = self.head(self.features(x))
        return logits
