"""What the nets are worth on the user's images: accuracy, differences, the front, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.evaluate.intervals import Figure
from plusx.evaluate.paired import gain_over_seeds
from plusx.fit.probe import cross_validate
from plusx.jobs.bench_timing import Timing
from plusx.jobs.choose_candidates import LADDER, Net

FOLDS, REPEATS = 5, 5

_CELLS = 2**25
"""Images times classes times heads that a cross-validation may hold."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A net with its figures.

    Attributes:
        net: it.
        timing: of one image.
        top1: of a linear head on its features, cross-validated.
        right: (R, n) whether the head that never saw the image was right.
        to_best: top-1 of the most accurate net less this one's, on the same images and folds; the
            intervals of all nets hold together 95 times in 100. None for the most accurate.
        on_front: no other is both as fast and more accurate, or as accurate and faster.
    """

    net: Net
    timing: Timing
    top1: Figure
    right: npt.NDArray[np.bool_]
    to_best: Figure | None = None
    on_front: bool = False

    @property
    def name(self) -> str:
        """Of the net."""
        return self.net.name

    @property
    def as_good(self) -> bool:
        """Whether the images cannot tell it from the most accurate one."""
        return self.to_best is None or self.to_best.low <= 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        net = self.net
        return {
            "name": net.name,
            "variant": net.variant,
            "weights": net.origin,
            "sha256": net.sha256,
            "top1": self.top1.to_json(),
            "to_best": None if self.to_best is None else self.to_best.to_json(),
            "as_good_as_best": self.as_good,
            "on_front": self.on_front,
            "latency": self.timing.to_json(),
            "file_mib": net.file_mib,
            "params": net.params,
            "macs": net.macs,
            "image_size": net.preprocessing.size,
        }


def fitting_size(images: int, classes: int) -> int:
    """At most so many images can be cross-validated at once."""
    return min(images, _CELLS // (classes * FOLDS * (FOLDS - 1) // 2))


def validate(
    features: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int64],
    *,
    classes: int,
    groups: Sequence[str] | None,
    seed: int,
) -> tuple[Figure, npt.NDArray[np.bool_]]:
    """Top-1 of a linear head, cross-validated, and (R, n) where it was right. The folds depend on
    targets, groups and seed alone: they are the same for every net.

    Raises:
        UsageError: fewer images, or groups, than folds.
    """
    heads = FOLDS * (FOLDS - 1) // 2 * classes * len(targets)
    repeats = max(1, min(REPEATS if len(targets) < 1_000 else 2, _CELLS // heads))
    found = cross_validate(
        features, targets, classes=classes, repeats=repeats, folds=FOLDS, seed=seed, groups=groups
    )
    return found.figure, found.logits.argmax(2) == targets


def compare_all(
    judged: Sequence[Judged], groups: npt.NDArray[np.int64] | None
) -> tuple[Judged, ...]:
    """The same nets, from fast to slow, with their differences to the most accurate and whether
    they stand on the front.

    That the reference is itself chosen by these figures is allowed for: intervals at the level of
    n - 1 comparisons hold together for all differences to the truly best (Hsu 1981, "Simultaneous
    confidence intervals for all distances from the best", Annals of Statistics 9(5)).
    """
    best = _best(judged)
    ordered = sorted(judged, key=lambda one: one.timing.p50_ms)
    found = []
    for one in ordered:
        gap = None if one is best else gap_between(best, one, groups, len(judged) - 1)
        found.append(Judged(one.net, one.timing, one.top1, one.right, gap, _front(one, judged)))
    return tuple(found)


def gap_between(
    a: Judged, b: Judged, groups: npt.NDArray[np.int64] | None, comparisons: int = 1
) -> Figure:
    """Top-1 of ``a`` less that of ``b``, image by image, fold by fold."""
    gains = a.right.astype(np.float64) - b.right
    return gain_over_seeds(gains, groups=groups, comparisons=comparisons)


@dataclass(frozen=True)
class Advice:
    """Which net to take.

    Attributes:
        take: its name.
        sentence: why.
        deeper: whether depth pays on these images; None with fewer than two of the ladder.
    """

    take: str
    sentence: str
    deeper: str | None


def advise(
    judged: Sequence[Judged],
    groups: npt.NDArray[np.int64] | None,
    *,
    budget_ms: float | None = None,
) -> Advice:
    """One sentence, from nets that ``compare_all`` gave.

    Without a budget: the fastest of those that the images cannot tell from the most accurate. With
    one: the most accurate of those that keep it; at least one must.
    """
    best = next(one for one in judged if one.to_best is None)
    n, deeper = judged[0].right.shape[1], _deeper(judged, groups)
    if budget_ms is None:
        take = next(one for one in judged if one.as_good)
        why = _why(take, best, judged, n)
        return Advice(take.name, f"Take {_named(take)}{why}", deeper)
    within = [one for one in judged if one.timing.p50_ms <= budget_ms]
    take = _best(within)
    head = f"Take {_named(take)}, the most accurate within {budget_ms:g} ms"
    if take is best:
        return Advice(take.name, f"{head} and of all.", deeper)
    gap = _points(take.to_best)
    noise = (f"; {n:,} images cannot tell that from chance" if take.as_good
             else ", more than chance explains")  # fmt: skip
    said = f"{head}; {_named(best)} is {gap} better{noise}."
    return Advice(take.name, said, deeper)


def _why(take: Judged, best: Judged, judged: Sequence[Judged], n: int) -> str:
    if len(judged) == 1:
        return ": it is the only net at hand."
    if take is not best:
        return (
            f": it is the fastest that {n:,} images cannot tell from the most accurate, "
            f"{_named(best)}, which is {_points(take.to_best)} better: that may be noise."
        )
    alike = [one for one in judged if one is not best and one.as_good]
    if not alike:
        return ": it is the most accurate, and the lead over each other net is more than chance."
    names = ", ".join(one.name for one in alike)
    more = "are" if len(alike) > 1 else "is"
    fastest = all(best.timing.p50_ms <= one.timing.p50_ms for one in judged)
    lead = " and the fastest" if fastest else (
        ", and the lead over each faster net is more than chance")  # fmt: skip
    return (
        f": it is the most accurate{lead}; {names} {more} slower, and {n:,} images cannot tell "
        "whether worse."
    )


def _deeper(judged: Sequence[Judged], groups: npt.NDArray[np.int64] | None) -> str | None:
    """Deepest of the ladder against the shallowest; names of more than one set of weights are left
    out, for which of them is it?"""
    variants = [one.net.variant for one in judged]
    rungs = [judged[variants.index(name)] for name in LADDER if variants.count(name) == 1]
    if len(rungs) < 2:
        return None
    low, high = rungs[0], rungs[-1]
    gap = gap_between(high, low, groups)
    said = f"{high.name} less {low.name} is {_points(gap, signed=True)}"
    if gap.low > 0:
        return f"Deeper is better for you: {said}."
    if gap.high < 0:
        return f"Deeper is worse for you, with these weights: {said}."
    return f"No gain from depth can be shown on these images: {said}."


def _best(judged: Sequence[Judged]) -> Judged:
    """The most accurate; of several the fastest."""
    return max(judged, key=lambda one: (one.top1.value, -one.timing.p50_ms))


def _front(one: Judged, judged: Sequence[Judged]) -> bool:
    def beats(other: Judged) -> bool:
        better = other.top1.value - one.top1.value
        faster = one.timing.p50_ms - other.timing.p50_ms
        return better >= 0 and faster >= 0 and (better > 0 or faster > 0)

    return not any(beats(other) for other in judged)


def _named(one: Judged) -> str:
    return f"{one.name} ({100 * one.top1.value:.1f}%, {one.timing.p50_ms:.3g} ms)"


def _points(gap: Figure | None, *, signed: bool = False) -> str:
    assert gap is not None
    value, low, high = (round(100 * one, 1) + 0.0 for one in (gap.value, gap.low, gap.high))
    return f"{value:{'+' if signed else ''}.1f} points (95% interval {low:.1f} to {high:.1f})"
