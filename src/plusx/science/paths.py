"""Paths: a residual net as the sum of many nets of different depths.

Veit, Wilber & Belongie 2016 (arXiv 1605.06431), section 5: of n blocks, C(n, k) paths go through k
residual branches; the gradient that comes through one falls with its length, so that only short
paths matter. Sampled as in the paper: draw k blocks at random, and on the way back go through the
branch of those and past all others.

Departures from the paper: the sampled norms, which the paper multiplies by the number of paths,
are set beside the norm of the exact sum over all paths of a length, in which paths that disagree
cancel out. Intervals are over paths and images. BatchNorm runs on its statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from plusx.errors import UsageError
from plusx.science.paths_gradient import Path, Tape, forks_of
from plusx.science.result import Result, Row
from plusx.science.subject import Images, Subject, subset

Array = npt.NDArray[np.float64]
RESAMPLES = 1000
SHARE = 0.9
"""Effective lengths bring that much of the gradient."""


@dataclass(frozen=True)
class Sampling:
    """How paths are drawn.

    Attributes:
        draws: paths of each length.
        images: over which gradients are measured.
        seed: of the draws and intervals.

    Raises:
        UsageError: fewer than one of either.
    """

    draws: int = 20
    images: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1 or self.images < 1:
            raise UsageError(f"--draws {self.draws} and --images {self.images} must be at least 1")


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of one net, by path length from 0 to the number of blocks.

    Attributes:
        subject, images: of what.
        sampled: length -> (draws, N) norms of the input's gradient along single paths.
        exact: (lengths, N) norm of the sum over all paths of that length.
        whole: (N,) norm of the whole gradient.
    """

    subject: Subject
    images: Images
    sampled: Sequence[Array]
    exact: Array
    whole: Array


def count(blocks: int) -> list[int]:
    """How many paths have each length, 0 to ``blocks``: the binomial coefficients."""
    return [math.comb(blocks, k) for k in range(blocks + 1)]


def draw_lengths(blocks: int, n: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """The lengths of ``n`` paths drawn with a fair coin at every block: (n,)."""
    coins = np.random.default_rng(seed).integers(0, 2, (n, blocks))
    lengths: npt.NDArray[np.int64] = coins.sum(axis=1).astype(np.int64)
    return lengths


def draw_paths(blocks: int, length: int, *, draws: int, seed: int) -> list[Path]:
    """Paths through ``length`` random branches; of the two ends there is but one path each."""
    random = np.random.default_rng((seed, length))
    found = []
    for _ in range(min(draws, math.comb(blocks, length))):
        through = set(random.permutation(blocks)[:length].tolist())
        found.append(tuple(number in through for number in range(blocks)))
    return found


def gradients(
    subject: Subject,
    images: Images,
    *,
    sampling: Sampling | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> Gradients:
    """Measure one net.

    Args:
        subject: its net stays as it is.
        images: the first ``sampling.images`` are used.
        sampling: how paths are drawn.
        tick: called for each length.

    Raises:
        UsageError: the net has no choice of paths.
    """
    sampling = sampling or Sampling()
    some = subset(images, sampling.images)
    tape = Tape(subject.model, some.images, some.targets)
    sampled = []
    for length in range(len(tape) + 1):
        sampled.append(along(tape, length, sampling))
        tick(1)
    return Gradients(subject, some, sampled, *together(tape))


def along(tape: Tape, length: int, sampling: Sampling) -> Array:
    """(draws, N) norms along drawn paths of one length."""
    paths = draw_paths(len(tape), length, draws=sampling.draws, seed=sampling.seed)
    found: Array = tape.norms(paths).double().numpy()
    return found


def together(tape: Tape) -> tuple[Array, Array]:
    """(lengths, N) norm of the exact sum over all paths of a length, and (N,) of all lengths."""
    sums = tape.sums()
    exact: Array = sums.flatten(2).norm(dim=2).double().numpy()
    whole: Array = sums.sum(0).flatten(1).norm(dim=1).double().numpy()
    return exact, whole


def shares(found: Gradients) -> Array:
    """(lengths,) part of the gradient that each length brings, as the paper has it: the mean norm
    along one path times the number of paths."""
    mean = np.array([norms.mean() for norms in found.sampled])
    return _shares(mean)


def effective(parts: Array, share: float = SHARE) -> tuple[int, int]:
    """The shortest range of lengths that brings at least ``share``, of several as short the one
    that brings most: first and last length."""
    total = np.concatenate([[0.0], np.cumsum(parts)])
    n = len(parts)
    mass = {(low, high): total[high + 1] - total[low] for low in range(n) for high in range(low, n)}
    enough = [ends for ends, brings in mass.items() if brings >= share - 1e-12]
    return min(enough, key=lambda ends: (ends[1] - ends[0], -mass[ends]))


def summary(found: Gradients, sampling: Sampling | None = None) -> Result:
    """Tables and finding."""
    sampling = sampling or Sampling()
    blocks = len(found.sampled) - 1
    paths, parts = count(blocks), shares(found)
    low, high = effective(parts)
    drawn = _resampled(found, sampling.seed)
    spread = np.percentile(drawn, [2.5, 97.5], axis=0)
    ends = np.array([effective(one) for one in drawn])
    lows, highs = (np.percentile(end, [2.5, 97.5], method="nearest") for end in ends.T)
    held = sum(paths[low : high + 1]) / 2**blocks
    rows: list[Row] = [
        {"net": found.subject.name, "length": k, "paths": paths[k],
         "share_of_paths": paths[k] / 2**blocks, "sampled": len(found.sampled[k]),
         "gradient_of_one_path": float(found.sampled[k].mean()),
         "share_of_gradient": float(parts[k]), "share_low": float(spread[0, k]),
         "share_high": float(spread[1, k]), "gradient_of_all_paths": float(found.exact[k].mean()),
         "gradient_whole": float(found.whole.mean())}
        for k in range(blocks + 1)
    ]  # fmt: skip
    usual = _usual(blocks)
    exact = found.exact.mean(axis=1)
    peak = int(exact.argmax())
    finding = (
        f"{found.subject.name}, {blocks} blocks, {len(found.images)} images: 95% of its paths go "
        f"through {usual[0]} to {usual[1]} residual branches, while {SHARE:.0%} of the gradient "
        f"(the norm along one path times their number) comes through {low} to {high} (95% "
        f"intervals {lows[0]:.0f} to {lows[1]:.0f} and {highs[0]:.0f} to {highs[1]:.0f}), which "
        f"{held:.2g} of all paths have; the paths of one length together, summed with their "
        f"signs, bring most at {peak} ({exact[peak] / found.whole.mean():.2g} times the whole "
        "gradient's norm)."
    )
    return Result(
        study="paths",
        finding=finding,
        settings={**found.subject.settings(), **found.images.settings(), **asdict(sampling),
                  "share": SHARE, "resamples": RESAMPLES},
        tables={"lengths": rows},
        arrays={"exact": found.exact, "whole": found.whole,
                **{f"sampled_{k}": norms for k, norms in enumerate(found.sampled)}},
        notes=[*found.subject.notes,
               "Norms of single paths are added up as in the paper; gradients of different paths "
               "may cancel, as gradient_of_all_paths shows."],
    )  # fmt: skip


def tape_of(subject: Subject, images: Images, sampling: Sampling) -> Tape:
    """The net run on the first images, in float32."""
    some = subset(images, sampling.images)
    return Tape(subject.model, some.images, some.targets)


def blocks_of(subject: Subject) -> int:
    """How many blocks, all of which have a shortcut.

    Raises:
        UsageError: some have none.
    """
    return len(forks_of(subject.model))


def _shares(mean: Array) -> Array:
    blocks = len(mean) - 1
    # by logarithms: the counts of a deep net are beyond floating point
    counts = np.array([math.log(n) for n in count(blocks)])
    logs = counts + np.log(np.maximum(mean, 1e-300))
    each = np.exp(logs - logs.max())
    parts: Array = each / each.sum()
    return parts


def _usual(blocks: int) -> tuple[int, int]:
    parts = np.array([n / 2**blocks for n in count(blocks)])
    return effective(parts, 0.95)


def _resampled(found: Gradients, seed: int) -> Array:
    """(RESAMPLES, lengths) shares with paths and images drawn anew."""
    random, n = np.random.default_rng(seed), len(found.images)
    drawn = []
    for _ in range(RESAMPLES):
        images = random.integers(n, size=n)
        mean = [norms[random.integers(len(norms), size=len(norms))][:, images].mean()
                for norms in found.sampled]  # fmt: skip
        drawn.append(_shares(np.array(mean)))
    return np.array(drawn)
