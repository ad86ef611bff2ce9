"""How alike two pictures are: the correlation of their fine structure, crops and mirrors tried.

A thumbnail's band-passed levels are compared: what varies within 2 to 8 of its 32 pixels. Coarser
structure is what pictures of one kind have in common (every chest X-ray is light in the middle);
finer structure does not survive resizing and compression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plusx.data.facts import THUMB

Floats = npt.NDArray[np.float32]

LEAST = 0.955
"""Correlation from which two pictures are the same. Set on ImageNet photographs (imagenet_val10),
street photographs (penn_fudan), 64x64 tiles of aerial pictures (levir_cd_samples) and tiles of
lowered contrast; checked on others by benchmarks/duplicates.py."""

NOISE = 0.33
"""Levels of noise that recompression leaves in the band; it lowers what faint copies can reach."""

FLOOR = 0.45
"""Below it nothing is a copy, however faint."""

SPREAD = 3.0
"""A copy has at most so many times less structure than its original."""

FAINT = 0.03
"""Structure, in grey levels, below which a thumbnail says nothing."""

_FINE, _COARSE = 0.8, 2.0
_RIM = 1
_CROP = 0.05
_SHORT = (THUMB - 2 * _RIM) // 2
DIMENSIONS = _SHORT * _SHORT
"""Length of the short description by which candidates are found."""


def _blur(sigma: float) -> Floats:
    """(32, 32) matrix: Gaussian blur along one axis, the edge repeated."""
    reach = 4 * int(np.ceil(sigma)) + 4
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((THUMB, THUMB))
    for row in range(THUMB):
        columns = np.clip(row + np.arange(-reach, reach + 1), 0, THUMB - 1)
        np.add.at(matrix[row], columns, weights / weights.sum())
    return matrix.astype(np.float32)


def _inner() -> Floats:
    """(32, 32) matrix: what the thumbnail of the image without its outer 5% would hold, linear."""
    at = (np.arange(THUMB) + 0.5) * (1 - 2 * _CROP) + _CROP * THUMB - 0.5
    below = np.floor(at).astype(np.int64)
    matrix = np.zeros((THUMB, THUMB))
    matrix[np.arange(THUMB), below] = 1 - (at - below)
    matrix[np.arange(THUMB), below + 1] = at - below
    return matrix.astype(np.float32)


_INNER = _inner()
_BANDS = (_blur(_FINE), _blur(_COARSE))
_INNER_BANDS = tuple(band @ _INNER for band in _BANDS)


@dataclass(frozen=True)
class Structure:
    """Band-passed thumbnails of n images, (n, 30, 30), mean 0 and length 1 each.

    Attributes:
        whole: of the image.
        inner: of the image without its outer 5%.
        level: (n,) standard deviation of the whole in grey levels.
    """

    whole: Floats
    inner: Floats
    level: Floats


def structure(thumbs: npt.NDArray[np.uint8], gain: Floats) -> Structure:
    """(n, 32, 32) thumbnails and their (n,) gains -> what is compared."""
    levels = np.asarray(thumbs, dtype=np.float32) - 128
    whole, level = _unit(_band(levels, _BANDS))
    inner, _ = _unit(_band(levels, _INNER_BANDS))
    return Structure(whole, inner, (level / np.maximum(gain, 1e-6)).astype(np.float32))


def least(level: Floats, asymptote: float = LEAST) -> Floats:
    """The correlation that a copy of an image with this much structure has to reach.

    Of levels with standard deviation s and independent noise n, copies correlate by
    1 / (1 + n^2 / s^2) at least.
    """
    bound = asymptote / (1 + (NOISE / np.maximum(level, 1e-3)) ** 2)
    found: Floats = np.maximum(bound, min(FLOOR, asymptote)).astype(np.float32)
    return found


def correlation(a: Structure, b: Structure) -> Floats:
    """(n,) the largest correlation of row i of ``a`` with row i of ``b``: whole with whole or
    inner with whole either way, plain or mirrored."""
    best = np.full(len(a.whole), -1, dtype=np.float32)
    for one, other in ((a.whole, b.whole), (a.whole, b.inner), (a.inner, b.whole)):
        for view in (other, other[:, :, ::-1]):
            np.maximum(best, np.einsum("nij,nij->n", one, view), out=best)
    return best


def short(pictures: Floats) -> Floats:
    """(n, 30, 30) -> (n, 15, 15), each of length 1."""
    rows = pictures[:, ::2] + pictures[:, 1::2]
    return _unit(rows[:, :, ::2] + rows[:, :, 1::2], rim=0)[0]


def _band(levels: Floats, bands: tuple[Floats, ...]) -> Floats:
    fine, coarse = bands
    found: Floats = fine @ levels @ fine.T - coarse @ levels @ coarse.T
    return found


def _unit(pictures: Floats, rim: int = _RIM) -> tuple[Floats, Floats]:
    """Rim cut, mean taken out, length made 1; and the standard deviations."""
    side = pictures.shape[1] - rim
    inside = pictures[:, rim:side, rim:side]
    inside = inside - inside.mean((1, 2), keepdims=True)
    length = np.sqrt(np.einsum("nij,nij->n", inside, inside))
    unit: Floats = inside / np.maximum(length, 1e-6)[:, None, None]
    return unit, length / np.float32(inside.shape[1])
