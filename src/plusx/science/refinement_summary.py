"""What the probes say together: tables and the finding of ``refinement``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from plusx.evaluate.intervals import bootstrap_mean, effective_sizes, group_numbers, wilson
from plusx.science.refinement import Floats, Probing, Stop, labels
from plusx.science.refinement_exit import (
    Half,
    Ints,
    Right,
    costs,
    cross_fitted,
    curve,
    full_cost,
    settled,
)
from plusx.science.result import Result, Row
from plusx.science.subject import Images, Subject, apart

Measured = npt.NDArray[np.float64]
Steps = Mapping[int, tuple[Measured, Measured | None]]
OTHER_CLASSES = (
    "its own head has other classes than the images, so its answers and the gradient of its loss "
    "are left out"
)


@dataclass(frozen=True, eq=False)
class Refined:
    """What one net gave.

    Attributes:
        subject, images: of what.
        stops: where its probes stand.
        logits: (stops, N, K) of probes that never saw the image.
        steps: see ``plusx.science.refinement_steps.steps``.
        net_right: (N,) whether its own head is right; None where it has other classes.
    """

    subject: Subject
    images: Images
    stops: Sequence[Stop]
    logits: Floats
    steps: Steps
    net_right: Right | None = None

    @property
    def right(self) -> Right:
        """(stops, N)."""
        found: Right = self.logits.argmax(axis=2) == labels(self.images)
        return found

    @property
    def groups(self) -> Ints | None:
        """(N,) numbers."""
        return group_numbers(self.images.groups)


def summary(found: Sequence[Refined], probing: Probing | None = None) -> Result:
    """Tables and finding of one or several nets."""
    probing = probing or Probing()
    subjects = apart([one.subject for one in found])
    found = [replace(one, subject=mine) for one, mine in zip(found, subjects, strict=True)]
    depth: list[Row] = []
    leaving: list[Row] = []
    curves: list[Row] = []
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    sentences: list[str] = []
    notes: list[str] = []
    for at, one in enumerate(found):
        blocks = _blocks(one, probing.seed)
        exits = _exits(one, probing.seed)
        depth += blocks
        leaving += exits
        curves += _curve(one)
        sentences.append(_forms(one, blocks) + _leaves(exits) + _steps_say(one, blocks))
        notes += one.subject.notes
        if one.net_right is None:
            notes.append(f"{one.subject.name}: {OTHER_CLASSES}")
        arrays |= {f"logits_{at}": one.logits, f"targets_{at}": labels(one.images),
                   f"settled_{at}": settled(one.right)}  # fmt: skip
    return Result(
        study="refinement",
        finding=" ".join(sentences),
        settings={
            "subjects": [
                {**one.subject.settings(), **one.images.settings(),
                 "classes": int(one.logits.shape[2])}
                for one in found
            ],
            **asdict(probing),
        },
        tables={"blocks": depth, "exits": leaving, "curve": curves},
        arrays=arrays,
        notes=[
            *dict.fromkeys(notes),
            "The curve of cost against accuracy takes its temperatures from the images it is drawn "
            "from; the exits' figures do not.",
        ],
    )  # fmt: skip


def _blocks(one: Refined, seed: int) -> list[Row]:
    """A row a stop."""
    right, whole, n = one.right, one.stops[-1].macs, len(one.images)
    every = np.zeros(n, np.int64)
    first = np.bincount(settled(right), minlength=len(right) + 1)
    gone = 0
    found: list[Row] = []
    last = one.logits[-1].argmax(axis=1)
    for at, stop in enumerate(one.stops):
        top1 = float(right[at].mean())
        low, high = wilson(top1, effective_sizes(right[at], every, 1, one.groups)[0])
        behind = right[-1].astype(np.float64) - right[at]
        paired = bootstrap_mean(behind, groups=one.groups, seed=seed)
        own = log_softmax(one.logits[at].astype(np.float64), axis=1)
        gone += int(first[at])
        found.append({
            "net": one.subject.name, "place": stop.name, "block": stop.block, "stage": stop.stage,
            "position": stop.position, "features": stop.features,
            "share_of_macs": round(stop.macs / whole, 6), "top1": round(top1, 6),
            "top1_low": round(float(low), 6), "top1_high": round(float(high), 6),
            "behind_last": round(paired.value, 6), "behind_low": round(paired.low, 6),
            "behind_high": round(paired.high, 6),
            "nll": round(float(-own[np.arange(n), labels(one.images)].mean()), 6),
            "agrees_with_last": round(float((one.logits[at].argmax(axis=1) == last).mean()), 6),
            "settled_here": int(first[at]), "settled_share": round(gone / n, 6),
            **_step(one, stop.block, seed),
        })  # fmt: skip
    return found


def _step(one: Refined, block: int, seed: int) -> dict[str, float | None]:
    names = ("", "_low", "_high")
    ratio, cosine = one.steps.get(block, (None, None))
    found: dict[str, float | None] = {}
    for name, values in (("step_over_input", ratio), ("cosine_with_gradient", cosine)):
        mean = None if values is None else bootstrap_mean(values, groups=None, seed=seed)
        for ending, what in zip(names, ("value", "low", "high"), strict=True):
            found[name + ending] = None if mean is None else round(getattr(mean, what), 6)
    return found


def _exits(one: Refined, seed: int) -> list[Row]:
    """A row a half, judged by the other's threshold, and one for all images."""
    classes = one.logits.shape[2]
    cost, full = costs(one.stops, classes), full_cost(one.stops, classes)
    right, groups = one.right, one.groups
    halves = cross_fitted(one.logits, labels(one.images), cost, groups=groups, seed=seed)
    held = np.concatenate([half.held for half in halves])
    both = Half(float("nan"), held, np.concatenate([half.exits for half in halves]))
    found: list[Row] = []
    for name, half in (("first", halves[0]), ("second", halves[1]), ("both", both)):
        mine = right[:, half.held]
        taken = mine[half.exits, np.arange(len(half.held))].astype(np.float64)
        gain = taken - mine[-1]
        saved = 1 - cost[half.exits] / full
        few = None if groups is None else np.unique(groups[half.held], return_inverse=True)[1]
        better = bootstrap_mean(gain, groups=few, seed=seed)
        spared = bootstrap_mean(saved, groups=few, seed=seed)
        found.append({
            "net": one.subject.name, "half": name, "images": len(half.held),
            "threshold": None if name == "both" else _finite(half.threshold),
            "top1": round(float(taken.mean()), 6), "top1_last": round(float(mine[-1].mean()), 6),
            "gain": round(better.value, 6), "gain_low": round(better.low, 6),
            "gain_high": round(better.high, 6), "saved": round(spared.value, 6),
            "saved_low": round(spared.low, 6), "saved_high": round(spared.high, 6),
            "leave_early": round(float((half.exits < len(one.stops) - 1).mean()), 6),
        })  # fmt: skip
    return found


def _curve(one: Refined) -> list[Row]:
    classes = one.logits.shape[2]
    full = full_cost(one.stops, classes)
    return [
        {"net": one.subject.name, "threshold": _finite(threshold),
         "share_of_macs": round(spent / full, 6), "top1": round(top1, 6)}
        for threshold, spent, top1 in curve(
            one.logits, labels(one.images), costs(one.stops, classes)
        )
    ]  # fmt: skip


def _finite(threshold: float) -> float | None:
    return round(threshold, 6) if np.isfinite(threshold) else None


def _forms(one: Refined, table: Sequence[Row]) -> str:
    """How the answer forms with depth."""
    first, last, n = table[0], table[-1], len(one.images)
    middle = min(table, key=lambda row: abs(row["share_of_macs"] - 0.5))
    level = next(row for row in table if row["behind_low"] <= 0)
    said = (
        f"{one.subject.name}, {n:,} images of {one.logits.shape[2]} classes: a probe after "
        f"{first['place']} is right on {_top1(first)}, after {middle['place']} "
        f"({middle['share_of_macs']:.0%} of the multiply-adds) on {_top1(middle)}, after the last "
        f"block on {_top1(last)}"
    )
    if one.net_right is not None:
        said += f" (the net's own head: {one.net_right.mean():.1%})"
    if level is last:
        said += "; every earlier one is measurably behind the last"
    else:
        said += f"; from {level['place']} on it need not be measurably behind the last"
    half = [row for row in table if row["share_of_macs"] <= 0.5]
    done = sum(row["settled_here"] for row in half)
    kept = sum(row["settled_here"] for row in table)
    if kept:
        said += (
            f". Of the {kept:,} images answered rightly at the end, {done / kept:.0%} were so for "
            "good within half of the multiply-adds"
        )
    return said + "."


def _top1(row: Row) -> str:
    return f"{row['top1']:.1%} (95% interval {row['top1_low']:.1%} to {row['top1_high']:.1%})"


def _leaves(table: Sequence[Row]) -> str:
    both = table[-1]
    return (
        f" Leaving by a confidence chosen on the other half saves {both['saved']:.0%} of the "
        f"multiply-adds ({both['saved_low']:.0%} to {both['saved_high']:.0%}) and changes accuracy "
        f"by {100 * both['gain']:+.1f} points ({100 * both['gain_low']:+.1f} to "
        f"{100 * both['gain_high']:+.1f})."
    )


def _steps_say(one: Refined, table: Sequence[Row]) -> str:
    """Whether the branches go down the loss."""
    known = [row for row in table if row["step_over_input"] is not None]
    if not known:
        return ""
    small, large = (pick(known, key=lambda row: row["step_over_input"]) for pick in (min, max))
    said = (
        f" Its {len(known)} branches beside an identity add {small['step_over_input']:.2f} "
        f"({small['place']}) to {large['step_over_input']:.2f} ({large['place']}) of their input's "
        "norm"
    )
    turned = [row for row in known if row["cosine_with_gradient"] is not None]
    if turned:
        down = [row for row in turned if row["cosine_with_gradient_high"] < 0]
        up = [row for row in turned if row["cosine_with_gradient_low"] > 0]
        most = min(turned, key=lambda row: row["cosine_with_gradient"])
        said += (
            f"; {len(down)} of them go down the loss's gradient, {len(up)} up it (95% intervals of "
            f"the mean cosine; {most['cosine_with_gradient']:+.3f} after {most['place']})"
        )
    return said + "."
