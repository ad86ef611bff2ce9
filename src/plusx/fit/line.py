"""A network as a line of blocks, any of which can be left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from plusx.fit.loop import Hardware
from plusx.model.classifier import Classifier, average
from plusx.model.surgery import blocks, fold_batchnorm


@dataclass
class Trace:
    """One batch's way: each block's input, and the features pooled at the stages' ends."""

    inputs: dict[int, Tensor] = field(default_factory=dict)
    pooled: dict[int, Tensor] = field(default_factory=dict)


class Line:
    """A network in evaluation mode, folded, that any of its blocks can be left out of.

    Args:
        model: stays as it is.
        hardware: where and in which precision; pooling and head run in float32.
    """

    def __init__(self, model: Classifier, hardware: Hardware) -> None:
        folded = fold_batchnorm(model).to(device=hardware.device, dtype=hardware.dtype)
        folded = folded.to(memory_format=torch.channels_last)
        folded.head.float()
        self.hardware = hardware
        self._stem, self._norm, self._head = folded.stem, folded.norm, folded.head
        self._used = folded.spec.feature_stages
        self.blocks = blocks(folded)
        depths = [len(cast("nn.Sequential", stage)) for stage in folded.stages]
        self.stage_of = [s for s, depth in enumerate(depths) for _ in range(depth)]

    def stem(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 -> what the first block takes."""
        where, dtype = self.hardware.device, self.hardware.dtype
        x: Tensor = self._stem(images.to(where, dtype, memory_format=torch.channels_last))
        return x

    def walk(
        self,
        x: Tensor,
        first: int,
        until: int,
        *,
        gone: Iterable[int] = (),
        trace: Trace,
        keep: bool = False,
    ) -> Tensor:
        """Run blocks ``first`` to ``until`` (not included) but those ``gone``.

        Args:
            x: the input of block ``first``.
            first, until: counted from 0 over all stages.
            gone: left out.
            trace: takes the pooled features, with ``keep`` each block's input, too.
        """
        left_out = set(gone)
        for number in range(first, until):
            if keep:
                trace.inputs[number] = x
            if number not in left_out:
                x = self.blocks[number](x)
            stage, last = self.stage_of[number], self.stage_of[-1]
            if number + 1 == len(self.blocks) or self.stage_of[number + 1] != stage:
                trace.pooled[stage] = average(self._norm(x) if stage == last else x)
        return x

    def pooled(self, trace: Trace, x: Tensor) -> Tensor:
        """(N, P) float32: what a way gave so far of the features, P often 0."""
        used = [trace.pooled[s] for s in sorted(trace.pooled) if s > self.stage_of[-1] - self._used]
        return torch.cat([average(x[:, :0]), *used], dim=1)

    def features(self, trace: Trace) -> Tensor:
        """(N, D) of a way that was walked to its end."""
        used = sorted(trace.pooled)[-self._used :]
        return torch.cat([trace.pooled[stage] for stage in used], dim=1)

    def logits(self, trace: Trace) -> Tensor:
        """(N, K) float32 of a way that was walked to its end."""
        found: Tensor = self._head(self.features(trace))
        return found.float()

    def through(self, images: Tensor) -> Trace:
        """The way of such images, with every block's input."""
        trace = Trace()
        self.walk(self.stem(images), 0, len(self.blocks), trace=trace, keep=True)
        return trace
