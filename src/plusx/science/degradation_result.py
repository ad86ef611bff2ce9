"""What the trainings of ``degradation`` say: tables, and a sentence made of the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from plusx.science.degradation import PAPER_ERROR, Key, Kind, Plan, keys
from plusx.science.over_seeds import points, spread
from plusx.science.result import Result, Row


def result(plan: Plan, values: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Result:
    """Tables and finding, from what ``train_one`` gave for each of ``keys(plan)``."""
    found = dict(zip([_name(key) for key in keys(plan)], values, strict=True))
    finals = [_final(key, value) for key, value in zip(keys(plan), values, strict=True)]
    differences = _differences(plan, finals)
    bounds = _bounds(plan, found, finals)
    return Result(
        study="degradation",
        finding=_finding(plan, finals, differences, bounds),
        settings=plan.to_dict() | {"classes": list(classes)},
        tables={
            "trainings": finals,
            "summary": _summary(plan, finals),
            "differences": differences,
            "bounds": bounds,
            "curves": [
                {**key, **{name: found[_name(key)]["curve"][name][i] for name in _COLUMNS}}
                for key in keys(plan) for i in range(len(found[_name(key)]["curve"]["iteration"]))
            ],
        },
        notes=_notes(plan),
    )  # fmt: skip


_COLUMNS = ("iteration", "epoch", "seconds", "loss", "train_error", "test_error")


def _name(key: Key) -> tuple[Any, ...]:
    return key["kind"], key["depth"], key["seed"]


def _final(key: Key, value: Mapping[str, Any]) -> Row:
    curve = value["curve"]
    return {
        **key,
        "parameters": value["parameters"],
        "train_error": curve["train_error"][-1],
        "test_error": curve["test_error"][-1],
        "seconds": curve["seconds"][-1],
        "cpu_seconds": curve["cpu_seconds"],
        "diverged": curve["diverged"],
    }


def _of(finals: Sequence[Row], kind: str, depth: int) -> dict[int, Row]:
    """By seed, without those that diverged."""
    return {
        row["seed"]: row
        for row in finals
        if row["kind"] == kind and row["depth"] == depth and not row["diverged"]
    }


def _summary(plan: Plan, finals: Sequence[Row]) -> list[Row]:
    rows: list[Row] = []
    for kind in get_args(Kind):
        for depth in plan.depths:
            kept = _of(finals, kind, depth)
            row: dict[str, Any] = {"kind": kind, "depth": depth, "seeds": len(kept),
                                   "diverged": len(plan.seeds) - len(kept)}  # fmt: skip
            for name in ("train_error", "test_error", "seconds"):
                of = spread([one[name] for one in kept.values()])
                row |= {name: of.mean, f"{name}_least": of.least, f"{name}_most": of.most}
            paper = PAPER_ERROR.get(depth) if kind == "residual" else None
            row["paper_test_error"] = None if paper is None else paper / 100
            rows.append(row)
    return rows


def _differences(plan: Plan, finals: Sequence[Row]) -> list[Row]:
    """Each depth less the shallowest, of the same kind and seed."""
    rows: list[Row] = []
    shallow = min(plan.depths)
    for kind in get_args(Kind):
        base = _of(finals, kind, shallow)
        for depth in sorted(set(plan.depths) - {shallow}):
            deep = _of(finals, kind, depth)
            rows += [
                {"kind": kind, "depth": depth, "less": shallow, "seed": seed,
                 "train_error": deep[seed]["train_error"] - base[seed]["train_error"],
                 "test_error": deep[seed]["test_error"] - base[seed]["test_error"]}
                for seed in plan.seeds if seed in deep and seed in base
            ]  # fmt: skip
    return rows


def _bounds(plan: Plan, found: Mapping[Any, Any], finals: Sequence[Row]) -> list[Row]:
    """What each deep net was trained to, beside the best shallow one padded to its depth."""
    rows: list[Row] = []
    for row in finals:
        shallower = [
            (found[(row["kind"], depth, row["seed"])]["padded"].get(str(row["depth"])), depth)
            for depth in plan.depths if depth < row["depth"]
        ]  # fmt: skip
        known = [(errors[0], depth) for errors, depth in shallower if errors]
        if not known or row["diverged"]:
            continue
        bound, depth = min(known)
        rows.append({"kind": row["kind"], "depth": row["depth"], "seed": row["seed"],
                     "padded_from": depth, "bound_train_error": bound,
                     "train_error": row["train_error"],
                     "missed_by": row["train_error"] - bound})  # fmt: skip
    return rows


def _finding(
    plan: Plan, finals: Sequence[Row], differences: Sequence[Row], bounds: Sequence[Row]
) -> str:
    shallow, deep = min(plan.depths), max(plan.depths)
    lost = [row for row in finals if row["diverged"]]
    said = []
    for kind in get_args(Kind):
        values = [d["train_error"] for d in differences if (d["kind"], d["depth"]) == (kind, deep)]
        if not values:
            continue
        higher = sum(v > 0 for v in values)
        said.append(
            f"{kind}-{deep} less {kind}-{shallow} in training error: {points(spread(values))}, "
            f"higher in {higher} of {len(values)} seeds"
        )
    missed = [b["missed_by"] for b in bounds if (b["kind"], b["depth"]) == ("plain", deep)]
    if missed:
        said.append(
            f"against a shallower plain net padded with identity layers to {deep}, the trained "
            f"plain-{deep} stands at {points(spread(missed))}"
        )
    text = "; ".join(said) or f"no pair of depths was trained to the end (depths {plan.depths})"
    if lost:
        text += f"; {len(lost)} of {len(finals)} trainings diverged"
    return text + "."


def _notes(plan: Plan) -> list[str]:
    notes = [
        "errors are of the images as they are, in evaluation mode; the last point of a curve "
        "takes all of them",
        "seconds are of training alone; trainings that ran side by side share the machine, "
        "cpu_seconds do not depend on that",
    ]
    if plan.train_images is not None:
        notes.append(f"trained on at most {plan.train_images:,} images: errors are not the paper's")
    return notes
