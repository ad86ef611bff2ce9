"""How much each block of a trained net changes: layer responses and ``|F(x)| / |x|``.

He et al. 2015 (arXiv 1512.03385), section 4.2 and figure 7: the standard deviation of what each
convolution gives, after its norm and before the activation or the addition. ``|F(x)| / |x|`` is
of the two things that a block adds, image by image. In evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plusx.model.classifier import Classifier
from plusx.model.surgery import blocks


@dataclass(frozen=True)
class BlockResponse:
    """Of one block, over some images.

    Attributes:
        block: its number, from 0.
        deviations: standard deviation of each layer's response, first to last.
        ratio: median over images of ``|F(x)| / |x|``; None without a shortcut.
        keeps_shape: whether the shortcut is the identity's kind: no change of shape.
    """

    block: int
    deviations: tuple[float, ...]
    ratio: float | None
    keeps_shape: bool


def responses(net: Classifier, images: Tensor) -> list[BlockResponse]:
    """Of every residual (or plain) block of ``net``; empty where its blocks are of another kind.

    Args:
        net: put into evaluation mode.
        images: (N, C, H, W), as the net wants them.
    """
    units = [unit for unit in blocks(net) if hasattr(unit, "residual")]
    net.eval()
    seen: dict[tuple[int, str], Any] = {}
    with _watching(units, seen), torch.no_grad():
        net(images)
    found = []
    for number, unit in enumerate(units):
        names = [norm for _, norm in getattr(unit.residual, "folds", ())]
        branch, bypass = seen[(number, "residual")], seen.get((number, "shortcut"))
        ratio = None if bypass is None else float((branch / bypass.clamp_min(1e-12)).median())
        found.append(
            BlockResponse(
                number,
                tuple(seen[(number, name)] for name in names),
                ratio,
                bool(getattr(unit, "droppable", False)),
            )
        )
    return found


@contextmanager
def _watching(units: Sequence[nn.Module], seen: dict[tuple[int, str], Any]) -> Iterator[None]:
    """Sizes are taken at once: the activations that follow write in place."""

    def size(at: tuple[int, str]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[at] = output.flatten(1).norm(dim=1)

        return hook

    def deviation(at: tuple[int, str]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen[at] = float(output.std())

        return hook

    handles = []
    for number, unit in enumerate(units):
        for name, part in unit.named_children():
            if name in ("residual", "shortcut"):
                handles.append(part.register_forward_hook(size((number, name))))
        for _, name in getattr(unit.residual, "folds", ()):
            norm = getattr(unit.residual, name)
            handles.append(norm.register_forward_hook(deviation((number, name))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def median_ratio(found: Sequence[BlockResponse]) -> float:
    """Over the blocks that keep the shape; NaN where there is none with a shortcut."""
    ratios = [r.ratio for r in found if r.ratio is not None and r.keeps_shape]
    return float(np.median(ratios)) if ratios else float("nan")
