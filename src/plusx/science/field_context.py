"""How much a net's answer needs the whole image: shuffled tiles, and hidden middles and rims.

A net that gathers local evidence answers as well when the image is cut into tiles that are put
together in another order (Brendel & Bethge 2019, arXiv 1904.00760; Naseer et al. 2021, arXiv
2105.10497, for transformers beside convolutions). What is hidden is set to the
mean colour that preprocessing takes away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from plusx.errors import UsageError
from plusx.evaluate.intervals import bootstrap_mean, effective_sizes, wilson
from plusx.model.surgery import fold_batchnorm
from plusx.runtime import fast_dtype, forward_batch
from plusx.science.result import Row
from plusx.science.subject import Images, Subject

GRIDS = (1, 2, 4, 7, 8, 16)
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
LEAST_TILE = 4

Right = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """What is done to every image.

    Attributes:
        kind: ``shuffled`` in tiles, ``centre hidden``, or ``rim hidden``.
        level: tiles a side, or the hidden share of the image.
    """

    kind: str
    level: float

    def __str__(self) -> str:
        if self.kind == "shuffled":
            return f"{self.level:.0f} x {self.level:.0f} tiles shuffled"
        return f"{self.kind} by {self.level:.0%}"


def changes(size: tuple[int, int], grids: Sequence[int] | None = None) -> list[Change]:
    """The whole image, its shufflings and its occlusions.

    Args:
        size: (H, W) of the images.
        grids: tiles a side; by default those of ``GRIDS`` that divide the image into tiles of at
            least ``LEAST_TILE`` pixels.

    Raises:
        UsageError: a number of tiles that does not divide the image.
    """
    least = min(size)
    if grids is None:
        grids = [g for g in GRIDS if _divides(g, size) and least // g >= LEAST_TILE]
    for g in grids:
        if g < 1 or not _divides(g, size):
            fitting = ", ".join(str(n) for n in range(1, least + 1) if _divides(n, size))
            raise UsageError(
                f"--grids {g} does not cut {size[0]} x {size[1]} pixels into equal tiles; choose "
                f"among {fitting}"
            )
    return [
        *(Change("shuffled", g) for g in sorted({1, *grids})),
        *(Change(kind, share) for kind in ("centre hidden", "rim hidden") for share in SHARES),
    ]


def changed(images: Tensor, change: Change, *, seed: int = 0, first: int = 0) -> Tensor:
    """A copy of images (N, C, H, W), of which the first has number ``first``: an image is always
    shuffled the same way."""
    if change.kind == "shuffled":
        return _shuffled(images, int(change.level), seed, first)
    _, _, height, width = images.shape
    middle = change.level if change.kind == "centre hidden" else 1 - change.level
    rows, columns = (round(math.sqrt(middle) * n) for n in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    inside = (..., slice(top, top + rows), slice(left, left + columns))
    if change.kind == "centre hidden":
        found = images.clone()
        found[inside] = 0
        return found
    found = torch.zeros_like(images)
    found[inside] = images[inside]
    return found


def answers(
    subject: Subject,
    images: Images,
    change: Change,
    *,
    seed: int = 0,
    tick: Callable[[int], None] = lambda n: None,
) -> Right:
    """(N,) whether each changed image is answered rightly, in the fastest precision with float32's
    range."""
    net = fold_batchnorm(subject.model).to(fast_dtype(torch.device("cpu")))
    net.to(memory_format=torch.channels_last)
    dtype = next(net.parameters()).dtype
    parts, size, at = [], forward_batch(torch.device("cpu")), 0
    with torch.no_grad():
        for some in torch.split(images.images, size):
            x = changed(some, change, seed=seed, first=at)
            logits = net(x.to(dtype=dtype, memory_format=torch.channels_last))
            parts.append(logits.argmax(1) == images.targets[at : at + len(some)])
            at += len(some)
            tick(len(some))
    found: Right = torch.cat(parts).numpy()
    return found


def rows(
    name: str, given: Sequence[Change], right: Sequence[Right], *, groups: Ints | None, seed: int
) -> list[Row]:
    """A row a change: accuracy with Wilson's interval, and what it costs against the first, the
    whole image, with a bootstrap interval over images; images of one ``groups`` number go
    together."""
    found: list[Row] = []
    every = np.zeros(len(right[0]), np.int64)
    for change, mine in zip(given, right, strict=True):
        top1 = float(mine.mean())
        low, high = wilson(top1, effective_sizes(mine, every, 1, groups)[0])
        cost = bootstrap_mean(right[0].astype(np.float64) - mine, groups=groups, seed=seed)
        found.append({
            "net": name, "change": change.kind, "level": change.level, "images": len(mine),
            "top1": round(top1, 6), "top1_low": round(float(low), 6),
            "top1_high": round(float(high), 6), "cost": round(cost.value, 6),
            "cost_low": round(cost.low, 6), "cost_high": round(cost.high, 6),
        })  # fmt: skip
    return found


def _shuffled(images: Tensor, g: int, seed: int, first: int) -> Tensor:
    n, channels, height, width = images.shape
    tall, wide = height // g, width // g
    tiles = images.reshape(n, channels, g, tall, g, wide).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(n, g * g, channels, tall, wide)
    orders = [np.random.default_rng((seed, g, first + at)).permutation(g * g) for at in range(n)]
    order = torch.from_numpy(np.stack(orders))
    tiles = tiles[torch.arange(n)[:, None], order]
    tiles = tiles.reshape(n, g, g, channels, tall, wide).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(n, channels, height, width)


def _divides(g: int, size: tuple[int, int]) -> bool:
    return all(n % g == 0 for n in size)
