"""What the measurements of ``gradients`` say: tables, and sentences made of the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plusx.science.gradients import (
    LEVEL,
    GradientPlan,
    Norms,
    keys,
    over_seeds,
    stage_depths,
    trend,
    verdict,
)
from plusx.science.gradients_responses import BlockResponse, median_ratio
from plusx.science.gradients_shattering import Shattering, lag_by_layers
from plusx.science.result import Result, Row

Combination = tuple[int, str, str, str]


@dataclass(frozen=True)
class Trained:
    """A trained net that was looked at beside the table."""

    name: str
    blocks: Sequence[BlockResponse]
    norms: Norms


@dataclass(frozen=True)
class Measured:
    """Everything that was measured.

    Attributes:
        values: of each of ``keys(plan)``, what ``measure_one`` gave; empty where only trained nets
            were asked for.
        shattered: of the line experiment.
        trained: nets that were looked at beside the table.
        noise: no images were given; noise with random labels took their place.
    """

    values: Sequence[Sequence[Mapping[str, Any]]] = ()
    shattered: Sequence[Shattering] = ()
    trained: Sequence[Trained] = ()
    noise: bool = False


def result(plan: GradientPlan, measured: Measured) -> Result:
    """Tables and finding."""
    tables: dict[str, Sequence[Row]] = {}
    said: list[str] = []
    if measured.values:
        norms = _norm_rows(plan, measured.values)
        tables |= {"norms": norms, "combinations": _combinations(plan, measured.values)}
        said.append(_table_sentence(plan, tables["combinations"]))
    if measured.shattered:
        tables["shattering"] = [
            {"kind": s.kind, "layers": s.layers, "seed": s.seed, "lag": lag, "value": value}
            for s in measured.shattered for lag, value in enumerate(s.autocorrelation)
        ]  # fmt: skip
        said.append(_shattering_sentence(measured.shattered))
    if measured.trained:
        tables |= _trained_tables(measured.trained)
        said += _trained_sentences(measured.trained)
    return Result(
        "gradients", " ".join(said), plan.to_dict() | {"level_factor": LEVEL}, tables,
        notes=_notes(measured),
    )  # fmt: skip


def _norm_rows(plan: GradientPlan, values: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    return [
        {**key, "step": row["step"], "block": block, "activation": row["activation"][block],
         "gradient": row["gradient"][block], "weight_gradient": row["weights"][block]}
        for key, rows in zip(keys(plan), values, strict=True)
        for row in rows for block in range(len(row["gradient"]))
    ]  # fmt: skip


def _combinations(plan: GradientPlan, values: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """One row a combination, depth and step: fits over seeds, and the verdict."""
    groups: dict[tuple[Combination, int], list[Mapping[str, Any]]] = {}
    for key, rows in zip(keys(plan), values, strict=True):
        named = (key["depth"], key["shortcut"], key["norm"], key["init"])
        steps = sorted({r["step"] for rows in values for r in rows}) if len(rows) > 1 else [0]
        for step in steps:
            groups.setdefault((named, step), [])
        for one in rows:
            groups.setdefault((named, one["step"]), []).append(one)
    found: list[Row] = []
    for ((depth, shortcut, norm, init), step), rows in groups.items():
        shape = stage_depths(depth)
        gradients = over_seeds([trend(r["gradient"], shape, toward_input=True) for r in rows])
        forward = over_seeds([trend(r["activation"], shape, toward_input=False) for r in rows])
        row: dict[str, Any] = {
            "depth": depth, "shortcut": shortcut, "norm": norm, "init": init, "step": step,
            "seeds": len(rows), "lost": len(plan.seeds) - len(rows),
            "verdict": verdict(gradients[1]),
        }  # fmt: skip
        for name, (block, whole) in (("gradient", gradients), ("activation", forward)):
            for part in ("mean", "low", "high"):
                end = "" if part == "mean" else f"_{part}"
                row[f"{name}_per_block{end}"] = _power(math.e, getattr(block, part))
                row[f"{name}_whole{end}"] = _power(10.0, getattr(whole, part))
        found.append(row)
    return found


def _power(base: float, exponent: float) -> float:
    return math.nan if math.isnan(exponent) else float(base**exponent)


def _table_sentence(plan: GradientPlan, rows: Sequence[Row]) -> str:
    """At initialisation, in the deepest nets: who vanishes, who explodes, who stays level."""
    deep = max(plan.depths)
    first = [row for row in rows if row["step"] == 0 and row["depth"] == deep]
    groups: dict[str, list[str]] = {}
    for row in first:
        bn = "with BatchNorm" if row["norm"] == "batch" else "without BatchNorm"
        groups.setdefault(row["verdict"], []).append(
            f"{row['shortcut']} {bn}, {row['init']} init (x{row['gradient_per_block']:.2f} "
            f"[{row['gradient_per_block_low']:.2f}, {row['gradient_per_block_high']:.2f}] a block, "
            f"x{row['gradient_whole']:.2g} in all)"
        )
    order = ("vanishes", "stays level", "explodes", "unclear", "no number")
    parts = [f"{name}: {', '.join(groups[name])}" for name in order if name in groups]
    plain = [row["verdict"] for row in first
             if (row["shortcut"], row["norm"]) == ("plain", "batch")]  # fmt: skip
    about = ""
    if plain and "vanishes" not in plain:
        about = (
            " Gradients of plain nets with BatchNorm do not vanish here, as He et al. say of theirs"
            + (": they grow." if "explodes" in plain else ".")
        )
    return (
        f"From the last block to the first, the gradient at initialisation ({deep} layers, "
        f"{len(plan.seeds)} seeds) {'; '.join(parts)}.{about}"
    )


def _shattering_sentence(found: Sequence[Shattering]) -> str:
    deep = max(s.layers for s in found)
    values = [lag_by_layers(found, kind, deep, 1) for kind in ("feedforward", "residual")]
    shallow = min(s.layers for s in found)
    start = lag_by_layers(found, "feedforward", shallow, 1)
    return (
        f"Along a line, neighbouring gradients of a {deep}-layer feedforward net correlate by "
        f"{values[0]:+.2f}, of a residual one by {values[1]:+.2f} ({shallow} layers: {start:+.2f})."
    )


def _trained_tables(nets: Sequence[Trained]) -> dict[str, Sequence[Row]]:
    layers: list[Row] = []
    units: list[Row] = []
    for net in nets:
        number = 0
        for block in net.blocks:
            for value in block.deviations:
                layers.append({"net": net.name, "layer": number, "block": block.block,
                               "deviation": value})  # fmt: skip
                number += 1
        by_number = {block.block: block for block in net.blocks}
        for at, gradient in enumerate(net.norms.gradient):
            own = by_number.get(at)
            units.append({"net": net.name, "block": at,
                          "ratio": own.ratio if own else None,
                          "keeps_shape": own.keeps_shape if own else None,
                          "activation": net.norms.activation[at], "gradient": gradient,
                          "weight_gradient": net.norms.weights[at]})  # fmt: skip
    return {"responses": layers, "blocks": units}


def _trained_sentences(nets: Sequence[Trained]) -> list[str]:
    known = [(len(s.blocks), s.name, median_ratio(s.blocks)) for s in nets]
    known = sorted(one for one in known if math.isfinite(one[2]))
    if not known:
        return ["The trained nets have no residual blocks whose change could be measured."]
    each = ", ".join(f"{value:.2f} in {name} ({count} blocks)" for count, name, value in known)
    text = f"The median block that keeps its shape adds |F(x)|/|x| = {each}."
    if len({count for count, _, _ in known}) > 1:
        first, last = known[0], known[-1]
        less = "less" if last[2] < first[2] else "no less"
        text += f" The deepest changes {less} per block than the shallowest."
    return [text]


def _notes(measured: Measured) -> list[str]:
    notes = []
    if measured.values:
        notes.append(
            f"'explodes' and 'vanishes' mean a factor beyond {LEVEL:g} between last and first "
            "block, with its 95% interval over seeds; per-block factors are within stages"
        )
        notes.append("nets at initialisation are measured in float64, BatchNorm on the batch")
    if measured.noise:
        notes.append("no --data: normal noise with random labels took the place of images")
    return notes
