"""The loss about a trained net, on a line or a plane of its weights.

Li, Xu, Taylor, Studer & Goldstein 2018 (arXiv 1712.09913): random directions scaled filter by
filter, norms and biases left out, 51 x 51 points over [-1, 1]; the training path on its two main
directions. BatchNorm runs on its statistics (evaluation mode), as in the paper's code; in training
mode a step along a filter would be undone by the norm behind it.

Departure from the paper: the loss is over labelled images that the user names, test images by
default, where the paper takes all training images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from plusx.errors import UsageError
from plusx.runtime import fast_dtype
from plusx.science.directions import Path, moving, path_directions, random_direction
from plusx.science.landscape_plane import Plane, prepared
from plusx.science.subject import Images, Subject

Array = npt.NDArray[np.float64]
MARGIN = 0.2
"""Of a path's extent, left free on each side."""
FINE = 200
"""A basin's width is read off so many steps along each axis, or a few more."""
_FAR = 1e30


@dataclass(frozen=True)
class Grid:
    """Which points.

    Attributes:
        points: along each axis; 51 in the paper.
        extent: they reach from ``-extent`` to ``extent``; about a path, it is the path's instead.
        plane: two directions; False for one.
        seed: of the random directions.

    Raises:
        UsageError: fewer than 3 points, or no extent.
    """

    points: int = 51
    extent: float = 1.0
    plane: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.points < 3:
            raise UsageError(f"--grid {self.points} must be at least 3")
        if not (math.isfinite(self.extent) and self.extent > 0):
            raise UsageError(f"--extent {self.extent} must be above 0")

    @property
    def centre(self) -> Array:
        """The points along an axis, the middle one exactly 0 where their number is odd."""
        half = (self.points - 1) / 2
        steps = np.arange(self.points, dtype=np.float64) - half
        found: Array = (steps / half * self.extent).astype(np.float64)
        return found


@dataclass(frozen=True, eq=False)
class Surface:
    """The loss of one net on a grid; what is not finite is kept as it is.

    Attributes:
        subject, images: of what.
        xs, ys: (X,) and (Y,); ``ys`` is ``[0]`` on a line.
        loss: (Y, X) mean cross-entropy.
        spread: (Y, X) its standard error over the images.
        error: (Y, X) share of wrong answers.
        path: the checkpoints, where the plane is that of a training path.
    """

    subject: Subject
    images: Images
    xs: Array
    ys: Array
    loss: Array
    spread: Array
    error: Array
    path: Path | None = None


def axes(grid: Grid, path: Path | None) -> tuple[Array, Array]:
    """The points along x and along y."""
    if path is None:
        return grid.centre, grid.centre if grid.plane else np.zeros(1)
    found = []
    for along in path.at.T:
        low, high = along.min(), along.max()
        margin = MARGIN * (high - low)
        found.append(np.linspace(low - margin, high + margin, grid.points))
    return found[0], found[1]


def landscape(
    subject: Subject,
    images: Images,
    *,
    grid: Grid | None = None,
    checkpoints: Sequence[Subject] = (),
) -> Surface:
    """The loss on a grid about one net, row by row.

    Args:
        subject: its net stays as it is.
        images: labelled.
        grid: which points.
        checkpoints: of its training, in order; the plane is then that of the path, which is taken
            to end in ``subject`` where the last one does not.

    Raises:
        UsageError: too few checkpoints.
    """
    grid = grid or Grid()
    path = path_of(subject, checkpoints)
    plane = plane_of(subject, grid, path)
    xs, ys = axes(grid, path)
    ready = prepared(images.images, plane.dtype)
    rows = [row(plane, images, ready, xs=xs, y=float(y)) for y in ys]
    return surface(subject, images, rows, grid=grid, path=path)


def path_of(subject: Subject, checkpoints: Sequence[Subject]) -> Path | None:
    """The path through the checkpoints to the net itself; None without checkpoints."""
    if not checkpoints:
        return None
    states = [moving(one.model) for one in checkpoints]
    end = moving(subject.model)
    shapes = {name: weight.shape for name, weight in end.items()}
    for one, state in zip(checkpoints, states, strict=True):
        if {name: weight.shape for name, weight in state.items()} != shapes:
            raise UsageError(
                f"{one.origin}: is {one.name}, no checkpoint of {subject.name}; give those of its "
                "own training"
            )
    same = states[-1].keys() == end.keys() and all(
        torch.equal(states[-1][name], end[name]) for name in end
    )
    return path_directions(states if same else [*states, end])


def plane_of(subject: Subject, grid: Grid, path: Path | None) -> Plane:
    """The net, ready to be moved."""
    dtype = fast_dtype(torch.device("cpu"))
    if path is not None:
        return Plane(subject.model, path.directions, dtype=dtype)
    seeds = range(2 * grid.seed, 2 * grid.seed + (2 if grid.plane else 1))
    directions = [random_direction(subject.model, seed) for seed in seeds]
    return Plane(subject.model, directions, dtype=dtype)


def row(
    plane: Plane, images: Images, ready: torch.Tensor, *, xs: Array, y: float
) -> list[list[float]]:
    """[loss, its standard error, error] of each point of one row."""
    found = []
    for x in xs.tolist():
        each = plane.loss((x, y), ready, images.targets).double()
        se = each[:, 0].std() / math.sqrt(len(each)) if len(each) > 1 else torch.tensor(math.nan)
        found.append([float(each[:, 0].mean()), float(se), float(each[:, 1].mean())])
    return found


def surface(
    subject: Subject,
    images: Images,
    rows: Sequence[Sequence[Sequence[float]]],
    *,
    grid: Grid,
    path: Path | None,
) -> Surface:
    """The rows together."""
    xs, ys = axes(grid, path)
    loss, spread, error = np.moveaxis(np.array(rows, np.float64), -1, 0)
    return Surface(subject, images, xs, ys, loss, spread, error, path)


def basin(surface: Surface, rise: float = 1.0) -> tuple[float, bool]:
    """The width of the basin about the net: as far as the loss is at most ``rise`` above its own.

    On a plane the radius of the disc as large as the basin, on a line half its length; the basin
    is what hangs together around the centre. In units of the net's own filters.

    Returns:
        The width, and whether the basin reaches the rim of the grid, so that it is at least that.
    """
    inside, step = _inside(surface, rise)
    edge = inside[:, [0, -1]].any() or (len(surface.ys) > 1 and inside[[0, -1]].any())
    if len(surface.ys) == 1:
        return (int(inside.sum()) - 1) * step / 2, bool(edge)
    return math.sqrt(int(inside.sum()) * step**2 / math.pi), bool(edge)


def _inside(surface: Surface, rise: float) -> tuple[npt.NDArray[np.bool_], float]:
    """What belongs to the basin, on points between those of the grid, and how far these are
    apart; the loss between points is linear."""
    from scipy.ndimage import label

    rows = surface.loss if len(surface.ys) > 1 else surface.loss[:1]
    middle = (int(np.abs(surface.ys).argmin()), int(np.abs(surface.xs).argmin()))
    finer = -(-FINE // (len(surface.xs) - 1))
    below = np.nan_to_num(rows, nan=_FAR, posinf=_FAR) - rows[middle] - rise
    for axis in (0, 1):
        n = below.shape[axis]
        if n > 1:
            at = np.linspace(0, n - 1, (n - 1) * finer + 1)
            left = np.minimum(at.astype(np.int64), n - 2)
            share = np.expand_dims(at - left, 1 - axis)
            below = below.take(left, axis) * (1 - share) + below.take(left + 1, axis) * share
    regions, _ = label(below <= 0)
    here = (middle[0] * finer, middle[1] * finer)
    inside: npt.NDArray[np.bool_] = (regions == regions[here]) & (below <= 0)
    return inside, float(surface.xs[1] - surface.xs[0]) / finer


def width_interval(surface: Surface, rise: float = 1.0) -> tuple[float, float]:
    """95% interval of the basin's width over images: the width where all losses are 1.96 of their
    standard errors higher or lower, together, since all points are scored on the same images."""
    widths = [
        basin(_with(surface, surface.loss + shift * np.nan_to_num(surface.spread)), rise)[0]
        for shift in (-1.96, 0.0, 1.96)
    ]
    return min(widths), max(widths)


def _with(surface: Surface, loss: Array) -> Surface:
    return Surface(surface.subject, surface.images, surface.xs, surface.ys, loss,
                   surface.spread, surface.error, surface.path)  # fmt: skip
