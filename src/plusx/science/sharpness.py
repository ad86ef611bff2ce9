"""How sharp a minimum is: eigenvalues of the loss's Hessian, and how convex the surface is.

Li et al. 2018 (arXiv 1712.09913), section 6: the most negative eigenvalue over the most positive
one, in magnitude, is near 0 where the surface looks convex and is so. Hessian products are those
of curvlinops (extra ``science``), eigenvalues ARPACK's. Over all parameters, in float32, with
BatchNorm on its statistics; ReLU has no second derivative, so the Hessian is that of the piece of
the function on which each image lies.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from plusx.errors import MissingExtra
from plusx.model.classifier import Classifier
from plusx.science.directions import Direction
from plusx.science.landscape_plane import moved
from plusx.science.subject import Images

BATCH = 128


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of the mean loss's Hessian.

    Attributes:
        largest: the largest ones, falling.
        smallest: the most negative one, or the least positive.
    """

    largest: tuple[float, ...]
    smallest: float

    @property
    def ratio(self) -> float:
        """``|smallest / largest|`` where the smallest is negative, else 0."""
        return abs(min(self.smallest, 0.0) / self.largest[0]) if self.largest[0] else float("nan")


def curvature(
    model: Classifier, images: Images, *, largest: int = 1, tolerance: float = 1e-2
) -> Curvature:
    """Eigenvalues at one net.

    Args:
        model: stays as it is.
        images: over which the loss is averaged.
        largest: how many of the largest.
        tolerance: relative, of each eigenvalue.

    Raises:
        MissingExtra: without curvlinops.
    """
    with warnings.catch_warnings():  # curvlinops compiles with what later torch calls deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return _curvature(model, images, largest, tolerance)


def _curvature(model: Classifier, images: Images, largest: int, tolerance: float) -> Curvature:
    try:
        from curvlinops import HessianLinearOperator
    except ImportError as error:
        raise MissingExtra("the Hessian's eigenvalues", "science") from error
    from scipy.sparse.linalg import eigsh

    net = moved(model, [], []).eval().requires_grad_(True)
    for module in net.modules():  # an activation in place would change what a derivative needs
        if isinstance(module, nn.ReLU):
            module.inplace = False
    parameters = [p for p in net.parameters() if p.requires_grad]
    batches = [
        (images.images[at : at + BATCH], images.targets[at : at + BATCH])
        for at in range(0, len(images), BATCH)
    ]
    operator = HessianLinearOperator(
        net, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
    ).to_scipy()
    start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0)).numpy()
    top = eigsh(operator, k=largest, which="LA", tol=tolerance, v0=start,
                return_eigenvectors=False)  # fmt: skip
    bottom = eigsh(operator, k=1, which="SA", tol=tolerance, v0=start,
                   return_eigenvectors=False)  # fmt: skip
    return Curvature(tuple(sorted(map(float, top), reverse=True)), float(bottom[0]))


def curvature_at(
    model: Classifier, directions: Sequence[Direction], at: Sequence[float], images: Images
) -> Curvature:
    """The same at a point of a plane through ``model``."""
    return curvature(moved(model, directions, at), images)
