"""How much faster a slimmed network is: both timed in turn, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from plusx.fit.line import Line, Trace

BATCHES = {1: 25, 16: 11}
"""Images in a batch -> turns."""


@dataclass(frozen=True)
class Speed:
    """At one batch size, the network alone: no decoding, no preprocessing.

    Attributes:
        batch: images.
        turns: in each both were timed, one after the other.
        parent_ms, child_ms: (first quartile, median, third quartile) of a batch.
        ratio, low, high: median over turns of parent / child, and its 95% bootstrap interval.
    """

    batch: int
    turns: int
    parent_ms: tuple[float, float, float]
    child_ms: tuple[float, float, float]
    ratio: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the child is faster beyond the spread."""
        return self.low > 1

    def to_json(self) -> dict[str, Any]:
        """All fields, plain."""
        return asdict(self) | {"faster": self.shown}


@torch.inference_mode()
def measure(
    parent: Line,
    child: Line,
    image: tuple[int, int, int],
    *,
    tick: Callable[[int], None] = lambda n: None,
) -> list[Speed]:
    """Time both in turn, the first of a turn changing; the first two turns don't count.

    Args:
        parent, child: on the same hardware.
        image: (C, H, W) as the networks take it.
        tick: called after each turn.
    """
    found = []
    for batch, turns in BATCHES.items():
        images = torch.randn(batch, *image, generator=torch.Generator().manual_seed(0))
        taken = np.zeros((turns + 2, 2))
        for turn in range(turns + 2):
            for which in (0, 1) if turn % 2 else (1, 0):
                taken[turn, which] = _once((parent, child)[which], images)
            tick(1)
        found.append(_speed(batch, taken[2:]))
    return found


def _once(line: Line, images: torch.Tensor) -> float:
    started = time.perf_counter()
    trace = Trace()
    line.walk(line.stem(images), 0, len(line.blocks), trace=trace)
    line.logits(trace).cpu()  # waits for the device
    return 1000 * (time.perf_counter() - started)


def _speed(batch: int, taken: np.ndarray) -> Speed:
    ratios = taken[:, 0] / taken[:, 1]
    draws = np.random.default_rng(0).choice(ratios, (2_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    parent, child = (
        tuple(round(float(q), 3) for q in np.quantile(taken[:, k], [0.25, 0.5, 0.75]))
        for k in (0, 1)
    )
    ratio = float(np.median(ratios))
    return Speed(batch, len(taken), parent, child, ratio, float(low), float(high))  # type: ignore[arg-type]
