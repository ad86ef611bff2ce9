"""Operations on the straight line: heads, freezing, splitting, folding.

Each works on the model it is given; what is returned shares its modules unless said otherwise.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.model.classifier import Classifier, Foreign, average

C = TypeVar("C", bound=Classifier)


def replace_head(model: Classifier, classes: int) -> None:
    """Give ``model`` a fresh linear layer for ``classes`` outputs."""
    model.spec = model.spec.replace(classes=classes)
    model.head.fc = nn.Linear(model.spec.feature_channels, classes)


def blocks(model: Classifier) -> list[nn.Module]:
    """All residual blocks, first to last."""
    return list(chain.from_iterable(cast("list[nn.Sequential]", list(model.stages))))


def freeze(model: nn.Module) -> None:
    """Freeze all parameters; see ``training_mode`` for the norms' statistics."""
    model.requires_grad_(False)


def unfreeze_last_blocks(model: Classifier, n: int) -> None:
    """Make the last ``n`` residual blocks and the head trainable and freeze everything else.

    With ``n`` equal to the number of blocks the stem stays frozen; use
    ``model.requires_grad_(True)`` to train everything.

    Raises:
        UsageError: ``n`` is negative or more than the network has.
    """
    _check_blocks(model, n)
    freeze(model)
    model.head.requires_grad_(True)
    model.norm.requires_grad_(n > 0)
    for block in blocks(model)[model.spec.blocks - n :]:
        block.requires_grad_(True)


def training_mode(model: nn.Module, *, norm_statistics: bool) -> None:
    """Put the trainable part in training mode and keep the frozen part in evaluation mode.

    A frozen BatchNorm in training mode would go on changing its running statistics (and so the
    "frozen" function); here its buffers stay bit-identical.

    Args:
        model: parameters with ``requires_grad`` say what is trainable.
        norm_statistics: False keeps trainable BatchNorm in evaluation mode as well: its scale and
            shift are trained, its statistics stay as they are.
    """
    model.eval()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and all(p.requires_grad for p in own):
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            module.training = norm_statistics or not is_norm


class Trunk(nn.Module):
    """Stem and first blocks: image -> activation at the split, and features known by then."""

    def __init__(self, model: Classifier, split: int) -> None:
        super().__init__()
        self.stem = model.stem
        self.stages = nn.ModuleList()
        for stage in cast("list[nn.Sequential]", list(model.stages)):
            if split <= 0:
                break
            self.stages.append(stage[:split])
            self.complete = split >= len(stage)
            split -= len(stage)
        self.norm = model.norm
        self.total = model.spec.stages
        self.feature_stages = model.spec.feature_stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> activation (N, C', H', W') and pooled features (N, P), P often 0."""
        x = self.stem(x)
        pooled = [average(x[:, :0])]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            done = index < len(self.stages) - 1 or self.complete
            # The activation at the split itself is pooled by the trunk when its stage is complete.
            if done and index >= self.total - self.feature_stages:
                pooled.append(average(self.norm(x) if index == self.total - 1 else x))
        return x, torch.cat(pooled, dim=1)


class Top(nn.Module):
    """The blocks after the split and the head: what ``Trunk`` gives -> logits."""

    def __init__(self, model: Classifier, split: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for stage in cast("list[nn.Sequential]", list(model.stages)):
            if split < len(stage):
                self.stages.append(stage[max(0, split) :])
            split -= len(stage)
        self.norm = model.norm
        self.head = model.head
        self.feature_stages = model.spec.feature_stages

    def features(self, x: Tensor, pooled: Tensor) -> Tensor:
        """(N, C', H', W') and (N, P) -> features (N, C)."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        if maps:
            maps[-1] = self.norm(maps[-1])
        return torch.cat([pooled, *map(average, maps[-self.feature_stages :])], dim=1)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """(N, C', H', W') and (N, P) -> logits (N, classes)."""
        logits: Tensor = self.head(self.features(x, pooled))
        return logits


def split_trunk(model: Classifier, n: int) -> tuple[Trunk, Top]:
    """Split before the last ``n`` blocks: ``top(*trunk(x))`` equals ``model(x)``.

    Both parts share the model's modules, so training the top trains the model.

    Raises:
        UsageError: ``n`` is negative or more than the network has.
    """
    _check_blocks(model, n)
    split = model.spec.blocks - n
    return Trunk(model, split), Top(model, split)


def fold_batchnorm(model: C) -> C:
    """A copy in evaluation mode whose BatchNorms are folded into the convolutions before them.

    The same function to rounding, in fewer operations; not for training.
    """
    folded = copy.deepcopy(model).eval()
    foreign = {inner for m in folded.modules() if isinstance(m, Foreign) for inner in m.modules()}
    for module in [m for m in folded.modules() if m not in foreign]:
        for name, conv in list(module.named_children()):
            norm = getattr(module, name.replace("conv", "norm"), None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(module, name.replace("conv", "norm"), nn.Identity())
    return folded.requires_grad_(False)


def _check_blocks(model: Classifier, n: int) -> None:
    if not 0 <= n <= model.spec.blocks:
        raise UsageError(
            f"{n} blocks were asked for, but {model.spec.name} has {model.spec.blocks}; "
            f"give 0 to {model.spec.blocks}"
        )
