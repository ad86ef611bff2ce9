"""Many L2-penalised regressions (softmax or logistic) on the same features, solved together.

Only inner products matter to such a regression, so features (n, d) are first rotated, exactly,
into min(n, d) orthogonal axes; there the curvature bound of Böhning (1992, Ann. Inst. Statist.
Math. 44) is diagonal. It preconditions a conjugate gradient whose products serve all problems
(folds) at once. Few features are held in float64; many are read in blocks in float32, so that
a float16 memory map is never loaded whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plusx.errors import UsageError
from plusx.fit.link import Link, Logistic, Softmax

BIAS_PENALTY = 0.01  # next to nothing, but a class absent from a fold keeps a finite bias
IN_MEMORY = 2**25  # features held as float64 (256 MiB); more are read in blocks of float32
BLOCK_ROWS = 8_192
ONE_THREAD = 2**21  # features up to which one thread is used

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Marks = NDArray[np.int64] | NDArray[np.bool_]
"""Targets: (n,) class numbers, or (n, K) which classes each image has."""


@contextmanager
def one_thread_if_small(numbers: int) -> Iterator[None]:
    """Keep torch to one thread for few numbers (n * d).

    Waking other threads thousands of times costs more than they bring, ten times more on a busy
    machine; and the result is then the same, bit for bit, whatever the number of threads.
    """
    threads = torch.get_num_threads()
    if numbers <= ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Design:
    """Scaled features on orthogonal axes, plus a bias column: the design matrix (n, q).

    In memory ``values`` is that matrix and ``turn`` None; else ``values`` are the raw features,
    read in blocks, and ``turn`` (d, q - 1) takes centred raw features to the axes.
    """

    values: Tensor | Floats
    index: Ints
    mean: Tensor  # (d,)
    back: Tensor  # (d, q - 1): coefficients on the axes to weights of centred raw features
    curvature: Tensor  # (q,): the diagonal of design.T @ design
    turn: Tensor | None
    dtype: torch.dtype

    @staticmethod
    def of(features: Floats, index: Ints) -> Design:
        """Scale and rotate the rows of ``features`` named by ``index`` (sorted).

        Raises:
            UsageError: a feature is not finite.
        """
        count, width = len(index), features.shape[1]
        total, squares = torch.zeros(width).double(), torch.zeros(width).double()
        shift = torch.from_numpy(features[int(index[0])].astype(np.float64))
        for _, block in _blocks(features, index):
            block = block.double() - shift
            total += block.sum(0)
            squares += block.square().sum(0)
        if not bool(torch.isfinite(squares).all()):
            raise UsageError("features hold values that are not finite; compute them in float32")
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        mean = mean + shift
        floor = 0.01 * deviation.mean() or torch.tensor(1.0).double()
        scale = deviation.clamp(min=float(floor)).sqrt()
        scale = scale * ((deviation / scale).square().sum().sqrt() or 1.0)
        if count * width > IN_MEMORY:
            return Design._streamed(features, index, mean, scale)
        values = (torch.from_numpy(features[index].astype(np.float64)) - mean) / scale
        wide = count <= width
        lengths, axes = torch.linalg.eigh(values @ values.T if wide else values.T @ values)
        kept = lengths > 1e-12 * lengths[-1].clamp(min=1e-300)
        lengths, axes = lengths[kept], axes[:, kept]
        basis = values.T @ (axes / lengths.sqrt()) if wide else axes
        design = torch.cat([values @ basis, torch.ones(count, 1).double()], 1)
        curvature = torch.cat([lengths, torch.tensor([float(count)]).double()])
        return Design(design, index, mean, basis / scale[:, None], curvature, None, torch.float64)

    @staticmethod
    def _streamed(features: Floats, index: Ints, mean: Tensor, scale: Tensor) -> Design:
        some = index[:: max(1, len(index) // 20_000)]  # axes only precondition: a sample will do
        gram = torch.zeros(len(scale), len(scale)).double()
        for _, block in _blocks(features, some):
            block = (block - mean.float()) / scale.float()
            gram += (block.T @ block).double()
        lengths, axes = torch.linalg.eigh(gram * (len(index) / len(some)))
        lengths = lengths.clamp(min=1e-9 * float(lengths[-1]))
        curvature = torch.cat([lengths, torch.tensor([float(len(index))]).double()])
        turn = axes / scale[:, None]
        return Design(features, index, mean, turn, curvature, turn.float(), torch.float32)

    def times(self, coefficients: Tensor) -> Tensor:
        """Design (n, q) @ coefficients (q, c)."""
        if isinstance(self.values, Tensor):
            return self.values @ coefficients
        assert self.turn is not None
        weight, bias = self.turn @ coefficients[:-1].float(), coefficients[-1].float()
        out = torch.empty(len(self.index), coefficients.shape[1])
        for place, block in _blocks(self.values, self.index):
            torch.addmm(bias, block - self.mean.float(), weight, out=out[place])
        return out

    def transposed(self, errors: Tensor) -> Tensor:
        """Design.T (q, n) @ errors (n, c)."""
        if isinstance(self.values, Tensor):
            return self.values.T @ errors
        assert self.turn is not None
        out = torch.zeros(self.values.shape[1], errors.shape[1]).double()
        for place, block in _blocks(self.values, self.index):
            out += ((block - self.mean.float()).T @ errors[place]).double()
        return torch.cat([self.turn.T.double() @ out, errors.double().sum(0, keepdim=True)])

    def unturned(
        self, coefficients: Tensor, *, centred: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coefficients (q, K) as weight (K, d) and bias (K,) for raw features.

        ``centred`` makes weights sum to zero over the classes, as the penalty makes those of a
        softmax do but for rounding.
        """
        weight = (self.back @ coefficients[:-1]).T
        weight = weight - weight.mean(0) if centred else weight
        bias = coefficients[-1] - weight @ self.mean
        return weight.float().numpy(), bias.float().numpy()


def _blocks(features: Floats, index: Ints) -> Iterator[tuple[slice, Tensor]]:
    """Rows of ``features`` in float32, ``BLOCK_ROWS`` at a time, with their place in ``index``."""
    for first in range(0, len(index), BLOCK_ROWS):
        place = slice(first, min(first + BLOCK_ROWS, len(index)))
        yield place, torch.from_numpy(features[index[place]].astype(np.float32))


class Problem:
    """B regressions at once on the same rows: weights[..., b] are the images' in problem b.

    Coefficients are (q, K, B): q axes of the rows, the last one the bias.

    Args:
        rows: n images.
        targets: (n,) one class each: softmax; (n, K) bool: a logistic regression for each class.
        classes: K.
        weights: (n, B), or (n, K, B) where they differ between classes.
    """

    def __init__(self, rows: Design, targets: Marks, classes: int, weights: Floats) -> None:
        self.rows, self.classes, self.problems = rows, classes, weights.shape[-1]
        three = weights if weights.ndim == 3 else weights[:, None, :]
        self.weights = torch.from_numpy(three).to(rows.dtype)
        if targets.ndim == 1:
            numbers = torch.from_numpy(targets.astype(np.int64))
            marks = torch.nn.functional.one_hot(numbers, classes).to(rows.dtype)
            self.link: Link = Softmax(marks)
        else:
            self.link = Logistic(torch.from_numpy(targets).to(rows.dtype))
        self.goal = self.link.targets[:, :, None] * self.weights

    def logits(self, coefficients: Tensor) -> Tensor:
        """(n, K, B)."""
        flat = self.rows.times(coefficients.flatten(1))
        return flat.reshape(-1, self.classes, self.problems)

    def score(self, coefficients: Tensor, cost: Floats) -> tuple[Floats, Floats]:
        """NLL (n, B) at ``cost`` (n, 1 or K), and share of right answers (n, B), of every image in
        every problem."""
        logits = self.logits(coefficients)
        loss = (self.link.nll(logits).numpy() * cost[:, :, None]).sum(1)
        return loss, self.link.right(logits).numpy()

    def solve(
        self, penalty: float, *, start: Tensor | None = None, tolerance: float, most: int = 500
    ) -> Tensor:
        """Preconditioned Polak-Ribière conjugate gradient, two Newton steps along each line.

        Stops when every problem's gradient, measured in the preconditioner, has fallen to
        ``tolerance`` times that of the uniform prediction.
        """
        shape = (self.rows.curvature.numel(), self.classes, self.problems)
        ridge = torch.full((shape[0], 1, 1), penalty, dtype=torch.float64)
        ridge[-1] = BIAS_PENALTY
        bound = (
            self.link.curvature * self.rows.curvature[:, None, None] * self.weights.double().mean(0)
            + ridge
        )
        x = torch.zeros(shape, dtype=torch.float64) if start is None else start
        logits = self.logits(x)
        uniform = self._gradient(self.link.probabilities(torch.zeros_like(logits)))
        shared = self.link.joint
        apart = 1 if shared == (0, 1) else self.classes
        enough = tolerance**2 * (uniform * uniform / bound).sum((0, 1)) / apart
        step = torch.zeros_like(x)
        before, length_before = torch.zeros_like(x), torch.ones(()).double()
        for _ in range(most):
            gradient = self._gradient(self.link.probabilities(logits)) + ridge * x
            scaled = gradient / bound
            length = (gradient * scaled).sum(shared)
            if bool((length <= enough).all()):
                break
            turn = (length - (gradient * before).sum(shared)) / length_before
            step = turn.clamp(min=0) * step - scaled
            step = torch.where((step * gradient).sum(shared) < 0, step, -scaled)
            before, length_before = scaled, length.clamp(min=1e-300)
            along = self.logits(step)
            by = self._line(logits, along, (ridge * x * step).sum(shared), ridge * step * step)
            x = x + by * step
            logits = logits + by.to(logits.dtype) * along
        return x

    def _gradient(self, probabilities: Tensor) -> Tensor:
        error = probabilities * self.weights - self.goal
        return self.rows.transposed(error.flatten(1)).reshape(-1, self.classes, self.problems)

    def _line(self, logits: Tensor, along: Tensor, slope: Tensor, curve: Tensor) -> Tensor:
        """(B,) or (K, B): how far to go along the step: Newton, then Newton again or, if too far,
        secant."""
        shared = self.link.joint
        slope = slope - (self.goal * along).sum(shared).double()
        bend = curve.sum(shared)

        def derivatives(by: Tensor) -> tuple[Tensor, Tensor]:
            there = logits + by.to(logits.dtype) * along
            first, second = self.link.slopes(there, along, self.weights)
            return first + slope + by * bend, (second + bend).clamp(min=1e-300)

        at_zero, curve_zero = derivatives(torch.zeros_like(slope))
        by = -at_zero / curve_zero
        there, curve_there = derivatives(by)
        secant = by * at_zero / (at_zero - there).clamp(max=-1e-300)
        return torch.where(there > 0, secant, torch.minimum(by - there / curve_there, 2 * by))
