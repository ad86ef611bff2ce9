"""Receptive fields and multiply-adds, by following the data through one forward.

A dispatch mode sees every operation of a forward. Of each tensor it keeps how its units lie over
the image: unit i of a map looks at the pixels ``i * jump + low`` to ``i * jump + high``. No block
has to declare anything, and parallel branches are exact. Araujo et al. 2019, Computing Receptive
Fields of Convolutional Neural Networks (https://distill.pub/2019/computing-receptive-fields).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class Reach:
    """How the units of a map lie over the image (along its height), in pixels.

    Attributes:
        jump: from one unit to the next.
        low: the first pixel that unit 0 looks at; negative where there is padding.
        high: the last one.
        whole: whether it depends on the whole image besides.
    """

    jump: int = 1
    low: int = 0
    high: int = 0
    whole: bool = False

    @property
    def field(self) -> int:
        """Pixels a unit looks at."""
        return self.high - self.low + 1

    def window(self, size: int, stride: int, padding: int, dilation: int = 1) -> Reach:
        """After a convolution or pool."""
        return replace(
            self,
            jump=self.jump * stride,
            low=self.low - padding * self.jump,
            high=self.high + ((size - 1) * dilation - padding) * self.jump,
        )

    def union(self, other: Reach) -> Reach:
        """Of what depends on both. One that lost its units (a gate) adds only that."""
        whole = self.whole or other.whole
        if self.whole != other.whole and self.jump != other.jump:
            return replace(other if self.whole else self, whole=True)
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Reach(max(self.jump, other.jump), low, high, whole)


_A = torch.ops.aten
_SPATIAL = {2, 3, -1, -2}
_POOLS = (_A.max_pool2d, _A.max_pool2d_with_indices, _A.avg_pool2d)
_MEANS = (_A.mean, _A.sum, _A._adaptive_avg_pool2d, _A.adaptive_avg_pool2d, _A.amax)
_NORMS = (_A.native_batch_norm, _A._native_batch_norm_legit_no_training)
_PRODUCTS = (_A.bmm, _A.baddbmm, _A._scaled_dot_product_flash_attention_for_cpu,
             _A._scaled_dot_product_flash_attention, _A._scaled_dot_product_efficient_attention,
             _A._scaled_dot_product_attention_math, _A.scaled_dot_product_attention,
             _A._scaled_dot_product_fused_attention_overrideable)  # fmt: skip


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows ``Reach`` through every operation that runs inside it.

    Attributes:
        flops: of convolutions and matrix products so far, by torch's own formulas (twice the
            multiply-adds).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: Any = WeakIdKeyDictionary()
        self.flops = 0

    def start(self, image: Tensor) -> None:
        """Let the units of ``image`` (N, C, H, W) be the pixels."""
        self._known[image] = Reach()

    def reach(self, tensor: Tensor) -> Reach:
        """That of a tensor that came from the image."""
        found: Reach = self._known[tensor]
        return found

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation, and note what its results look at."""
        named = kwargs or {}
        if func.overloadpacket in _NORMS and args[0].device.type == "meta":
            # As a norm gives it; torch's own shape rule for it takes most of a forward's time.
            out: Any = (torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0))
        else:
            out = func(*args, **named)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += int(formula(*args, **named, out_val=out))
        given = [one for one in tree_leaves((args, named)) if isinstance(one, Tensor)]
        reaches = [self._known[one] for one in given if one in self._known]
        if reaches:
            joined = reaches[0]
            for other in reaches[1:]:
                joined = joined.union(other)
            found = _after(func.overloadpacket, joined, args, len(reaches))
            for result in tree_leaves(out):
                if isinstance(result, Tensor):
                    self._known[result] = found
        return out


def _after(operation: Any, reach: Reach, args: Sequence[Any], inputs: int) -> Reach:
    """What the result of an operation looks at, from the union of what its inputs do."""
    if operation is _A.convolution and args[0].ndim == 4:
        _, weight, _, stride, padding, dilation = args[:6]
        return reach.window(weight.shape[2], stride[0], padding[0], dilation[0])
    if operation in _POOLS:
        kernel = args[1]
        stride = args[2] if len(args) > 2 and args[2] else kernel
        padding = args[3][0] if len(args) > 3 else 0
        return reach.window(kernel[0], stride[0], padding)
    if operation is _A.slice and len(args) > 4 and args[1] == 2 and args[0].ndim == 4:
        return reach.window(1, args[4], -(args[2] or 0))
    if operation is _A.constant_pad_nd and args[0].ndim == 4 and len(args[1]) > 2:
        return reach.window(1, 1, args[1][2])
    if operation in (_A.reflection_pad2d, _A.replication_pad2d):
        return reach.window(1, 1, args[1][2])
    if operation in _MEANS and args[0].ndim == 4:
        return replace(reach, whole=True) if _over_pixels(operation, args) else reach
    if operation in _PRODUCTS and inputs > 1:
        return replace(reach, whole=True)
    return reach


def _over_pixels(operation: Any, args: Sequence[Any]) -> bool:
    """Whether the height or width is averaged away."""
    if operation in (_A._adaptive_avg_pool2d, _A.adaptive_avg_pool2d):
        return bool(args[1][0] < args[0].shape[2])
    return len(args) < 2 or not args[1] or bool(_SPATIAL & set(args[1]))
