"""Which images an epoch takes, and in which order, where it is not each of them once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plusx.data import epoch_order
from plusx.data.records import Targets
from plusx.errors import UsageError
from plusx.fit.trunk import Rows


@dataclass(frozen=True, eq=False)
class Sampling:
    """How an epoch of n images is drawn from n images; the same in every process.

    Attributes:
        repeats: each image that is taken comes this many times in a row, each time as another
            view, and the epoch has as many fewer images (Hoffer et al. 2020, arXiv 1901.09335;
            Berman et al. 2019, arXiv 1902.05509, section 3.3, with epochs as long as before).
        targets: (n,) classes, each of which is then drawn equally often, images anew each time;
            None takes every image alike.

    Raises:
        UsageError: ``targets`` are of several labels an image.
    """

    repeats: int = 1
    targets: Targets | None = None

    def __post_init__(self) -> None:
        if self.targets is not None and self.targets.ndim != 1:
            raise UsageError(
                "--balanced draws every class equally often, and these images have several labels "
                "each; leave it out (--class-weights balanced weighs them)"
            )

    def order(self, n: int, *, seed: int, epoch: int) -> Rows:
        """(n,) positions of a shuffled epoch."""
        few = -(-n // self.repeats)
        chosen = self._drawn(n, seed, epoch)[:few]
        drawn: Rows = np.repeat(chosen, self.repeats)[:n]
        return drawn

    def _drawn(self, n: int, seed: int, epoch: int) -> Rows:
        if self.targets is None:
            return epoch_order(n, seed=seed, epoch=epoch)
        counts = np.bincount(self.targets)
        share = 1 / counts[self.targets]
        # the last number keeps these draws apart from those of order and views
        rng = np.random.Generator(np.random.PCG64([seed % 2**64, epoch, 0xBA1]))
        return rng.choice(n, size=n, p=share / share.sum()).astype(np.int64)


def times_before(order: Rows) -> Rows:
    """For each place of ``order``, how often its position came before."""
    by_position = np.argsort(order, kind="stable")
    ordered = order[by_position]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    run = np.diff(np.r_[first, len(order)])
    found = np.empty(len(order), dtype=np.int64)
    found[by_position] = np.arange(len(order)) - np.repeat(first, run)
    return found
