"""The layers of a network by their distance from the head: 0 is the head itself."""

from __future__ import annotations

from typing import cast

from torch import nn


def by_distance(net: nn.Module) -> list[list[nn.Module]]:
    """Modules that hold all parameters of ``net``, nearest to the head first.

    The first entry is the head with a last norm, then come the residual blocks from the last one,
    then the stem. What is no such network (a bare head) is one entry.

    Args:
        net: a classifier, or its part after a split.
    """
    stages = getattr(net, "stages", None)
    if not isinstance(stages, nn.ModuleList):
        return [[net]]
    blocks = [block for stage in stages for block in cast("nn.Sequential", stage)]
    children = dict(net.named_children())
    head = [children[name] for name in ("norm", "head") if name in children]
    rest = [module for name, module in children.items() if name not in ("norm", "head", "stages")]
    return [head, *([block] for block in reversed(blocks)), *([rest] if rest else [])]


def thaw(layers: list[list[nn.Module]], count: int) -> None:
    """Make the ``count`` entries nearest to the head trainable and freeze the others.

    Gradual unfreezing (Howard & Ruder 2018, arXiv 1801.06146, section 3.3).

    Args:
        layers: of ``by_distance``, of what shall be trained in the end.
        count: how many learn now.
    """
    for number, modules in enumerate(layers):
        for module in modules:
            module.requires_grad_(number < count)
