"""Operations on the straight line: freezing, splitting, slimming, new ends, folding.

Each works on the model it is given; what is returned shares its modules unless said otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import chain
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.model.blocks import DropPath
from plusx.model.classifier import Classifier, average
from plusx.model.recalibrate import recalibrate_batchnorm
from plusx.model.resnet import ResNet, initialise
from plusx.model.stem import Stem

__all__ = [
    "Top",
    "Trunk",
    "blocks",
    "drop_blocks",
    "droppable",
    "fold_batchnorm",
    "freeze",
    "plain_twin",
    "recalibrate_batchnorm",
    "replace_head",
    "replace_stem",
    "split_trunk",
    "training_mode",
    "unfreeze_last_blocks",
]

C = TypeVar("C", bound=Classifier)

STEM_FIELDS = ("stem", "stem_stride", "stem_pool", "in_channels", "image_size")
"""What ``replace_stem`` may change: after it come maps with as many channels as before."""


def replace_head(model: Classifier, classes: int) -> None:
    """Give ``model`` a fresh linear layer for ``classes`` outputs.

    Raises:
        SpecError: no such number of classes.
    """
    model.spec = model.spec.replace(classes=classes)
    fresh = nn.Linear(model.spec.feature_channels, classes)
    model.head.fc = fresh.to(model.head.fc.weight)


def replace_stem(model: ResNet, **changes: Any) -> None:
    """Give ``model`` a fresh stem; the rest keeps its weights.

    Args:
        model: changed in place, its spec too.
        changes: fields of the spec: ``stem``, ``stem_stride``, ``stem_pool``, ``in_channels``,
            ``image_size``.

    Raises:
        UsageError: a field that is not the stem's, or a stem after which the other weights would
            not fit (self-attention has tables for its map's size).
        SpecError: a value that cannot be built.
    """
    if other := sorted(set(changes) - set(STEM_FIELDS)):
        raise UsageError(
            f"replace_stem changes {', '.join(STEM_FIELDS)}; {', '.join(other)} belongs to the "
            "whole network: build another one"
        )
    spec = model.spec.replace(**changes)
    with torch.device("meta"):
        shapes = _shapes(ResNet(spec))
    if shapes != _shapes(model):
        raise UsageError(
            f"{spec.name} with {changes} has other shapes behind its stem than it has now; give "
            "an image_size at which the maps stay as large as they are"
        )
    stem = Stem(spec)
    initialise(stem)
    model.stem = stem.to(next(model.stem.parameters())).train(model.training)
    model.spec = spec


def blocks(model: Classifier) -> list[nn.Module]:
    """All residual blocks, first to last."""
    return list(chain.from_iterable(cast("list[nn.Sequential]", list(model.stages))))


def set_drop_path(model: Classifier, rate: float) -> None:
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): in training, block l of L is left out
    for an image with probability ``rate * l / L``. The spec stays: the trained net is the same
    without it.

    Raises:
        UsageError: the network has no residual blocks.
    """
    found = blocks(model)
    for number, block in enumerate(found, start=1):
        if not hasattr(block, "drop_path"):
            raise UsageError(
                f"--drop-path {rate:g}: {model.spec.name} has no residual blocks whose branch can "
                "be left out; give --drop-path 0"
            )
        chance = rate * number / len(found)
        block.drop_path = DropPath(chance) if chance else nn.Identity()


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
        # Dropout has no parameters of its own: it goes with those of the part it stands in.
        if any(p.requires_grad for p in module.parameters()):
            for child in module.children():
                if isinstance(child, nn.Dropout | DropPath):
                    child.training = True


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

    @property
    def pools(self) -> bool:
        """Whether P is above 0."""
        return any(map(self._pooled, range(len(self.stages))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) -> activation (N, C', H', W') and pooled features (N, P), P often 0."""
        x = self.stem(x)
        pooled = [average(x[:, :0])]
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if self._pooled(index):
                pooled.append(average(self.norm(x) if index == self.total - 1 else x))
        return x, torch.cat(pooled, dim=1)

    def _pooled(self, index: int) -> bool:
        """Whether a stage gives features: the activation at the split itself is pooled by the trunk
        when its stage is complete."""
        done = index < len(self.stages) - 1 or self.complete
        return done and index >= self.total - self.feature_stages


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


def droppable(model: Classifier) -> list[int]:
    """The numbers, from 0, of the blocks that keep the shape and are not their stage's last one."""
    found, number = [], 0
    for stage in cast("list[nn.Sequential]", list(model.stages)):
        for block in stage:
            if len(stage) > 1 and getattr(block, "droppable", False):
                found.append(number)
            number += 1
    return found


def drop_blocks(model: C, numbers: Iterable[int]) -> C:
    """A copy of ``model`` without those blocks; it and its spec are as if built so.

    What is left answers nearly as before in a residual network, and at random in a plain one (Veit
    et al. 2016, arXiv 1605.06431, section 4.1). Fine-tune it to make good the loss.

    Args:
        model: stays as it is.
        numbers: of blocks, counted from 0 over all stages, as in ``blocks(model)``.

    Raises:
        UsageError: a block that changes the shape, or all blocks of a stage.
    """
    gone = set(numbers)
    depths = [len(cast("nn.Sequential", stage)) for stage in model.stages]
    if fixed := sorted(gone - set(droppable(model))):
        raise UsageError(
            f"block {fixed[0]} of {model.spec.name} cannot be dropped: it changes the shape, is "
            f"alone in its stage, or does not exist; droppable are {droppable(model)}"
        )
    numbered = iter(range(sum(depths)))
    kept = [[position for position in range(depth) if next(numbered) not in gone]
            for depth in depths]  # fmt: skip
    if not all(kept):
        raise UsageError(f"stage {kept.index([])} of {model.spec.name} would have no block left")
    slim = copy.deepcopy(model)
    slim.stages = nn.ModuleList(
        nn.Sequential(*(cast("nn.Sequential", stage)[at] for at in left))
        for stage, left in zip(slim.stages, kept, strict=True)
    )
    slim.spec = model.spec.replace(depths=tuple(len(left) for left in kept))
    return slim


def plain_twin(model: ResNet) -> ResNet:
    """A copy of ``model`` without shortcuts, its other weights kept.

    Raises:
        SpecError: it has no shortcuts.
    """
    twin = ResNet(model.spec.plain_twin())
    own = twin.state_dict()
    twin.load_state_dict({name: v for name, v in model.state_dict().items() if name in own})
    return twin.to(next(model.parameters())).train(model.training)


def fold_batchnorm(model: C) -> C:
    """A copy in evaluation mode whose BatchNorms are folded into the convolutions before them.

    The same function to rounding, in fewer operations; not for training. Each module declares in
    ``folds`` which of its norms stands right behind which convolution; other norms stay.
    """
    folded = copy.deepcopy(model).eval()
    for module in list(folded.modules()):
        for conv_name, norm_name in getattr(module, "folds", ()):
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, conv_name, nn.utils.fusion.fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return folded.requires_grad_(False)


def _check_blocks(model: Classifier, n: int) -> None:
    if not 0 <= n <= model.spec.blocks:
        raise UsageError(
            f"{n} blocks were asked for, but {model.spec.name} has {model.spec.blocks}; "
            f"give 0 to {model.spec.blocks}"
        )


def _shapes(model: Classifier) -> dict[str, torch.Size]:
    state = model.state_dict()
    return {name: v.shape for name, v in state.items() if not name.startswith("stem.")}
