"""Shattered gradients: deep plain nets have gradients like white noise, residual nets do not.

Balduzzi et al. 2017 (arXiv 1702.08591), section 2, figures 1 and 2: fully connected rectifier
nets from one number to one number, 200 units a layer, at initialisation. The derivative is taken
at 256 points of a line, and correlated with itself shifted along the line. A feedforward net is
centred by unit (figure 1b), a residual net is ``x + beta W relu(BN(x))`` with beta .1 (1c, eq. 2).

Departure: the first layer has normal biases in all nets, else a net without centring would have a
single kink, at zero. Statistics are over the line, and held fixed when the derivative is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Kind = Literal["feedforward", "residual"]

WIDTH, POINTS, REACH, BETA, LAGS = 200, 256, 2.0, 0.1, 16


@dataclass(frozen=True)
class Shattering:
    """Autocorrelation by lag, 0 to ``LAGS``, of one net."""

    kind: Kind
    layers: int
    seed: int
    autocorrelation: list[float]


def derivative(kind: Kind, layers: int, seed: int) -> Tensor:
    """(POINTS,) float64: of the net's answer along the line from -2 to 2."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    line = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)[:, None]
    x = line.clone().requires_grad_()
    h = x @ normal(1, WIDTH) + normal(WIDTH)
    for _ in range(layers - 1):
        weight = normal(WIDTH, WIDTH) * (2 / WIDTH) ** 0.5
        centred = h - h.mean(0).detach()
        if kind == "residual":
            scaled = centred / (h.var(0, correction=0) + 1e-5).sqrt().detach()
            h = h + BETA * scaled.relu() @ weight
        else:
            h = (centred if _ else h).relu() @ weight
    answer = h.relu() @ normal(WIDTH, 1) / WIDTH**0.5
    (found,) = torch.autograd.grad(answer.sum(), x)
    return found[:, 0]


def autocorrelation(values: Tensor, lags: int = LAGS) -> list[float]:
    """Of a series with itself, lags 0 to ``lags`` (the biased estimate: divided by the lag 0)."""
    series = values - values.mean()
    power = float((series * series).sum())
    if power == 0:
        return [1.0] * (lags + 1)  # a straight line: the derivative is the same everywhere
    return [float((series[: len(series) - k] * series[k:]).sum()) / power for k in range(lags + 1)]


def shattering(layers: Sequence[int], seeds: Sequence[int]) -> list[Shattering]:
    """All nets: both kinds, every number of layers, every seed."""
    return [
        Shattering(kind, n, seed, autocorrelation(derivative(kind, n, seed)))
        for kind in ("feedforward", "residual") for n in layers for seed in seeds
    ]  # fmt: skip


def lag_by_layers(found: Sequence[Shattering], kind: Kind, layers: int, lag: int) -> float:
    """Mean over seeds."""
    of = [s.autocorrelation[lag] for s in found if (s.kind, s.layers) == (kind, layers)]
    return float(np.mean(of))
