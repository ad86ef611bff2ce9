"""Which convolutions int8 would hurt most, found in one pass of float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.export.graph import Pipeline

SHARE = 0.05
"""Of the convolutions that stay in float32: those with the largest error, at least one."""
LOOKED_AT = 16
"""Images that this is found on."""


def sensitive(pipeline: Pipeline, images: Sequence[npt.NDArray[Any]]) -> list[str]:
    """Names of the weights of the convolutions whose outputs int8 would change most.

    Each convolution gets its float32 input, rounded to 8 bits over the batch's range, and weights
    rounded per channel; its error is that of its output, squared and relative. One pass ranks all.

    Args:
        pipeline: in float32.
        images: (1, ...) each, as the pipeline takes them.
    """
    errors: dict[str, list[float]] = defaultdict(list)
    names = {module: name for name, module in pipeline.named_modules()
             if isinstance(module, nn.Conv2d)}  # fmt: skip

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        rounded = module._conv_forward(_eight_bits(inputs[0]), _per_channel(module.weight),
                                       module.bias)  # fmt: skip
        off = (rounded - output).square().sum() / output.square().sum().clamp(min=1e-12)
        errors[names[module]].append(float(off))

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            for image in images[:LOOKED_AT]:
                pipeline(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    ranked = sorted(errors, key=lambda name: -sum(errors[name]))
    return [f"{name}.weight" for name in ranked[: max(1, round(SHARE * len(ranked)))]]


def _eight_bits(x: Tensor) -> Tensor:
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-12)
    return (x / step).round() * step


def _per_channel(weight: Tensor) -> Tensor:
    step = (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127).clamp(min=1e-12)
    return (weight / step).round() * step
