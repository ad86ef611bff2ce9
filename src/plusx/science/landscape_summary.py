"""What the surfaces of ``landscape`` say: tables, arrays, one finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from plusx.science.landscape import Array, Grid, Surface, basin, width_interval
from plusx.science.result import Result, Row
from plusx.science.sharpness import Curvature

RISE = 1.0
"""Of the loss above the net's own, in nats, up to which a point counts as in the basin."""


@dataclass(frozen=True)
class Map:
    """Curvature on a coarse grid.

    Attributes:
        xs, ys: (X,) and (Y,).
        at: row by row.
    """

    xs: Array
    ys: Array
    at: Sequence[Sequence[Curvature]]

    @property
    def ratio(self) -> Array:
        """(Y, X): see ``Curvature.ratio``."""
        return np.array([[one.ratio for one in row] for row in self.at], np.float64)

    @property
    def centre(self) -> Curvature:
        """At the point nearest to the net."""
        return self.at[int(np.abs(self.ys).argmin())][int(np.abs(self.xs).argmin())]


def summary(
    surfaces: Sequence[Surface],
    *,
    grid: Grid,
    maps: Mapping[int, Map] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Result:
    """Tables and finding of surfaces over one grid.

    Args:
        surfaces: one a net.
        grid: which points.
        maps: curvature, by position in ``surfaces``.
        settings: what else was chosen.
    """
    maps = maps or {}
    points: list[Row] = []
    sharpness: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for at, one in enumerate(surfaces):
        points += _points(one)
        sharpness.append(_sharpness(one, maps.get(at)))
        arrays |= {f"xs_{at}": one.xs, f"ys_{at}": one.ys, f"loss_{at}": one.loss,
                   f"spread_{at}": one.spread, f"error_{at}": one.error}  # fmt: skip
        if one.path is not None:
            arrays[f"path_{at}"] = one.path.at
        if at in maps:
            arrays |= {f"ratio_{at}": maps[at].ratio, f"ratio_xs_{at}": maps[at].xs,
                       f"ratio_ys_{at}": maps[at].ys}  # fmt: skip
    subjects = [{**one.subject.settings(), **one.images.settings()} for one in surfaces]
    notes = [note for one in surfaces for note in one.subject.notes]
    return Result(
        study="landscape",
        finding=" ".join([*map(_sentence, sharpness, surfaces), *_order(sharpness)]),
        settings={"subjects": subjects, **asdict(grid), "rise": RISE, **(settings or {})},
        tables={"points": points, "sharpness": sharpness},
        arrays=arrays,
        notes=[
            *dict.fromkeys(notes),
            "BatchNorm runs on its statistics; norms and biases are not moved.",
            "The interval of a width is over images, along these directions; other directions "
            "(--seed) give other widths.",
        ],
    )


def _points(one: Surface) -> list[Row]:
    return [
        {"net": one.subject.name, "x": float(x), "y": float(y), "loss": float(one.loss[j, i]),
         "standard_error": float(one.spread[j, i]), "error": float(one.error[j, i])}
        for j, y in enumerate(one.ys)
        for i, x in enumerate(one.xs)
    ]  # fmt: skip


def _sharpness(one: Surface, found: Map | None) -> dict[str, Any]:
    width, at_least = basin(one, RISE)
    low, high = width_interval(one, RISE)
    middle = (int(np.abs(one.ys).argmin()), int(np.abs(one.xs).argmin()))
    finite = np.isfinite(one.loss)
    return {
        "net": one.subject.name,
        "loss": float(one.loss[middle]),
        "highest_loss": float(one.loss[finite].max()) if finite.any() else float("nan"),
        "not_finite": int((~finite).sum()),
        "points": int(finite.size),
        "basin": width,
        "basin_low": low,
        "basin_high": high,
        "basin_at_rim": at_least,
        "largest_eigenvalue": found.centre.largest[0] if found else None,
        "smallest_eigenvalue": found.centre.smallest if found else None,
        "negative_to_positive": found.centre.ratio if found else None,
        "negative_to_positive_highest": float(np.nanmax(found.ratio)) if found else None,
    }


def _sentence(row: Mapping[str, Any], one: Surface) -> str:
    kind = "radius" if len(one.ys) > 1 else "half width"
    said = (
        f"{row['net']} (loss {row['loss']:.2f} on {len(one.images):,} images): the loss stays "
        f"within {RISE:g} of that in a basin of {kind} {'at least ' * row['basin_at_rim']}"
        f"{row['basin']:.2f} (95% interval over images {row['basin_low']:.2f} to "
        f"{row['basin_high']:.2f}) and rises to {row['highest_loss']:.3g} on the grid"
    )
    if row["not_finite"]:
        said += f"; {row['not_finite']} of {row['points']} points are not finite"
    if row["largest_eigenvalue"] is not None:
        said += (
            f"; at the net the Hessian's largest eigenvalue is {row['largest_eigenvalue']:.3g}, "
            f"the most negative one {row['smallest_eigenvalue']:.3g}, and their ratio on the map "
            f"at most {row['negative_to_positive_highest']:.2f}"
        )
    if one.path is not None:
        first, second = one.path.explained
        said += (
            f"; {first + second:.0%} of the training path's variation lies in the plane "
            f"({first:.0%} and {second:.0%})"
        )
    return said + "."


def _order(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of two nets, whose basin is wider, where the intervals tell."""
    if len(rows) != 2:
        return []
    one, other = rows
    if one["basin_at_rim"] or other["basin_at_rim"]:
        return ["Where a basin reaches the rim, a larger --extent tells how wide it is."]
    wide, narrow = (one, other) if one["basin"] >= other["basin"] else (other, one)
    apart = wide["basin_low"] > narrow["basin_high"]
    verdict = "wider than" if apart else "as wide, to the intervals, as"
    return [f"The basin of {wide['net']} is {verdict} that of {narrow['net']}."]
