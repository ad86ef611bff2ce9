"""A net moved about a plane of its weight space, and its loss there, fast.

BatchNorm runs on its statistics, which the plane leaves alone. It is then one factor and one
offset a filter, so that the folded net's weights lie on a plane as well: base and directions are
folded once, and each point is one sum. Weights and activations are bfloat16 where that is native;
the sum itself, the logits and the losses are float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.model.classifier import Classifier
from plusx.model.surgery import fold_batchnorm
from plusx.science.directions import Direction

BATCH = 125
"""Images a forward. On one Zen 4 core larger ones leave the cache, and smaller ones pay more for
laying out every layer's weights anew."""


class Plane:
    """``base + a * directions[0] + b * directions[1]``, as one net whose weights are set.

    Args:
        model: the base; stays as it is.
        directions: one or two.
        dtype: of weights and activations.
    """

    def __init__(
        self, model: Classifier, directions: Sequence[Direction], *, dtype: torch.dtype
    ) -> None:
        folded = fold_batchnorm(model)
        self.dtype = dtype
        base = dict(folded.named_parameters())
        ends = [dict(fold_batchnorm(moved(model, [d], [1.0])).named_parameters())
                for d in directions]  # fmt: skip
        names = [n for n in base if any(not torch.equal(base[n], end[n]) for end in ends)]
        self._net = folded.to(memory_format=torch.channels_last)
        self._base = [p.detach().clone() for n, p in base.items() if n in set(names)]
        self._along = [
            [(end[n].detach() - b).to(memory_format=_format(b))
             for n, b in zip(names, self._base, strict=True)]
            for end in ends
        ]  # fmt: skip
        self._net = copy.deepcopy(folded).to(dtype).to(memory_format=torch.channels_last)
        own = dict(self._net.named_parameters())
        self._own: list[Tensor] = [own[name] for name in names]

    def go(self, a: float, b: float = 0.0) -> Classifier:
        """The net there; it is the same object every time."""
        with torch.no_grad():
            weights = self._base
            for at, along in zip((a, b), self._along, strict=False):
                weights = list(torch._foreach_add(weights, along, alpha=at))
            torch._foreach_copy_(self._own, weights)
        return self._net

    def loss(self, at: tuple[float, float], images: Tensor, targets: Tensor) -> Tensor:
        """(N, 2): cross-entropy, and whether the answer is wrong, of each image.

        Args:
            at: the point.
            images: (N, C, H, W) in ``dtype``, channels last.
            targets: (N,).
        """
        net, found = self.go(*at), []
        with torch.inference_mode():
            for few, right in _batches(images, targets, BATCH):
                logits = net(few).float()
                losses = functional.cross_entropy(logits, right, reduction="none")
                # NaN is no answer: it counts as wrong, whatever argmax makes of it
                wrong = (logits.argmax(1) != right) | ~logits.isfinite().all(1)
                found.append(torch.stack([losses, wrong.float()], dim=1))
        return torch.cat(found)


def moved(model: Classifier, directions: Sequence[Direction], at: Sequence[float]) -> Classifier:
    """A copy of ``model`` moved along the directions."""
    there = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in there.named_parameters():
            for direction, far in zip(directions, at, strict=True):
                if name in direction:
                    parameter.add_(direction[name], alpha=far)
    return there


def prepared(images: Tensor, dtype: torch.dtype) -> Tensor:
    """As ``Plane.loss`` wants them."""
    return images.to(dtype).contiguous(memory_format=torch.channels_last)


def _batches(images: Tensor, targets: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(torch.split(images, size), torch.split(targets, size), strict=True)


def _format(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


def plain_loss(model: nn.Module, images: Tensor, targets: Tensor, *, batch: int = BATCH) -> Tensor:
    """The loss of each image in float32, batch after batch: what the plane must agree with."""
    with torch.no_grad():
        return torch.cat(
            [functional.cross_entropy(model(few), right, reduction="none")
             for few, right in _batches(images, targets, batch)]
        )  # fmt: skip
