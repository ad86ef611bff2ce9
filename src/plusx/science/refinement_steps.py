"""What each branch adds to its input, against the input and against the loss's gradient.

Jastrzebski et al. 2018 (arXiv 1710.04773), section 3: if a net refines its answer, the step F(x)
of a block goes down the loss, so that its cosine with the gradient of the loss by the block's
input is below zero; and the norm of F(x) over that of x says how far the step goes. Greff et al.
2017 ask the same of whole stages.

Only blocks whose shortcut leaves x as it is are looked at: elsewhere x and F(x) have another shape
or basis. In a post-activation block a ReLU follows the sum. The loss is the cross-entropy of the
net's own head, so its classes must be those of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.model.blocks import PreActivationBlock, ResidualBlock
from plusx.model.classifier import Classifier
from plusx.runtime import forward_batch
from plusx.science.refinement import blocks_of

Floats = npt.NDArray[np.float64]


def steps(
    model: Classifier,
    images: Tensor,
    targets: Tensor | None,
    *,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[int, tuple[Floats, Floats | None]]:
    """Ratio and cosine of every block that keeps its input's shape.

    Args:
        model: in evaluation mode; stays as it is.
        images: (N, C, H, W) float32.
        targets: (N,), classes of the head; None leaves the cosine out.
        tick: called with the number of images done.

    Returns:
        Number of the block -> (N,) norm of F(x) over that of x, and (N,) cosine of F(x) with the
        gradient of the loss by x, or None.
    """
    numbered = {number: block for number, block in enumerate(blocks_of(model)) if _keeps(block)}
    ratios: dict[int, list[Tensor]] = {number: [] for number in numbered}
    cosines: dict[int, list[Tensor]] = {number: [] for number in numbered}
    if not numbered:
        return {}
    size = forward_batch(images.device)
    for at in range(0, len(images), size):
        seen = _Seen(numbered)
        try:
            wanted = None if targets is None else targets[at : at + size]
            seen.run(model, images[at : at + size], wanted)
        finally:
            seen.leave()
        for number in numbered:
            x, branch = seen.inputs[number], seen.branches[number]
            ratios[number].append(_norm(branch) / _norm(x).clamp_min(1e-30))
            if targets is not None:
                both = torch.stack([branch.flatten(1), seen.gradients[number].flatten(1)])
                cosines[number].append(functional.cosine_similarity(both[0], both[1], dim=1))
        tick(len(images[at : at + size]))
    return {
        number: (_joined(ratios[number]), _joined(cosines[number]) if targets is not None else None)
        for number in numbered
    }


class _Seen:
    """What goes into each block and what its branch gives, of one batch.

    The branch's output is nowhere else to be seen, hence the hooks, for as long as it takes.
    """

    def __init__(self, blocks: dict[int, ResidualBlock | PreActivationBlock]) -> None:
        self.inputs: dict[int, Tensor] = {}
        self.branches: dict[int, Tensor] = {}
        self.gradients: dict[int, Tensor] = {}
        self._handles = []
        for number, block in blocks.items():
            self._handles += [
                block.register_forward_pre_hook(self._input(number)),
                block.residual.register_forward_hook(self._branch(number)),
            ]

    def run(self, model: Classifier, images: Tensor, targets: Tensor | None) -> None:
        with torch.enable_grad():
            logits = model(images.detach().clone().requires_grad_(True))
            if targets is None:
                return
            loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
            found = torch.autograd.grad(loss, list(self.inputs.values()))
        self.gradients = dict(zip(self.inputs, found, strict=True))

    def leave(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _input(self, number: int) -> Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            self.inputs[number] = inputs[0]
            return (inputs[0].clone(),)  # the block may write in place into what it is given

        return hook

    def _branch(self, number: int) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, inputs: object, out: Tensor) -> None:
            self.branches[number] = out.detach().clone()

        return hook


def _keeps(block: nn.Module) -> TypeGuard[ResidualBlock | PreActivationBlock]:
    """Whether its shortcut is x itself."""
    kinds = (ResidualBlock, PreActivationBlock)
    return isinstance(block, kinds) and isinstance(block.shortcut, nn.Identity)


def _norm(x: Tensor) -> Tensor:
    found: Tensor = x.detach().flatten(1).norm(dim=1)
    return found


def _joined(parts: list[Tensor]) -> Floats:
    found: Floats = torch.cat(parts).double().numpy()
    return found
