"""``plusx study field``: its pieces, and what they say together."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import field, field_context
from plusx.science.field import Array, Looking
from plusx.science.field_context import Change
from plusx.science.field_summary import NO_ANSWER, Looked, summary
from plusx.science.ledger import Key
from plusx.science.result import Result
from plusx.science.subject import Asked, identity, opened

_BACKWARDS = 4
"""A pass in float32 and back costs about as much as so many forwards in the fastest precision."""


def study_field(
    asked: Sequence[Asked],
    folder: Path,
    *,
    looking: Looking,
    grids: Sequence[int] | None = None,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Measure every net's field, and what it needs of the image; what is finished is kept below
    ``folder``.

    Args:
        asked: nets and images.
        folder: of the study.
        looking: how fields are measured.
        grids: tiles a side; see ``plusx.science.field_context.changes``.
        crew: who works.
        talk: what is said meanwhile.

    Raises:
        UsageError: a net that gives no maps, or tiles that do not fit.
        DataError: images that cannot be used.
    """
    talk, crew = talk or Talk(), crew or Crew()
    found = []
    for one in asked:
        if one.what == "none":
            one = replace(one, match=False)  # nobody asks random weights for an answer
        found.append(_looked(one, folder, looking=looking, grids=grids, crew=crew, talk=talk))
    return summary(found, looking)


def _looked(
    one: Asked,
    folder: Path,
    *,
    looking: Looking,
    grids: Sequence[int] | None,
    crew: Crew,
    talk: Talk,
) -> Looked:
    subject, images = opened(one)
    for note in subject.notes:
        talk.note(note)
    height, width = images.images.shape[2:]
    places = field.places_of(subject.model, (height, width))
    given = field_context.changes((height, width), grids)
    if subject.origin == "random":
        talk.note(f"{subject.name}: {NO_ANSWER}")
        given = []
    kinds = field.kinds(subject, looking)
    keys: list[Key] = [
        {"kind": kind, "number": number, "images": looking.images, "draws": looking.draws}
        for kind, number in kinds
    ]
    keys += [{"change": change.kind, "level": change.level} for change in given]
    n = min(looking.images, len(images))
    costs = [n * (1 + looking.draws * len(places)) * _BACKWARDS] * len(kinds)
    pieces = Pieces(
        study={"study": "field", "seed": looking.seed, **identity(subject, images)},
        keys=keys,
        costs=costs + [len(images)] * len(given),
        label=partial(_label, subject.name),
        do=partial(_do, one, looking),
    )
    values = work_off(pieces, folder / "pieces", crew, talk)
    energies = field.gathered(
        [(kind, _unpacked(value)) for (kind, _), value in zip(kinds, values, strict=False)]
    )
    bits = [np.frombuffer(base64.b64decode(text), np.uint8) for text in values[len(kinds) :]]
    right = [np.unpackbits(one)[: len(images)].astype(np.bool_) for one in bits]
    return Looked(subject, images, places, energies, given, right)


def _do(asked: Asked, looking: Looking, key: Key, tick: Callable[[int], None]) -> Any:
    subject, images = opened(asked)
    if "change" in key:
        change = Change(str(key["change"]), key["level"])
        right = field_context.answers(subject, images, change, seed=looking.seed, tick=tick)
        return base64.b64encode(np.packbits(right).tobytes()).decode()
    kind, number = str(key["kind"]), int(key["number"])
    height, width = images.images.shape[2:]
    each = (1 + looking.draws * len(field.places_of(subject.model, (height, width)))) * _BACKWARDS

    def done(n: int) -> None:
        tick(n * each)

    return _packed(
        field.piece(subject, images, kind=kind, number=number, looking=looking, tick=done)
    )


def _packed(maps: Mapping[str, Array]) -> dict[str, Any]:
    """As text: half precision of the square roots, whose range it has."""
    return {
        name: [*energy.shape, base64.b64encode(
            zlib.compress(np.sqrt(energy).astype(np.float16).tobytes())).decode()]
        for name, energy in maps.items()
    }  # fmt: skip


def _unpacked(value: Mapping[str, Any]) -> dict[str, Array]:
    found = {}
    for name, (*shape, text) in value.items():
        roots = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.float16)
        found[name] = roots.reshape(shape).astype(np.float32) ** 2
    return found


def _label(name: str, key: Key) -> str:
    if "change" in key:
        return f"{name}, {Change(str(key['change']), key['level'])}"
    return f"{name}, field {key['kind']}" + (f" {key['number']}" if key["number"] else "")
