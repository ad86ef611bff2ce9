"""What the measured fields and changed images say: tables and the finding of ``field``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from plusx.errors import UsageError
from plusx.evaluate.intervals import Z95, group_numbers
from plusx.science.field import Array, Looking, Place
from plusx.science.field_context import Change, Right, rows
from plusx.science.field_width import RESAMPLES, magnitude, resampled, widths
from plusx.science.result import Result, Row
from plusx.science.subject import Images, Subject, apart

NO_ANSWER = "its weights are random, so that shuffled tiles and hidden parts would say nothing"


@dataclass(frozen=True, eq=False)
class Looked:
    """What one net gave.

    Attributes:
        subject, images: of what.
        places: its maps.
        energies: ``trained`` or ``initialised`` -> map's name -> (N, H, W) squared gradients.
        changes: of the images, the first none; empty for random weights.
        right: of each change (N,) whether each image is answered rightly.
    """

    subject: Subject
    images: Images
    places: Sequence[Place]
    energies: Mapping[str, Mapping[str, Array]]
    changes: Sequence[Change] = ()
    right: Sequence[Right] = ()


def summary(found: Sequence[Looked], looking: Looking | None = None) -> Result:
    """Tables, maps and finding of one or several nets.

    Raises:
        UsageError: no gradient reaches the images.
    """
    looking = looking or Looking()
    subjects = apart([one.subject for one in found])
    found = [replace(one, subject=mine) for one, mine in zip(found, subjects, strict=True)]
    fields: list[Row] = []
    context: list[Row] = []
    arrays: dict[str, Array] = {}
    sentences, notes = [], []
    for at, one in enumerate(found):
        mine = _fields(one, looking.seed)
        fields += mine
        answered: list[Row] = []
        if one.changes:
            answered = rows(
                one.subject.name, one.changes, one.right,
                groups=group_numbers(one.images.groups), seed=looking.seed,
            )  # fmt: skip
        context += answered
        sentences += [_looks(mine), *([_needs(answered)] if answered else [])]
        notes += [*one.subject.notes, *([] if answered else [f"{one.subject.name}: {NO_ANSWER}"])]
        for kind, maps in one.energies.items():
            for place in one.places:
                arrays[f"{kind}_{at}_{place.name.replace(' ', '_')}"] = magnitude(maps[place.name])
    return Result(
        study="field",
        finding=" ".join(sentences),
        settings={
            "subjects": [{**one.subject.settings(), **one.images.settings()} for one in found],
            **asdict(looking), "resamples": RESAMPLES,
        },
        tables={"fields": fields, "context": context},
        arrays=arrays,
        notes=[
            *dict.fromkeys(notes),
            "The theoretical field may be larger than the image; the effective one is cut off "
            "where the image ends.",
        ],
    )  # fmt: skip


def _fields(one: Looked, seed: int) -> list[Row]:
    """A row a map, of the trained net and of fresh ones."""
    found: list[Row] = []
    for kind, maps in one.energies.items():
        for number, place in enumerate(one.places):
            energy = maps[place.name]
            energy = energy[energy.any(axis=(1, 2))]
            if not len(energy):
                raise UsageError(
                    f"{one.subject.name} ({kind}), {place.name}: its central unit is dead on all "
                    f"{len(maps[place.name])} images, no gradient reaches them; give more images"
                )
            found.append(_row(one.subject.name, kind, number, place, energy, seed=seed))
    return found


def _row(
    net: str, kind: str, number: int, place: Place, energy: Array, *, seed: int
) -> dict[str, object]:
    whole = widths(magnitude(energy)[None], place.centre)
    drawn = widths(resampled(energy, seed=seed), place.centre)
    size, sigma = float(whole.size[0]), float(whole.sigma[0])
    pixels = float(np.sqrt(np.prod(energy.shape[1:])))
    # An average of fewer different images is rougher, and its size smaller: the spread of drawn
    # ones is right, their middle is not.
    wide = Z95 * np.sqrt(len(energy) / max(1, len(energy) - 1))
    about, sigma_about = wide * float(drawn.size.std()), wide * float(drawn.sigma.std())
    return {
        "net": net, "weights": kind, "map": number, "place": place.name, "passes": len(energy),
        "image": round(pixels, 3), "theoretical": place.theoretical, "effective": round(size, 3),
        "effective_low": round(max(0.0, size - about), 3),
        "effective_high": round(min(pixels, size + about), 3),
        "share_of_theoretical": place.theoretical and round(size / place.theoretical, 6),
        "share_of_image": round(size / pixels, 6), "sigma": round(sigma, 4),
        "sigma_low": round(max(0.0, sigma - sigma_about), 4),
        "sigma_high": round(sigma + sigma_about, 4),
        "gaussian_fit": round(float(whole.fit[0]), 4), "half_side": float(whole.half[0]),
        "centre_row": place.centre[0], "centre_column": place.centre[1],
    }  # fmt: skip


def _looks(table: Sequence[Row]) -> str:
    """From the first map to the last, and what training changed."""
    kinds = list(dict.fromkeys(str(row["weights"]) for row in table))
    mine = [row for row in table if row["weights"] == kinds[0]]
    first, last = mine[0], mine[-1]
    if last["theoretical"] is None:
        theory = "could see the whole image"
    else:
        theory = f"could see {last['theoretical']} pixels a side"
    said = (
        f"{last['net']} ({kinds[0]}): a unit after {last['place']} {theory}, and sees "
        f"{_with_interval(last)} in effect, {last['share_of_image']:.0%} of the image"
    )
    if last["theoretical"] is not None and first is not last:
        said += (
            f" and {last['share_of_theoretical']:.0%} of the theoretical field (after "
            f"{first['place']} {first['share_of_theoretical']:.0%})"
        )
    if len(kinds) > 1:
        same = next(row for row in table
                    if row["weights"] == kinds[1] and row["map"] == last["map"])  # fmt: skip
        said += f"; in fresh nets it sees {_with_interval(same)}"
    said += (
        f". A Gaussian of sigma {_sigma(last)} pixels explains {last['gaussian_fit']:.0%} of that "
        "map's variance"
    )
    return f"{said}; in fresh nets {_sigma(same)}." if len(kinds) > 1 else f"{said}."


def _sigma(row: Row) -> str:
    return f"{row['sigma']:.1f} ({row['sigma_low']:.1f} to {row['sigma_high']:.1f})"


def _with_interval(row: Row) -> str:
    return (
        f"{row['effective']:.0f} (95% interval {row['effective_low']:.0f} to "
        f"{row['effective_high']:.0f})"
    )


def _needs(table: Sequence[Row]) -> str:
    """What shuffling, down to where nearly nothing is left, and hiding half cost."""
    whole = table[0]
    said = []
    for row in table:
        if row["change"] == "shuffled" and row["level"] > 1:
            said.append(f"{_cost(row)} with {row['level']} x {row['level']} tiles shuffled")
            if row["top1"] < 0.1 * whole["top1"]:
                break
    for kind, where in (("centre hidden", "in the middle"), ("rim hidden", "at the rim")):
        half = next(row for row in table if row["change"] == kind and row["level"] == 0.5)
        said.append(f"{_cost(half)} with half of the image hidden {where}")
    return (
        f"Its top-1 of {whole['top1']:.1%} on {whole['images']:,} images changes by "
        f"{', '.join(said)} (points, with 95% intervals)."
    )


def _cost(row: Row) -> str:
    return (
        f"{-100 * row['cost']:+.1f} ({-100 * row['cost_high']:+.1f} to "
        f"{-100 * row['cost_low']:+.1f})"
    )
