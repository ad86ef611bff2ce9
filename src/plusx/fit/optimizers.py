"""The recipe's optimiser over what is trainable in a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from plusx.fit.depth import by_distance
from plusx.fit.lamb import Lamb
from plusx.fit.recipe import Recipe


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD, AdamW or LAMB over the trainable parameters.

    Biases and norms are not decayed (He et al. 2018, arXiv 1812.01187, section 3.1), unless the
    recipe decays all as He et al. 2015 do. With ``layer_decay`` below 1 each block learns by that
    much slower than the one after it (Howard & Ruder 2018, arXiv 1801.06146, section 3.1); every
    group's ``scale`` is its share of the learning rate. A step is one fused kernel where torch has
    it: on CPUs and CUDA.
    """
    groups = _groups(net, recipe)
    if recipe.optimizer == "lamb":
        return Lamb(groups, lr=recipe.lr)
    fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused
        )
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]


def _groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    layers = [[net]] if recipe.layer_decay == 1 else by_distance(net)
    groups = []
    for distance, modules in enumerate(layers):
        scale = recipe.layer_decay**distance
        trainable = [p for module in modules for p in module.parameters() if p.requires_grad]
        decayed = [p for p in trainable if p.ndim > 1 or recipe.decay_norms]
        free = [p for p in trainable if p.ndim <= 1 and not recipe.decay_norms]
        for parameters, decay in ((decayed, recipe.weight_decay), (free, 0.0)):
            if parameters or distance == 0:
                groups.append({"params": parameters, "weight_decay": decay, "scale": scale})
    return groups
