"""What the records of a comparison say: figures with intervals, and one sentence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx._version import __version__
from plusx.evaluate import SCHEMA_VERSION, Figure, Predictions
from plusx.evaluate.intervals import group_numbers
from plusx.evaluate.paired import gain_over_seeds, share_over_seeds
from plusx.jobs.contest_plan import Plan
from plusx.jobs.contest_run import Record
from plusx.jobs.contest_shift import KINDS, STRENGTH

GOAL = 0.9
"""Share of the best validation top-1 of all contestants that each is timed to."""

Floats = npt.NDArray[np.float64]
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one contestant's trainings answered; rows are seeds.

    Attributes:
        seeds: those whose training gave a network.
        right: (S, N) on the images that report.
        groups: (N,) of them, or None.
        shifted: (S, M) share of the kinds of harm under which an image is still right.
        plain: (S, M) right on the same images unharmed.
        kinds: (S, K) share of right answers by kind.
    """

    seeds: tuple[int, ...]
    right: Floats
    groups: npt.NDArray[np.int64] | None
    shifted: Floats
    plain: Floats
    kinds: Floats

    def of(self, seeds: Sequence[int]) -> list[int]:
        """The rows of these seeds."""
        return [self.seeds.index(seed) for seed in seeds]


def gather_figures(
    plan: Plan, folder: Path, records: list[tuple[list[Record], list[Record]]]
) -> Json:
    """All of ``comparison.json`` but for notes and versions, plain and without NaN."""
    answers = [_answers(plan, folder / "runs" / entrant.slug, counted)
               for entrant, (_, counted) in zip(plan.entrants, records, strict=True)]  # fmt: skip
    tops = [row["val_top1"] for _, counted in records for one in counted for row in one["curve"]]
    goal = GOAL * max((top for top in tops if top is not None), default=0.0)
    contestants = [
        _contestant(plan, number, trials, counted, answers[number], goal)
        for number, (trials, counted) in enumerate(records)
    ]
    differences = _differences(plan, answers)
    roles = {"learn": "train", "choose": "val", "report": "test"}
    counts = {role: len(plan.listing.part(split)) for role, split in roles.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "plusx_version": __version__,
        "data": plan.options.data,
        "classes": list(plan.listing.classes),
        "images": counts | {"shift": len(plan.shift)},
        "always_one_class": _largest(plan),
        "budget": {"epochs": plan.options.trial_epochs, "trials": plan.options.trials},
        "epochs": plan.epochs,
        "seeds": plan.seeds(),
        "batch_size": plan.options.batch_size,
        "image_size": plan.entrants[0].preprocessing.size,
        "goal_val_top1": goal,
        "shift_strength": STRENGTH,
        "contestants": contestants,
        "differences": differences,
        "finding": finding(contestants, differences, counts["report"]),
    }


def _answers(plan: Plan, folder: Path, counted: list[Record]) -> Answers | None:
    """None where no training gave a network."""
    done = [one for one in counted if one["ships"] is not None]
    if not done:
        return None
    predictions = [Predictions.load(folder / f"seed-{one['seed']}.npz") for one in done]
    paths = [sample.path for sample in plan.listing.part("test")]
    scored = set(paths).intersection(*(p.paths for p in predictions))
    order = [path for path in paths if path in scored]
    right = np.array([_right(p, order) for p in predictions])
    places = {path: i for i, path in enumerate(predictions[0].paths)}
    first = predictions[0].take([places[path] for path in order])
    harmed = [sample.path for sample in plan.shift]
    marks = [[[letter == "1" for letter in one["shift"][kind]] for kind in KINDS]
             for one in done if one.get("shift")]  # fmt: skip
    shifted = np.array(marks, dtype=np.float64)  # (S, K, M)
    if not marks or not set(harmed) <= scored:
        shifted = np.zeros((len(done), len(KINDS), 0))
        harmed = []
    return Answers(
        seeds=tuple(one["seed"] for one in done),
        right=right,
        groups=group_numbers(first.groups),
        shifted=shifted.mean(axis=1),
        plain=np.array([_right(p, harmed) for p in predictions]).reshape(len(done), -1),
        kinds=shifted.mean(axis=2) if harmed else np.zeros((len(done), 0)),
    )


def _right(predictions: Predictions, order: Sequence[str]) -> Floats:
    found = dict(zip(predictions.paths, predictions.predicted == predictions.targets, strict=True))
    return np.array([found[path] for path in order], dtype=np.float64)


def _contestant(
    plan: Plan,
    number: int,
    trials: list[Record],
    counted: list[Record],
    answers: Answers | None,
    goal: float,
) -> Json:
    entrant = plan.entrants[number]
    reached = [time_to(one["curve"], goal) for one in counted]
    known = [found for found in reached if found is not None]
    middle = [statistics.median(one[i] for one in known) for i in (0, 1)] if known else None
    paces = [one["curve"][-1]["seconds"] / one["curve"][-1]["epoch"]
             for one in counted if len(one["curve"]) > 1]  # fmt: skip
    return {
        "name": entrant.name,
        "what": entrant.what,
        "origin": entrant.origin,
        "parameters": entrant.parameters,
        "rates": [{"lr": t["lr"], "diverged": t["diverged"],
                   "val_top1": t["score"][0] if t["score"] else None} for t in trials],
        "lr": counted[0]["lr"],
        "edge": _edge([t["lr"] for t in trials], counted[0]["lr"]),
        "runs": len(counted),
        "diverged": sum(one["diverged"] for one in counted),
        "trials_diverged": sum(one["diverged"] for one in trials),
        "ships": [one["ships"] for one in counted],
        "top1": None if answers is None else _over_seeds(answers.right, answers.groups),
        "shift": None if answers is None or not answers.shifted.size else _shift(answers),
        "reached": len(known),
        "epochs_to_goal": None if middle is None else middle[0],
        "seconds_to_goal": None if middle is None else middle[1],
        "seconds_per_epoch": statistics.median(paces) if paces else None,
    }  # fmt: skip


def _over_seeds(right: Floats, groups: npt.NDArray[np.int64] | None) -> Json:
    by_seed = right.mean(axis=1)
    return share_over_seeds(right, groups=groups).to_json() | {
        "by_seed": by_seed.tolist(), "n": right.shape[1]
    }  # fmt: skip


def _shift(answers: Answers) -> Json:
    by_kind = answers.kinds.mean(axis=0)
    return _over_seeds(answers.shifted, None) | {
        "unharmed": float(answers.plain.mean()),
        "by_kind": dict(zip(KINDS, by_kind.tolist(), strict=True)),
    }


def time_to(curve: Sequence[Json], goal: float) -> tuple[float, float] | None:
    """Epochs and seconds until validation top-1 first is at least ``goal``; None if it never is."""
    for row in curve:
        if row["val_top1"] is not None and row["val_top1"] >= goal:
            return row["epoch"], row["seconds"]
    return None


def _edge(rates: list[float], best: float | None) -> str | None:
    """``smallest`` or ``largest`` where the best rate is one of them: a wider search may help."""
    if best is None or len(rates) < 2 or min(rates) < best < max(rates):
        return None
    return "smallest" if best == min(rates) else "largest"


def _differences(plan: Plan, answers: list[Answers | None]) -> list[Json]:
    """The first contestant against each other one; and scratch against plain, what the shortcuts
    alone do."""
    names = [entrant.name for entrant in plan.entrants]
    pairs = [(0, other) for other in range(1, len(names))]
    if {"scratch", "plain"} <= set(names) and names[0] not in ("scratch", "plain"):
        pairs.append((names.index("scratch"), names.index("plain")))
    found = []
    for one, other in pairs:
        a, b = answers[one], answers[other]
        entry: Json = {"a": names[one], "b": names[other], "seeds": 0,
                       "top1": None, "settled": False, "shift": None}  # fmt: skip
        if a is not None and b is not None:
            seeds = [seed for seed in a.seeds if seed in b.seeds]
            rows = a.of(seeds), b.of(seeds)
            if seeds and a.right.shape[1] == b.right.shape[1]:
                gap = gain_over_seeds(
                    a.right[rows[0]] - b.right[rows[1]], groups=a.groups, comparisons=len(pairs)
                )
                entry |= {"seeds": len(seeds), "top1": gap.to_json(), "settled": _settled(gap)}
                if a.shifted.size and b.shifted.size:
                    worse = gain_over_seeds(
                        a.shifted[rows[0]] - b.shifted[rows[1]], comparisons=len(pairs)
                    )
                    entry["shift"] = worse.to_json()
        found.append(entry)
    return found


def _settled(gap: Figure) -> bool:
    return gap.low > 0 or gap.high < 0


def _largest(plan: Plan) -> float:
    targets = [sample.targets[0] for sample in plan.listing.part("test")]
    return max(map(targets.count, set(targets))) / len(targets)


def finding(contestants: list[Json], differences: list[Json], images: int) -> str:
    """One sentence: the first contestant against the best of the others, with the interval."""
    first, others = contestants[0], contestants[1:]
    if first["top1"] is None:
        return f"Nothing can be said: no training of {first['name']} gave a network."
    rivals = [one for one in others if one["top1"] is not None]
    gaps = {gap["b"]: gap for gap in differences if gap["a"] == first["name"]}
    rivals = [one for one in rivals if gaps[one["name"]]["top1"] is not None]
    if not rivals:
        return f"Nothing can be said: no training but {first['name']}'s gave a network."
    best = max(rivals, key=lambda one: float(one["top1"]["value"]))
    gap = gaps[best["name"]]
    limits = gap["top1"]
    seeds = f"{gap['seeds']} seed{'s' if gap['seeds'] > 1 else ''} each"
    about = (f"95% interval {100 * limits['low']:+.1f} to {100 * limits['high']:+.1f} points, "
             f"{images} images, {seeds}")  # fmt: skip
    value, rest = 100 * limits["value"], len(rivals) > 1
    named = f"{best['name']}, the best of the others" if rest else best["name"]
    if not gap["settled"]:
        beaten = [
            one["name"]
            for one in rivals
            if gaps[one["name"]]["settled"] and gaps[one["name"]]["top1"]["value"] > 0
        ]
        than = f", though {first['name']} is better than {_and(beaten)}" if beaten else ""
        return (f"No difference can be shown between {first['name']} and {named}: {value:+.1f} "
                f"points ({about}){than}.")  # fmt: skip
    if value < 0:
        return f"{best['name']} is better than {first['name']} by {-value:.1f} points ({about})."
    return f"{first['name']} is better than {named}, by {value:.1f} points ({about})."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
