"""Receptive fields: how much of the image one unit looks at, in theory and in effect.

Luo, Li, Urtasun & Zemel 2016 (arXiv 1701.04128): of the pixels that a unit could depend on, those
in the middle count far more than those at the rim. The gradient of a map's central unit by the
pixels shows how much each counts: about a Gaussian, whose width grows with the square root of the
depth, so that its share of the theoretical field falls.

Here the gradient is that of a random mixture of the central unit's channels (a standard normal
cotangent), whose mean square over draws is the squared norm of the Jacobian's column; every image
counts the same. The effective size is the paper's: the square root of the number of pixels with
more than 4.55% (one minus two sigmas' mass) of the greatest value; the paper takes the central
pixel's, which strided 1x1 shortcuts may skip. A fitted width stands beside it.

A fresh net's norms are given the statistics of the images, as in its first training step: with
mean 0 and variance 1, which they are made with, they would normalise nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.model.classifier import Classifier
from plusx.model.reach import Tracer
from plusx.model.recalibrate import recalibrate_batchnorm
from plusx.runtime import forward_batch
from plusx.science.subject import Images, Subject, subset
from plusx.weights.families import build
from plusx.weights.timm_net import TimmBody, TimmNet

Array = npt.NDArray[np.float32]
PARTS = 4
"""Of a net of timm's, so many maps at equal steps."""


@dataclass(frozen=True)
class Looking:
    """How fields are measured.

    Attributes:
        images: over which gradients are averaged.
        draws: cotangents an image.
        inits: fresh nets beside the trained one, over each of which the images go as well.
        seed: of cotangents and fresh nets.

    Raises:
        UsageError: no images or draws, or a negative number of nets.
    """

    images: int = 16
    draws: int = 2
    inits: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("draws", 1), ("inits", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class Place:
    """A map of the net.

    Attributes:
        name: ``stem``, ``stage 1``, ...
        theoretical: pixels a side that a unit can look at through convolutions and pools; it may
            be larger than the image. None where the whole image counts (attention, gates).
        centre: (row, column) of the image that the central unit stands over.
    """

    name: str
    theoretical: int | None
    centre: tuple[float, float]


def maps_of(model: Classifier, x: Tensor) -> dict[str, Tensor]:
    """(N, C, H, W) -> the maps after stem and stages by name, kept from writing in place; of a net
    of timm's up to ``PARTS`` of those that timm gives.

    Raises:
        UsageError: the net gives none.
    """
    if isinstance(model, TimmNet):
        return _timm_maps(model, x)
    maps = {}
    parts = [("stem", model.stem), *((f"stage {i + 1}", s) for i, s in enumerate(model.stages))]
    for name, part in parts:
        if not isinstance(part, nn.Identity):
            maps[name] = x = part(x.clone())
    return maps


def places_of(model: Classifier, size: tuple[int, int]) -> list[Place]:
    """Its maps and their theoretical fields for images of ``size`` (H, W).

    Raises:
        UsageError: the net gives no maps.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    x = torch.empty(1, model.spec.in_channels, *size, device="meta")
    places = []
    with torch.no_grad(), Tracer() as tracer:
        tracer.start(x)
        for name, found in maps_of(meta, x).items():
            reach, middle = tracer.reach(found), [n // 2 for n in found.shape[2:]]
            if reach.whole:
                steps = zip(middle, size, found.shape[2:], strict=True)
                row, column = ((at + 0.5) * pixels / n - 0.5 for at, pixels, n in steps)
            else:
                row, column = (at * reach.jump + (reach.low + reach.high) / 2 for at in middle)
            theoretical = None if reach.whole else reach.field
            places.append(Place(name, theoretical, (row, column)))
    return places


def fresh(subject: Subject, images: Images, *, seed: int) -> Classifier:
    """The same net with random weights, its BatchNorms set to the images' statistics.

    Branches that a spec lets start as zero start as He et al. draw them: the fresh net would
    otherwise be its shortcuts alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _twin(subject.model)
    model = model.eval().requires_grad_(False)
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        recalibrate_batchnorm(model, [images.images])
    return model


def energies(
    model: Classifier,
    images: Images,
    *,
    draws: int = 2,
    seed: int = 0,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[str, Array]:
    """Squared gradients of each map's central unit by the pixels.

    Args:
        model: in evaluation mode.
        images: all are used.
        draws: cotangents an image and map.
        seed: of the cotangents.
        tick: called with the number of images done.

    Returns:
        Map's name -> (N, H, W) float32, the mean over draws of the sum over colours; each image's
        sum is 1, or 0 where nothing reaches the unit.

    Raises:
        UsageError: the net gives no maps.
    """
    found: dict[str, list[Tensor]] = {}
    generator = torch.Generator().manual_seed(seed)
    for some in torch.split(images.images, forward_batch(images.images.device)):
        with torch.enable_grad():
            x = some.detach().clone().requires_grad_(True)
            maps = maps_of(model, x)
        for name, one in maps.items():
            unit = one[:, :, one.shape[2] // 2, one.shape[3] // 2]
            total = torch.zeros_like(some[:, 0])
            for _ in range(draws):
                cotangent = torch.randn(unit.shape, generator=generator)
                (grad,) = torch.autograd.grad(unit, x, cotangent, retain_graph=True)
                total += grad.square().sum(1)
            sums = total.sum((1, 2), keepdim=True)
            found.setdefault(name, []).append(total / sums.where(sums > 0, torch.ones_like(sums)))
        tick(len(some))
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def look(
    subject: Subject,
    images: Images,
    *,
    looking: Looking | None = None,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[str, Mapping[str, Array]]:
    """The squared gradients of a net, ``trained`` and ``initialised`` (all fresh nets' in a row);
    a net with random weights is only the latter.

    Raises:
        UsageError: the net gives no maps.
    """
    looking = looking or Looking()
    found = [(kind, piece(subject, images, kind=kind, number=number, looking=looking, tick=tick))
             for kind, number in kinds(subject, looking)]  # fmt: skip
    return gathered(found)


def kinds(subject: Subject, looking: Looking) -> list[tuple[str, int]]:
    """What is measured of a net: (``trained`` or ``initialised``, number)."""
    first = [("trained", 0)] if subject.origin != "random" else []
    inits = looking.inits if first else max(1, looking.inits)
    return first + [("initialised", number) for number in range(inits)]


def piece(
    subject: Subject,
    images: Images,
    *,
    kind: str,
    number: int,
    looking: Looking,
    tick: Callable[[int], None] = lambda n: None,
) -> dict[str, Array]:
    """One of ``kinds``."""
    some, seed = subset(images, looking.images), looking.seed + number
    model = subject.model if kind == "trained" else fresh(subject, some, seed=seed)
    return energies(model, some, draws=looking.draws, seed=seed, tick=tick)


def gathered(found: Sequence[tuple[str, Mapping[str, Array]]]) -> dict[str, Mapping[str, Array]]:
    """Several fresh nets' put together."""
    together: dict[str, dict[str, list[Array]]] = {}
    for kind, maps in found:
        for name, energy in maps.items():
            together.setdefault(kind, {}).setdefault(name, []).append(energy)
    return {
        kind: {name: np.concatenate(parts) for name, parts in maps.items()}
        for kind, maps in together.items()
    }


def _twin(model: Classifier) -> Classifier:
    """Built anew from its spec."""
    spec = model.spec
    if getattr(spec, "zero_init_last", False):
        spec = spec.replace(zero_init_last=False)
    return build(spec)


def _timm_maps(model: TimmNet, x: Tensor) -> dict[str, Tensor]:
    body = cast("TimmBody", cast("nn.Sequential", model.stages[0])[0])
    give = getattr(body.net, "forward_intermediates", None)
    if give is None:
        raise UsageError(
            f"{model.spec.name}: timm does not give the maps inside it, so its field cannot be "
            "seen; choose another network"
        )
    maps: list[Tensor] = give(x, intermediates_only=True)
    maps = [one for one in maps if one.ndim == 4]
    if not maps:
        raise UsageError(f"{model.spec.name}: timm gives no maps (N, C, H, W) of it; choose another"
                         " network")  # fmt: skip
    n = min(PARTS, len(maps))
    chosen = [round((at + 1) * len(maps) / n) for at in range(n)]
    return {f"part {at} of {len(maps)}": maps[at - 1] for at in chosen}
