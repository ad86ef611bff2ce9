"""What removed blocks did, taken over by the blocks that stay: least squares, in closed form.

The last convolution of a residual branch is linear in its weights, and so is the sum it ends in.
Where blocks are removed behind a block, its last convolution is fitted anew, so that its sum comes
near what the parent's sum is behind the removed blocks; and so is that of each block further on,
towards the parent's own, for what enters it has changed. The maps of a few hundred images give tens
of thousands of equations for a few hundred unknowns a channel, so few images do, and no gradient.

Sources: He et al. 2017 (arXiv 1707.06168), section 3.1, who rebuild what pruned channels gave this
way, one layer after the other; Li et al. 2020 (arXiv 1812.01839), for blocks and a few images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from plusx.fit.line import Line, Trace
from plusx.fit.trunk import ActivationShape, Rows, ScratchActivations
from plusx.model.blocks import ResidualBlock
from plusx.model.classifier import Classifier
from plusx.model.surgery import blocks

RIDGE = 1e-3
"""Pull towards the weights as they are, in units of each input's own square."""

POSITIONS = 64
"""Of each map, at most; neighbours say nearly the same."""

Folds = tuple[tuple[str, str], ...]


def last_layer(block: nn.Module) -> nn.Conv2d | None:
    """The convolution that ends a folded block's branch; None where the block's sum is not linear
    in it: a norm that is not folded stands between, or channel attention."""
    residual = cast("nn.Module", block.residual)
    conv, norm = (getattr(residual, name) for name in cast("Folds", residual.folds)[-1])
    linear = isinstance(norm, nn.Identity) and isinstance(residual.attention, nn.Identity)
    return conv if linear and isinstance(conv, nn.Conv2d) else None


class Watch:
    """While it lasts, each pass leaves here what blocks did at some positions.

    Args:
        watched: folded blocks, by a number.

    Attributes:
        entering: number -> (n, D) float32, what the last convolution is fitted on: its input where
            it is 1x1, else its output.
        total: number -> (n, C) float32, the block's sum, before the activation behind it.
    """

    def __init__(self, watched: Mapping[int, nn.Module]) -> None:
        self.entering: dict[int, Tensor] = {}
        self.total: dict[int, Tensor] = {}
        self._watched, self._handles = watched, list[RemovableHandle]()

    def __enter__(self) -> Watch:
        for number, block in self._watched.items():
            if conv := last_layer(block):
                gives = partial(self._enters, number, conv.kernel_size == (1, 1))
                self._handles.append(conv.register_forward_hook(gives))
            if isinstance(block, ResidualBlock):
                sums = partial(self._sums, number)
                self._handles.append(block.act.register_forward_pre_hook(sums))
            else:
                self._handles.append(block.register_forward_hook(partial(self._ends, number)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _enters(
        self, number: int, pointwise: bool, _: nn.Module, given: tuple[Tensor], gives: Tensor
    ) -> None:
        self.entering[number] = _rows(given[0] if pointwise else gives)

    def _sums(self, number: int, _: nn.Module, given: tuple[Tensor]) -> None:
        self.total[number] = _rows(given[0])

    def _ends(self, number: int, _: nn.Module, __: tuple[Tensor], gives: Tensor) -> None:
        self.total[number] = _rows(gives)


def _rows(x: Tensor) -> Tensor:
    """Some positions of (N, C, H, W), a copy, for what follows may write in place; the same of
    every map of this size."""
    n, channels, height, width = x.shape
    generator = torch.Generator().manual_seed(height * width)
    chosen = torch.randperm(height * width, generator=generator)[:POSITIONS].to(x.device)
    lying = x.permute(0, 2, 3, 1).reshape(n, height * width, channels)
    return lying[:, chosen].reshape(-1, channels).float()


@dataclass(frozen=True, eq=False)
class Refit:
    """A last convolution as fitted, float64: weight, bias (C) or None, and mean and variance (C) of
    what it gives without the bias."""

    weight: Tensor
    bias: Tensor | None
    mean: Tensor
    variance: Tensor

    def write(self, conv: nn.Conv2d) -> None:
        """Into a folded convolution."""
        conv.weight.data.copy_(self.weight)
        if self.bias is not None and conv.bias is not None:
            conv.bias.data.copy_(self.bias)


class Equations:
    """Normal equations of one block: what its sum lacks, on what enters its last convolution.

    Where an activation follows, a sum that should be below zero need only be there.

    Args:
        block: folded; ``last_layer`` has one of it.
    """

    def __init__(self, block: nn.Module) -> None:
        conv = last_layer(block)
        assert conv is not None
        self.conv = conv
        self._rectified = isinstance(block, ResidualBlock)
        self._gram = self._cross = torch.zeros((), dtype=torch.float64)

    def add(self, entering: Tensor, total: Tensor, wanted: Tensor) -> None:
        """Rows (n, D) and twice (n, C): what enters, the sum as it is, and as it should be."""
        lacking = wanted - total
        if self._rectified:
            lacking = torch.where(wanted > 0, lacking, -total.relu())
        ones = torch.ones_like(entering[:, :1])
        entering = torch.cat([entering, ones], dim=1)
        self._gram = self._gram + (entering.T @ entering).double().cpu()
        self._cross = self._cross + (entering.T @ lacking).double().cpu()

    def solve(self) -> Refit:
        """Weight and bias that bring the sum nearest, near to those that are."""
        conv, known = self.conv, self._gram.shape[0] - 1
        weight = conv.weight.double().cpu()
        bias = None if conv.bias is None else conv.bias.double().cpu()
        used = known if bias is None else known + 1
        gram = self._gram[:used, :used]
        ridge = RIDGE * gram.diagonal() + 1e-9 * gram.diagonal().mean()
        change = torch.linalg.solve(gram + ridge.diag(), self._cross[:used]).T
        linear = change[:, :known]
        mean = self._gram[known, :known] / self._gram[known, known]
        spread = self._gram[:known, :known] / self._gram[known, known] - mean.outer(mean)
        if conv.kernel_size == (1, 1):
            weight = weight + linear[:, :, None, None]
            made = weight[:, :, 0, 0]
        else:
            made = torch.eye(known, dtype=torch.float64) + linear
            weight = torch.einsum("oc,cikl->oikl", made, weight)
            if bias is not None:
                mean, bias = mean - bias, made @ bias
        variance = (made @ spread * made).sum(1).clamp(min=0)
        if bias is not None:
            bias = bias + change[:, known]
        return Refit(weight, bias, made @ mean, variance)


def take_over(
    parent: Line,
    child: Line,
    gone: Collection[int],
    images: Iterable[Tensor],
    *,
    count: int,
    folder: Path,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[int, Refit]:
    """Fit the last convolution of each block of ``child`` anew, from the one in front of the first
    removed block on, one after the other.

    Args:
        parent: with all blocks; stays as it is.
        child: the same net without those ``gone``; changed in place.
        gone: blocks in the parent's numbering.
        images: batches (N, C, H, W), preprocessed; of no more than ``count`` images in all.
        count: rows to make room for below ``folder``: two maps an image.
        folder: takes the maps, and is empty afterwards.
        tick: called with the number of images after each batch of each block.

    Returns:
        By the child's number of the block. A block whose sum is not linear in its last
        convolution (see ``last_layer``) is left as it is, and out.
    """
    first, kept = max(0, min(gone) - 1), [n for n in range(len(parent.blocks)) if n not in gone]
    theirs, ours = _Maps(folder / "parent", count), _Maps(folder / "child", count)
    parts: list[Rows] = []
    for batch in images:
        start = int(parts[-1][-1]) + 1 if parts else 0
        parts.append(np.arange(start, start + len(batch)))
        x = parent.walk(parent.stem(batch), 0, first, trace=Trace())
        theirs.write(parts[-1], x)
        ours.write(parts[-1], x)
    theirs.adopt()
    ours.adopt()
    found: dict[int, Refit] = {}
    at = first
    for number, place in enumerate(kept):
        if place < first:
            continue
        until = kept[number + 1] if number + 1 < len(kept) else len(parent.blocks)
        block = child.blocks[number]
        equations = Equations(block) if last_layer(block) else None
        for part in parts:
            with Watch({0: parent.blocks[until - 1]}) as told:
                theirs.write(part, parent.walk(theirs.read(part), at, until, trace=Trace()))
            if equations:
                with Watch({0: block}) as seen:
                    block(ours.read(part))
                equations.add(seen.entering[0], seen.total[0], told.total[0])
            tick(len(part))
        if equations:
            found[number] = equations.solve()
            found[number].write(equations.conv)
        for part in parts:
            ours.write(part, block(ours.read(part)))
        theirs.adopt()
        ours.adopt()
        at = until
    shutil.rmtree(folder / "parent")
    shutil.rmtree(folder / "child")
    return found


def write_back(model: Classifier, found: Mapping[int, Refit]) -> None:
    """Give ``model``, whose BatchNorms are not folded, what ``take_over`` found of its line.

    The BatchNorm behind such a convolution gets the statistics of what now enters it.
    """
    for number, refit in found.items():
        residual = cast("nn.Module", blocks(model)[number].residual)
        conv, norm = (getattr(residual, name) for name in cast("Folds", residual.folds)[-1])
        if not isinstance(norm, nn.BatchNorm2d):
            refit.write(conv)
            continue
        assert refit.bias is not None
        conv.weight.data.copy_(refit.weight)
        norm.weight.data.copy_((refit.variance + norm.eps).sqrt())
        norm.bias.data.copy_(refit.bias + refit.mean)
        norm.load_state_dict({"running_mean": refit.mean, "running_var": refit.variance},
                             strict=False)  # fmt: skip


class _Maps:
    """One map an image, on disk; what is written is read after ``adopt``."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._made = 0
        self._now: ScratchActivations | None = None
        self._next: ScratchActivations | None = None

    def write(self, rows: Rows, x: Tensor) -> None:
        """Keep (N, C, H, W) as ``rows``; in place where the shape stays."""
        channels, height, width = x.shape[1:]
        shape = ActivationShape((channels, height, width), 0, x.dtype)
        if self._now is not None and self._now.shape == shape:
            self._next = self._now
        if self._next is None or self._next.shape != shape:
            self._made += 1
            place = self._folder / str(self._made)
            place.mkdir(parents=True)
            self._next = ScratchActivations(place, self._count, shape)
        self._next.write(rows, x, x[:, :0, 0, 0])

    def adopt(self) -> None:
        """From now on, read what was written."""
        if self._now is not self._next and self._now is not None:
            self._now = None
            shutil.rmtree(self._folder / str(self._made - 1))
        self._now, self._next = self._next, None

    def read(self, rows: Rows) -> Tensor:
        """(N, C, H, W), a copy."""
        assert self._now is not None
        return self._now.read(rows)[0]
