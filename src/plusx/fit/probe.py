"""The linear probe: a linear head on frozen features, its penalty chosen by cross-validation.

The head minimises ``sum of c_y * nll + penalty / 2 * |W|^2`` on features that are centred, divided
by the square root of their standard deviation and then by one number that makes the mean squared
row length 1, so that one grid of penalties serves every backbone. All of this is linear and
folded into `Head`, which acts on raw pooled features: the artifact stays an ordinary network.
Targets (n,) are one class each (softmax); targets (n, K) bool are any number of classes each, and
the head is one logistic regression a class, all at one penalty.

Measured with ImageNet ResNet-18 and -50 on ants/bees, chest X-rays and EuroSAT, 10, 30 and 100
images per class, mean top1 on the rest over these 18 cells. Scale, penalty of least NLL: none
91.8%, square root 92.0%, full standardisation 91.5% (3-6 draws). Choice of the penalty: least
NLL 92.08%, best top1 92.06%, one standard error 92.17%, and that with the lowest NLL after
temperature scaling of the three, .222 against .225 (3-12 draws). Differences are about as large
as their noise. The mirrored images as further rows, at twice the feature pass: up to 1 point on
EuroSAT (satellite tiles), nothing sure elsewhere; not done.

Sizes: up to `CHOOSE_IMAGES` images choose the penalty (a sample with every class in proportion;
5 folds up to `FOLD_IMAGES`, above that one fifth held out once); the head is fitted on all
images, read in blocks of float32 when they are many; only where images times classes exceed
`FIT_LOGITS` are they a sample too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plusx.errors import UsageError
from plusx.evaluate.intervals import Figure, design_effects, proportion
from plusx.evaluate.multilabel import mean_average_precision
from plusx.fit.rows import check, costs, deal_folds, masked, sample
from plusx.fit.softmax import (
    BLOCK_ROWS,
    IN_MEMORY,
    Design,
    Floats,
    Ints,
    Marks,
    Problem,
    one_thread_if_small,
)

GRID = (10.0, 10**0.5, 1.0, 10**-0.5, 0.1, 10**-1.5, 0.01, 10**-2.5, 0.001)  # strong to weak
CHOOSE_IMAGES = 5_000
FOLD_IMAGES = 2_000
FIT_LOGITS = 2**27


@dataclass(frozen=True)
class Head:
    """A linear layer on raw pooled features."""

    weight: NDArray[np.float32]  # (K, d)
    bias: NDArray[np.float32]  # (K,)

    def logits(self, features: Floats) -> NDArray[np.float32]:
        """Features (n, d) to logits (n, K), a block of rows at a time."""
        logits = np.empty((len(features), len(self.bias)), np.float32)
        for first in range(0, len(features), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            logits[rows] = features[rows].astype(np.float32) @ self.weight.T + self.bias
        return logits


@dataclass(frozen=True)
class Probe:
    """A fitted head and how its penalty was chosen; one figure per penalty of the grid.

    ``cv_nll`` chose, so neither it nor ``cv_right`` (the share of right answers: top1, or of all
    classes of all images) is a figure to report: `cross_validate` is.
    """

    head: Head
    penalty: float
    grid: tuple[float, ...]
    cv_right: tuple[float, ...]
    cv_nll: tuple[float, ...]
    images_choosing: int
    images_fitted: int


@dataclass(frozen=True)
class RepeatedCV:
    """Every image predicted once per repeat by a head that never saw it."""

    logits: NDArray[np.float32]  # (R, n, K), out of fold
    folds: Ints  # (R, n), the fold an image was held out in
    penalties: Floats  # (R, folds), each chosen without that fold's images
    # top1 or mean average precision, mean over repeats; the interval is that of n images, not
    # n * R: repeats add no images
    figure: Figure
    by_repeat: tuple[float, ...]
    spread: float  # standard deviation over repeats: the luck of the folds alone


def fit_probe(
    features: Floats,
    targets: Marks,
    *,
    classes: int,
    seed: int = 0,
    groups: Sequence[object] | None = None,
    class_weights: Floats | None = None,
) -> Probe:
    """Fit a head on features (n, d), targets (n,) in 0..classes-1 or (n, classes) bool.

    The penalty is the strongest whose mean out-of-fold NLL is within one standard error of the
    least, over 5 folds that keep ``groups`` whole. ``class_weights`` (K,) multiply each image's
    loss (of targets (n, K): the loss of each class's images), in choosing too. The logits are
    somewhat underconfident: fit a temperature.

    Raises:
        UsageError: shapes or values that cannot work.
    """
    groups_of = check(features, targets, classes, groups, class_weights)
    random = np.random.default_rng(seed)
    few = sample(targets, CHOOSE_IMAGES, random)
    dealt = deal_folds(targets[few], groups_of[few], 5, random)
    used = np.unique(dealt)[: 5 if len(few) <= FOLD_IMAGES else 1]
    held = dealt[:, None] == used
    with one_thread_if_small(features.size):
        rows = Design.of(features, few)
        cost = costs(targets[few], class_weights)
        penalty, nll, right = _choose(rows, targets[few], classes, cost, held)
        kept = sample(targets, max(FIT_LOGITS // classes, len(few)), random)
        if len(few) < len(targets):
            rows = Design.of(features, kept)
        cost = costs(targets[kept], class_weights)
        problem = Problem(rows, targets[kept], classes, cost[:, :, None])
        weight = problem.solve(penalty, tolerance=1e-5 if rows.turn is None else 1e-4)[:, :, 0]
    head = Head(*rows.unturned(weight, centred=targets.ndim == 1))
    return Probe(head, penalty, GRID, right, nll, len(few), len(kept))


def _choose(
    rows: Design, targets: Marks, classes: int, cost: Floats, held: NDArray[np.bool_]
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """The penalty chosen on the held-out images (n, folds); weighted mean NLL and share of right
    answers of each."""
    problem = Problem(rows, targets, classes, masked(cost, ~held))
    losses, shares, start = [], [], None
    for penalty in GRID:
        start = problem.solve(penalty, start=start, tolerance=1e-3)
        loss, right = problem.score(start, cost)
        losses.append(loss[held])
        shares.append(float(right[held].mean()))
    total, squares = np.sum(losses, 1), np.sum(np.square(losses), 1)
    nll = total / (cost.sum(1)[:, None] * held).sum()
    best = int(_strongest(total, squares, np.asarray(held.sum())))
    return GRID[best], tuple(float(value) for value in nll), tuple(shares)


def _strongest(total: Floats, squares: Floats, count: Ints) -> NDArray[np.intp]:
    """Index of the first (strongest) penalty whose summed loss is within one standard error.

    ``total`` and ``squares`` (penalties, ...) sum the losses of ``count`` (...) images and their
    squares. The rule is Breiman et al. 1984, Classification and Regression Trees, 3.4.3.
    """
    least = total.argmin(0)[None]
    low = np.take_along_axis(total, least, 0)
    variance = np.take_along_axis(squares, least, 0) - low**2 / count
    return np.asarray((total <= low + np.sqrt(np.maximum(variance, 0))).argmax(0))


def cross_validate(
    features: Floats,
    targets: Marks,
    *,
    classes: int,
    repeats: int = 10,
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[object] | None = None,
    class_weights: Floats | None = None,
) -> RepeatedCV:
    """Repeated stratified k-fold of the whole procedure, choice of the penalty included (nested).

    For outer fold f the penalty is chosen on each other fold g by a head trained without f and g;
    that one head also serves outer fold g for choosing on f, so nesting costs twice a plain
    cross-validation, not five times. Neither labels nor predictions of f's images touch f's
    penalty or head. What all folds share is unlabelled: the scale of each feature (with a scale
    for each fold, 396 ants and bees gave 95.81 / 96.69% instead of 95.71 / 96.74%).

    Raises:
        UsageError: shapes or values that cannot work, fewer than 3 folds, fewer groups than folds.
    """
    groups_of = check(features, targets, classes, groups, class_weights)
    if folds < 3 or repeats < 1:
        raise UsageError(f"folds={folds}, repeats={repeats}: needs at least 3 folds and 1 repeat")
    units = len(np.unique(groups_of))
    if units < folds:
        what = "images" if groups is None else "groups"
        raise UsageError(f"folds={folds} is more than the {units} {what}; use fewer folds")
    problems = repeats * folds * (folds - 1) // 2
    if len(targets) * classes * problems > FIT_LOGITS // 4 or features.size > IN_MEMORY:
        raise UsageError(f"{repeats} repeats of {folds} folds of {features.shape} features and "
                         f"{classes} classes take too much memory; use fewer repeats or a "
                         "validation split")  # fmt: skip
    random = np.random.default_rng(seed)
    fold = np.stack([deal_folds(targets, groups_of, folds, random) for _ in range(repeats)])
    cost = costs(targets, class_weights)
    with one_thread_if_small(features.size):
        rows = Design.of(features, np.arange(len(targets)))
        choice = _nested_choice(rows, targets, classes, cost, fold, folds)
        logits = _out_of_fold(rows, targets, classes, cost, fold, choice)
    judge = _top1 if targets.ndim == 1 else _mean_average_precision
    figure, values = judge(logits, targets, groups_of)
    spread = float(np.std(values, ddof=1)) if repeats > 1 else 0.0
    return RepeatedCV(logits, fold, np.array(GRID)[choice], figure, values, spread)


def _out_of_fold(
    rows: Design, targets: Marks, classes: int, cost: Floats, fold: Ints, choice: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(R, n, K): each image's logits by the head of its fold, at that fold's penalty."""
    logits = np.zeros((len(fold), len(targets), classes), np.float32)
    for index in np.unique(choice):
        which = np.argwhere(choice == index)
        held = np.stack([fold[r] == f for r, f in which], 1)
        problem = Problem(rows, targets, classes, masked(cost, ~held))
        out = problem.logits(problem.solve(GRID[index], tolerance=1e-4)).numpy()
        for column, (r, _) in enumerate(which):
            logits[r, held[:, column]] = out[held[:, column], :, column]
    return logits


def _top1(
    logits: NDArray[np.float32], targets: Marks, groups: Ints
) -> tuple[Figure, tuple[float, ...]]:
    """Mean over repeats, and of each; images of one group are not independent."""
    right = (logits.argmax(2) == targets).astype(np.float64)
    share = right.mean(0)
    value = float(share.mean())
    effect = design_effects((share - value).astype(np.float64), np.zeros_like(groups), 1, groups)
    figure = proportion(value, len(share) / float(effect[0]))
    return figure, tuple(float(one) for one in right.mean(1))


def _mean_average_precision(
    logits: NDArray[np.float32], targets: Marks, groups: Ints
) -> tuple[Figure, tuple[float, ...]]:
    """Mean over repeats, with the mean of their limits, and of each."""
    marks = targets.astype(np.bool_)
    found = [mean_average_precision(marks, one, groups) for one in logits]
    low, high = (float(np.mean([getattr(one, k) for one in found])) for k in ("low", "high"))
    values = tuple(one.value for one in found)
    return Figure(float(np.mean(values)), low, high), values


def _nested_choice(
    rows: Design, targets: Marks, classes: int, cost: Floats, fold: Ints, folds: int
) -> NDArray[np.intp]:
    """(R, folds): index into GRID of the penalty chosen for each outer fold without its images."""
    pairs = [(r, f, g) for r in range(len(fold)) for f in range(folds) for g in range(f)]
    held_f = np.stack([fold[r] == f for r, f, _ in pairs], 1)
    held_g = np.stack([fold[r] == g for r, _, g in pairs], 1)
    problem = Problem(rows, targets, classes, masked(cost, ~(held_f | held_g)))
    total = np.zeros((2, len(GRID), len(fold), folds))
    start = None
    for index, penalty in enumerate(GRID):
        start = problem.solve(penalty, start=start, tolerance=1e-3)
        loss = problem.score(start, cost)[0]
        for power, values in enumerate((loss, loss**2)):
            on_f, on_g = (values * held_f).sum(0), (values * held_g).sum(0)
            for column, (r, f, g) in enumerate(pairs):
                total[power, index, r, f] += on_g[column]
                total[power, index, r, g] += on_f[column]
    count = np.stack([(fold != f).sum(1) for f in range(folds)], 1)
    return _strongest(total[0], total[1], count)
