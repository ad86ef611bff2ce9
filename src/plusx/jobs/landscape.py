"""``plusx study landscape``: its rows, shared and kept, and what they say together."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.errors import DataError, UsageError
from plusx.jobs import wording
from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import landscape
from plusx.science.directions import Path as TrainingPath
from plusx.science.directions import random_direction
from plusx.science.landscape import Grid, Surface
from plusx.science.landscape_plane import Plane, prepared
from plusx.science.landscape_summary import Map, summary
from plusx.science.ledger import Key
from plusx.science.result import Result
from plusx.science.sharpness import Curvature, curvature_at
from plusx.science.subject import Asked, Images, Subject, identity, open_subject, opened, subset
from plusx.weights.artifact import find_artifact

LONGEST_S = 24 * 3600.0
"""A longer study is done on demand only."""


@dataclass(frozen=True)
class Plan:
    """What is asked of every net.

    Attributes:
        grid: which points.
        checkpoints: model folders of its training, in order; for one net alone.
        curvature: points a side of the map of curvature, 0 for none.
        curvature_images: it is taken over so many.
        force: also where it takes days.

    Raises:
        UsageError: a number below 0.
    """

    grid: Grid
    checkpoints: tuple[str, ...] = ()
    curvature: int = 0
    curvature_images: int = 128
    force: bool = False

    def __post_init__(self) -> None:
        if self.curvature < 0 or self.curvature_images < 1:
            raise UsageError(
                f"--curvature {self.curvature} must be at least 0, its images "
                f"{self.curvature_images} at least 1"
            )
        if self.curvature and not self.grid.plane:
            raise UsageError("--curvature makes a map of the plane; leave --line out")


def study_landscape(
    asked: Sequence[Asked],
    folder: Path,
    *,
    plan: Plan,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """The loss about every net; what is finished is kept below ``folder``.

    Raises:
        UsageError: it would take days, or the checkpoints do not make a path.
        DataError: images or checkpoints that cannot be used.
    """
    talk, crew = talk or Talk(), crew or Crew()
    seconds = estimate_landscape(asked, plan=plan, crew=crew)
    if seconds > LONGEST_S and not plan.force:
        raise UsageError(
            f"this would take about {wording.duration(seconds)}; take a smaller --grid or fewer "
            "--images, more --processes, or say --force"
        )
    surfaces, maps = [], {}
    for at, one in enumerate(asked):
        surface, found = _one(one, folder, plan=plan, crew=crew, talk=talk)
        surfaces.append(surface)
        if found is not None:
            maps[at] = found
    settings = {"curvature": plan.curvature, "curvature_images": plan.curvature_images,
                "checkpoints": list(plan.checkpoints)}  # fmt: skip
    return summary(surfaces, grid=plan.grid, maps=maps, settings=settings)


def estimate_landscape(asked: Sequence[Asked], *, plan: Plan, crew: Crew) -> float:
    """Seconds that the study takes, from a few images at two points of each grid; those of a map
    of curvature from 60 products with the Hessian at a point, each as long as 6 passes."""
    total = 0.0
    torch.set_num_threads(crew.threads_each())
    for one in asked:
        _, images, plane, path = _ready(one, plan)
        few, spent = subset(images, 250), 0.0
        ready = prepared(few.images, plane.dtype)
        for x in (0.0, 0.5):
            began = time.perf_counter()
            landscape.row(plane, few, ready, xs=np.array([x]), y=0.0)
            spent = time.perf_counter() - began
        xs, ys = landscape.axes(plan.grid, path)
        passes = len(xs) * len(ys) * len(images)
        passes += plan.curvature**2 * plan.curvature_images * 60 * 6
        total += spent / len(few) * passes / crew.processes
    return total


def checkpoints_in(sources: Sequence[str]) -> tuple[str, ...]:
    """Model folders as they are; of another folder, the model folders in it, by name.

    Raises:
        DataError: there is none.
    """
    found: list[str] = []
    for source in sources:
        if find_artifact(Path(source)) is not None:
            found.append(source)
            continue
        inside = sorted(Path(source).iterdir()) if Path(source).is_dir() else []
        models = [os.fspath(path) for path in inside if path.is_dir() and find_artifact(path)]
        if not models:
            raise DataError(
                f"{source}: no checkpoints there; give model folders kept during training, or the "
                "folder that holds them"
            )
        found += models
    return tuple(found)


@functools.lru_cache(maxsize=2)
def _ready(asked: Asked, plan: Plan) -> tuple[Subject, Images, Plane, TrainingPath | None]:
    """Everything that a row needs; a process makes it once."""
    subject, images = opened(asked)
    checkpoints = [open_subject(folder) for folder in plan.checkpoints]
    path = landscape.path_of(subject, checkpoints)
    return subject, images, landscape.plane_of(subject, plan.grid, path), path


@functools.lru_cache(maxsize=1)
def _pixels(asked: Asked, dtype: torch.dtype) -> torch.Tensor:
    return prepared(opened(asked)[1].images, dtype)


def _one(
    asked: Asked, folder: Path, *, plan: Plan, crew: Crew, talk: Talk
) -> tuple[Surface, Map | None]:
    subject, images, _, path = _ready(asked, plan)
    for note in subject.notes:
        talk.note(note)
    xs, ys = landscape.axes(plan.grid, path)
    checkpoints = [open_subject(one).sha256 for one in plan.checkpoints]
    study = {**identity(subject, images), "checkpoints": checkpoints}
    rows = Pieces(
        study={"study": "landscape", **asdict(plan.grid), **study},
        keys=[{"row": number} for number in range(len(ys))],
        costs=[len(xs)] * len(ys),
        label=partial(_row_label, subject.name),
        do=partial(_row, asked, plan),
    )
    found = work_off(rows, folder / "pieces", crew, talk)
    surface = landscape.surface(subject, images, found, grid=plan.grid, path=path)
    if not plan.curvature:
        return surface, None
    coarse = (_spread(xs, plan.curvature), _spread(ys, plan.curvature))
    points = [(x, y) for y in coarse[1].tolist() for x in coarse[0].tolist()]
    pieces = Pieces(
        study={"study": "curvature", "images": plan.curvature_images,
               "seed": plan.grid.seed, **study},
        keys=[{"x": x, "y": y} for x, y in points],
        costs=[1] * len(points),
        label=partial(_point_label, subject.name),
        do=partial(_point, asked, plan),
    )  # fmt: skip
    values = work_off(pieces, folder / "pieces", crew, talk)
    each = [Curvature(tuple(value[:-1]), value[-1]) for value in values]
    width = len(coarse[0])
    return surface, Map(*coarse, [each[at : at + width] for at in range(0, len(each), width)])


def _row(asked: Asked, plan: Plan, key: Key, tick: Callable[[int], None]) -> Any:
    _, images, plane, path = _ready(asked, plan)
    xs, ys = landscape.axes(plan.grid, path)
    ready, found = _pixels(asked, plane.dtype), []
    for x in xs:
        found += landscape.row(plane, images, ready, xs=np.array([x]), y=float(ys[key["row"]]))
        tick(1)
    return found


def _point(asked: Asked, plan: Plan, key: Key, tick: Callable[[int], None]) -> Any:
    subject, images, _, path = _ready(asked, plan)
    directions = path.directions if path is not None else tuple(
        random_direction(subject.model, 2 * plan.grid.seed + k) for k in (0, 1)
    )  # fmt: skip
    some = subset(images, plan.curvature_images)
    found = curvature_at(subject.model, directions, (key["x"], key["y"]), some)
    tick(1)
    return [*found.largest, found.smallest]


def _spread(axis: landscape.Array, points: int) -> landscape.Array:
    """Evenly over the axis; its middle where it is one point."""
    ends = (float(axis[0]), float(axis[-1]))
    found: landscape.Array = np.linspace(*ends, points) if points > 1 else np.zeros(1)
    return found


def _row_label(name: str, key: Key) -> str:
    return f"{name}, row {key['row'] + 1}"


def _point_label(name: str, key: Key) -> str:
    return f"{name}, curvature at {key['x']:.2f}, {key['y']:.2f}"
