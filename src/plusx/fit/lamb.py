"""LAMB: Adam whose step for each layer is as long as a share of that layer's weights.

You et al. 2020 (arXiv 1904.00962), algorithm 2, with Adam's correction of the first steps' bias, as
NVIDIA's and timm's implementations have it. Weights that are not decayed (biases, norms) take
Adam's step as it is, as in timm.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """The optimiser of ResNet strikes back (arXiv 2110.00476).

    Args:
        groups: of parameters, as all torch optimisers take them.
        lr: of every group that names none.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: decoupled, of every group that names none.
    """

    def __init__(
        self,
        groups: Iterable[Any],
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        usual = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(groups, usual)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; ``closure`` is not used."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, group)
                    parameter.add_(update, alpha=-group["lr"])

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.zeros_like(parameter)
        gradient, first, second = parameter.grad, state["first"], state["second"]
        state["step"] += 1
        count = int(state["step"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (second / (1 - beta2**count)).sqrt_().add_(group["eps"])
        update: Tensor = (first / (1 - beta1**count)).div_(root)
        if not group["weight_decay"]:
            return update
        update.add_(parameter, alpha=group["weight_decay"])
        weight, length = parameter.norm(), update.norm()
        share = torch.where((weight > 0) & (length > 0), weight / length, 1.0)
        return update.mul_(share)
