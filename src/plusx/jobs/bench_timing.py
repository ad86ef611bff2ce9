"""Time calls against each other: warmed up, in turn, in rounds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from plusx.runtime import cpu_count

K = TypeVar("K", bound=Hashable)

ROUNDS = 5
"""Each call is timed so often for a share of its seconds; between, all others are. What slows the
machine down for a while then slows all of them down, and shows as a spread over the rounds."""

BUSY = 0.15
"""Share of the cores that other programs use above which figures are said to mislead."""


@dataclass(frozen=True)
class Timing:
    """How long calls took.

    Attributes:
        p50_ms, p95_ms: of single calls.
        low_ms, high_ms: lowest and highest median of a round.
        per_s: items a second, the median of the rounds.
        calls: that were timed.
    """

    p50_ms: float
    p95_ms: float
    low_ms: float
    high_ms: float
    per_s: float
    calls: int

    @property
    def spread(self) -> float:
        """Highest less lowest median of a round, as a share of the median."""
        return (self.high_ms - self.low_ms) / self.p50_ms

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "p50_ms": self.p50_ms,
            "p95_ms": self.p95_ms,
            "round_medians_ms": [self.low_ms, self.high_ms],
            "images_per_s": self.per_s,
            "calls": self.calls,
        }


def interleave(
    calls: Mapping[K, Callable[[], object]],
    *,
    seconds: float,
    items: Mapping[K, int],
    rounds: int = ROUNDS,
    tick: Callable[[K], None] = lambda key: None,
) -> dict[K, Timing]:
    """Time each call for about ``seconds``, in ``rounds`` with all others between.

    Args:
        calls: name -> what to time; each runs to its end.
        seconds: for each, warming up not counted.
        items: name -> images that one call is for.
        rounds: at least 1.
        tick: told of a name whenever it had its share.
    """
    for call in calls.values():
        call()
    keys = list(calls)
    took: dict[K, list[np.ndarray]] = {key: [] for key in keys}
    for turn in range(rounds):
        first = turn * len(keys) // rounds  # so that nobody always follows the same other
        for key in keys[first:] + keys[:first]:
            took[key].append(_share(calls[key], seconds / rounds))
            tick(key)
    return {key: _timing(shares, items[key]) for key, shares in took.items()}


def _share(call: Callable[[], object], seconds: float) -> np.ndarray:
    """Seconds of each call, until ``seconds`` have gone by; at least one."""
    call()  # not timed: it finds caches and threads as the one before it left them
    found: list[float] = []
    ends = time.perf_counter() + seconds
    while not found or time.perf_counter() < ends:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return np.array(found)


def _timing(shares: list[np.ndarray], items: int) -> Timing:
    every = 1000 * np.concatenate(shares)
    medians = [1000 * float(np.median(share)) for share in shares]
    rates = [items * len(share) / float(share.sum()) for share in shares]
    return Timing(
        p50_ms=float(np.median(every)),
        p95_ms=float(np.quantile(every, 0.95)),
        low_ms=min(medians),
        high_ms=max(medians),
        per_s=float(np.median(rates)),
        calls=len(every),
    )


def cores_in_use(seconds: float = 0.3) -> float | None:
    """How many cores this machine's programs use while this one waits; None where the system does
    not say."""
    before = _ticks()
    if before is None:
        with suppress(OSError, AttributeError):
            return os.getloadavg()[0]  # of the last minute, this program's own work included
        return None
    time.sleep(seconds)
    after = _ticks()
    if after is None or after[1] <= before[1]:
        return None
    cores = os.cpu_count() or 1
    return cores * (1 - (after[0] - before[0]) / (after[1] - before[1]))


def _ticks() -> tuple[int, int] | None:
    """Idle ticks and all of them, of all cores since the start of the machine."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
        numbers = [int(field) for field in fields]
    except (OSError, ValueError):
        return None
    return (numbers[3] + numbers[4], sum(numbers)) if len(numbers) > 4 else None


def busy_note(in_use: float | None) -> str | None:
    """What to say where other programs use this machine; None where it is quiet, or unknown."""
    cores = cpu_count()
    if in_use is None or in_use < BUSY * cores:
        return None
    return (
        f"the machine is busy: other programs use {in_use:.1f} of {cores} cores, so these figures "
        "mislead; measure again when it is quiet"
    )
