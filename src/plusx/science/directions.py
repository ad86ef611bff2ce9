"""Directions in the space of a net's weights: random ones scaled filter by filter, and the main
ones of a training path.

Li et al. 2018 (arXiv 1712.09913), sections 4 and 7. Norms and biases are left out, as there: a
direction is zero for every parameter of one dimension, and BatchNorm's statistics stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import UsageError

Direction = Mapping[str, Tensor]
"""Name of a parameter -> a change of it; those that are not named stay."""


@dataclass(frozen=True)
class Path:
    """A training path on its two main directions.

    Attributes:
        directions: the two, of length 1, at right angles.
        at: (checkpoints, 2), where each stands; the last one stands at 0, 0.
        explained: shares of the path's variation that lie along each.
    """

    directions: tuple[Direction, Direction]
    at: npt.NDArray[np.float64]
    explained: tuple[float, float]


def moving(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that directions move: weights of convolutions and linear layers."""
    return {name: p.detach() for name, p in model.named_parameters() if p.ndim > 1}


def random_direction(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """A normal direction, every filter as long as the net's own (Li et al. 2018, section 4).

    A filter is the weights of one output of a convolution or of a linear layer.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in moving(model).items():
        drawn = torch.randn(weight.shape, generator=generator).to(weight)
        dims = tuple(range(1, weight.ndim))
        own, length = (torch.linalg.vector_norm(w, dim=dims, keepdim=True) for w in (weight, drawn))
        direction[name] = drawn * own / length.clamp_min(1e-10)
    return direction


def path_directions(states: Sequence[Mapping[str, Tensor]]) -> Path:
    """The two main directions of a path, by PCA of its steps away from its end (section 7.2).

    Args:
        states: the moving parameters of every checkpoint, of one net, in the order of training.

    Raises:
        UsageError: fewer than 3 checkpoints, or they hardly differ.
    """
    if len(states) < 3:
        raise UsageError(
            f"a path on two directions needs at least 3 checkpoints, got {len(states)}; keep more "
            "during training"
        )
    end = states[-1]
    steps = torch.stack(
        [torch.cat([(state[n] - end[n]).flatten() for n in end]) for state in states[:-1]]
    ).double()
    # The few checkpoints' products in place of the many weights' covariance: the same directions.
    # Not centred: directions go through the path's end, which is where the plot is centred.
    values, vectors = torch.linalg.eigh(steps @ steps.T)
    if float(values[-2]) <= 1e-12 * max(float(values[-1]), 1e-30):
        raise UsageError("the checkpoints lie on a line or are all alike; give others")
    chosen = vectors[:, [-1, -2]]
    basis = (steps.T @ chosen) / values[[-1, -2]].sqrt()
    at = torch.cat([steps @ basis, torch.zeros(1, 2, dtype=torch.float64)])
    shares = values[[-1, -2]] / values.sum()
    sizes = [end[n].numel() for n in end]
    pair = tuple(
        {n: part.reshape(end[n].shape).to(end[n])
         for n, part in zip(end, basis[:, k].split(sizes), strict=True)}
        for k in (0, 1)
    )  # fmt: skip
    return Path((pair[0], pair[1]), at.numpy(), (float(shares[0]), float(shares[1])))
