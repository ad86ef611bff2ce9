"""The gradient that comes to a residual net's input through chosen paths.

A residual block is a fork: a path goes through its residual branch or past it. Each block's two
ways back are kept after one forward pass, so that any number of paths is followed without running
the net again; paths that begin alike at the loss share what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model.blocks import PreActivationBlock, ResidualBlock
from plusx.model.classifier import Classifier, average
from plusx.science.landscape_plane import moved

Path = tuple[bool, ...]
"""For each block, first to last: whether the path goes through its residual branch."""


class Tape:
    """One forward pass of a residual net, whose gradient is asked for path by path.

    Args:
        model: in evaluation mode; stays as it is.
        images: (N, C, H, W) float32.
        targets: (N,).

    Raises:
        UsageError: a block has no shortcut, or the head reads several stages.
    """

    def __init__(self, model: Classifier, images: Tensor, targets: Tensor) -> None:
        net = moved(model, [], []).eval()
        forks = forks_of(net)
        with torch.enable_grad():
            self._images = images.detach().clone().requires_grad_(True)
            self._stem = net.stem(self._images)
            self._forks: list[_Fork] = []
            x = self._stem
            for block in forks:
                self._forks.append(_Fork(block, x))
                x = self._forks[-1].out
            last = x.detach().requires_grad_(True)
            # norms after the last block may write in place, into what is needed for the way back
            logits = net.head(average(net.norm(last.clone())))
            loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
            (self._end,) = torch.autograd.grad(loss, last)

    def __len__(self) -> int:
        return len(self._forks)

    def norms(self, paths: Sequence[Path]) -> Tensor:
        """(paths, N): length of the gradient of each image's loss by its pixels along each path."""
        found = torch.empty(len(paths), len(self._images))
        grads: list[Tensor] = [self._end]
        before: Path = ()
        for at in sorted(range(len(paths)), key=lambda at: paths[at][::-1]):
            back = paths[at][::-1]  # from the loss to the input
            shared = next((i for i, (a, b) in enumerate(zip(back, before, strict=False)) if a != b),
                          min(len(back), len(before)))  # fmt: skip
            del grads[shared + 1 :]
            for depth in range(shared, len(back)):
                fork = self._forks[len(back) - 1 - depth]
                grads.append(fork.back(grads[-1], through=back[depth]))
            before = back
            found[at] = self._at_input(grads[-1]).flatten(1).norm(dim=1)
        return found

    def sums(self) -> Tensor:
        """(blocks + 1, N, C, H, W): the gradient through all paths of each length together, exact.

        After every block, what has gone through k branches is what had and went past it, and what
        had gone through k - 1 and went through it: as many sums as lengths, not as many as paths.
        """
        by_length = [self._end]
        for fork in reversed(self._forks):
            past = [fork.back(grad, through=False) for grad in by_length]
            through = [fork.back(grad, through=True) for grad in by_length]
            inner = [a + b for a, b in zip(past[1:], through[:-1], strict=True)]
            by_length = [past[0], *inner, through[-1]]
        return torch.stack([self._at_input(grad) for grad in by_length])

    def _at_input(self, grad: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self._stem, self._images, grad, retain_graph=True)
        return found


class _Fork:
    """One block, run, with its two ways back apart."""

    def __init__(self, block: ResidualBlock | PreActivationBlock, x: Tensor) -> None:
        self._x = x.detach().requires_grad_(True)
        assert block.shortcut is not None
        if isinstance(block, PreActivationBlock):
            y = block.preact(self._x.clone())
            self._past = block.shortcut(y if block.projects else self._x)
            self._through = block.residual(y)
            self._sum = self.out = (self._past + self._through).detach()
        else:
            self._past = block.shortcut(self._x)
            self._through = block.residual(self._x)
            self._sum = (self._past + self._through).detach().requires_grad_(True)
            self.out = block.act(self._sum.clone())

    def back(self, grad: Tensor, *, through: bool) -> Tensor:
        """The gradient by what came in, along one way."""
        if self.out is not self._sum:
            (grad,) = torch.autograd.grad(self.out, self._sum, grad, retain_graph=True)
        way = self._through if through else self._past
        if way is self._x:
            return grad
        (found,) = torch.autograd.grad(way, self._x, grad, retain_graph=True)
        return found


def forks_of(model: Classifier) -> list[ResidualBlock | PreActivationBlock]:
    """The net's blocks, all of which must have a shortcut.

    Raises:
        UsageError: one has none, or the head reads more than the last stage.
    """
    blocks = list(chain.from_iterable(cast("list[nn.Sequential]", list(model.stages))))
    kinds = (ResidualBlock, PreActivationBlock)
    forks = [b for b in blocks if isinstance(b, kinds) and b.shortcut is not None]
    if not blocks or len(forks) < len(blocks):
        raise UsageError(
            f"{model.spec.name}: {len(blocks) - len(forks)} of its {len(blocks)} blocks have no "
            "shortcut, so there is no choice of paths; give a residual net"
        )
    if model.spec.feature_stages > 1:
        raise UsageError(f"{model.spec.name}: its head reads several stages; give one that reads "
                         "the last")  # fmt: skip
    return forks
