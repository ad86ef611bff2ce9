"""Augmentation policies: operations on an image's light and shape, drawn at random.

The operations are torchvision's functions, their ranges those of its transforms; which of them, how
strong and in which direction is drawn from the view's own generator, as torchvision's classes draw
from a global one that threads would share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from plusx.errors import UsageError

PolicyName = Literal["none", "randaugment", "trivialaugment", "autoaugment"]
Scale = tuple[float, bool]

_USUAL: dict[str, Scale] = {
    "identity": (0.0, False), "shear-x": (0.3, True), "shear-y": (0.3, True),
    "translate-x": (150 / 331, True), "translate-y": (150 / 331, True), "rotate": (30.0, True),
    "brightness": (0.9, True), "colour": (0.9, True), "contrast": (0.9, True),
    "sharpness": (0.9, True), "posterize": (4.0, False), "solarize": (1.0, False),
    "autocontrast": (0.0, False), "equalize": (0.0, False),
}  # fmt: skip
"""Operation -> its strongest, and whether the direction is drawn. Translations are shares of the
side."""

_WIDE: dict[str, Scale] = {
    "shear-x": (0.99, True), "shear-y": (0.99, True), "brightness": (0.99, True),
    "colour": (0.99, True), "contrast": (0.99, True), "sharpness": (0.99, True),
    "translate-x": (32.0, True), "translate-y": (32.0, True), "rotate": (135.0, True),
    "posterize": (6.0, False),
}  # fmt: skip
"""Where TrivialAugment's wide space differs; its translations are pixels."""

_COLOUR_ALONE = ("colour",)

_IMAGENET = (
    ("posterize .4 8", "rotate .6 9"), ("solarize .6 5", "autocontrast .6 0"),
    ("equalize .8 0", "equalize .6 0"), ("posterize .6 7", "posterize .6 6"),
    ("equalize .4 0", "solarize .2 4"), ("equalize .4 0", "rotate .8 8"),
    ("solarize .6 3", "equalize .6 0"), ("posterize .8 5", "equalize 1 0"),
    ("rotate .2 3", "solarize .6 8"), ("equalize .6 0", "posterize .4 6"),
    ("rotate .8 8", "colour .4 0"), ("rotate .4 9", "equalize .6 0"),
    ("equalize 0 0", "equalize .8 0"), ("invert .6 0", "equalize 1 0"),
    ("colour .6 4", "contrast 1 8"), ("rotate .8 8", "colour 1 2"),
    ("colour .8 8", "solarize .8 7"), ("sharpness .4 7", "invert .6 0"),
    ("shear-x .6 5", "equalize 1 0"), ("colour .4 0", "equalize .6 0"),
    ("equalize .4 0", "solarize .2 4"), ("solarize .6 5", "autocontrast .6 0"),
    ("invert .6 0", "equalize 1 0"), ("colour .6 4", "contrast 1 8"),
    ("equalize .8 0", "equalize .6 0"),
)  # fmt: skip
"""AutoAugment's pairs for ImageNet: operation, probability, strength out of 9 (arXiv 1805.09501,
appendix, as torchvision has them)."""


@dataclass(frozen=True)
class Policy:
    """One of the policies.

    Attributes:
        name: ``randaugment`` (Cubuk et al. 2020, arXiv 1909.13719: ``operations`` of them, one
            strength), ``trivialaugment`` (Müller & Hutter 2021, arXiv 2103.10158: one, any
            strength, wide ranges) or ``autoaugment`` (Cubuk et al. 2019, arXiv 1805.09501: one of
            25 learnt pairs).
        magnitude: of RandAugment, 0..10 (torchvision's 9 of 30 is 3).
        spread: standard deviation of RandAugment's magnitude, drawn anew for each operation, as in
            timm's ``mstd``.
        operations: of RandAugment.

    Raises:
        UsageError: a value out of range.
    """

    name: PolicyName
    magnitude: float = 7.0
    spread: float = 0.5
    operations: int = 2

    def __post_init__(self) -> None:
        if self.name not in get_args(PolicyName):
            raise UsageError(
                f"--policy {self.name!r} must be none, randaugment, trivialaugment or autoaugment"
            )
        if not 0 <= self.magnitude <= 10:
            raise UsageError(f"--magnitude {self.magnitude!r} must be in 0..10")
        if not 0 <= self.spread <= 10:
            raise UsageError(f"--magnitude-spread {self.spread!r} must be in 0..10")
        if type(self.operations) is not int or self.operations < 1:
            raise UsageError(f"--operations {self.operations!r} must be at least 1")

    def __call__(
        self, x: torch.Tensor, *, fill: Sequence[float], rng: np.random.Generator
    ) -> torch.Tensor:
        """(C, H, W) in 0..1, C 1 or 3 -> the same.

        Args:
            x: the image.
            fill: (C,) what stands where the image was moved away.
            rng: decides all.
        """
        for name, strength in self._drawn(len(x), rng):
            x = apply(x, name, strength, fill=fill)
        return x

    def _drawn(self, channels: int, rng: np.random.Generator) -> list[tuple[str, float]]:
        """Operations and their strengths, in their own units."""
        if self.name == "none":
            return []
        if self.name == "autoaugment":
            pair = _IMAGENET[int(rng.integers(len(_IMAGENET)))]
            found = []
            for text in pair:
                name, chance, degree = text.split()
                signed = _strength(_USUAL.get(name, (0.0, False)), int(degree) / 9, rng)
                if rng.random() <= float(chance) and (channels == 3 or name not in _COLOUR_ALONE):
                    found.append((name, signed))
            return found
        wide = self.name == "trivialaugment"
        space = _USUAL | _WIDE if wide else _USUAL
        names = [name for name in space if channels == 3 or name not in _COLOUR_ALONE]
        found = []
        for _ in range(1 if wide else self.operations):
            name = names[int(rng.integers(len(names)))]
            if wide:
                level = float(rng.integers(31)) / 30
            else:
                level = min(1.0, max(0.0, rng.normal(self.magnitude, self.spread) / 10))
            strength = _strength(space[name], level, rng)
            if wide and name.startswith("translate"):
                name += "-pixels"
            found.append((name, strength))
        return found


def _strength(scale: Scale, level: float, rng: np.random.Generator) -> float:
    most, signed = scale
    turn = rng.random() <= 0.5  # drawn whether it is needed or not
    return -most * level if signed and turn else most * level


def apply(x: torch.Tensor, name: str, strength: float, *, fill: Sequence[float]) -> torch.Tensor:
    """One operation.

    Args:
        x: (C, H, W) in 0..1.
        name: of the operation.
        strength: in its own unit: shears as tangents, translations as shares of the side (of
            ``translate-x-pixels`` in pixels), rotations in degrees, light as the change of its
            factor, posterize as bits taken from 8, solarize as distance of the threshold from 1.
        fill: (C,) what stands where the image was moved away.
    """
    # Imported here: it takes a second or two that a probe need not pay.
    from torchvision.transforms.v2 import functional as tv

    height, width = x.shape[1:]
    lean = math.degrees(math.atan(strength))
    table: dict[str, Callable[[], Any]] = {
        "identity": lambda: x,
        "shear-x": lambda: _affine(x, fill, shear=(lean, 0.0), center=(0.0, 0.0)),
        "shear-y": lambda: _affine(x, fill, shear=(0.0, lean), center=(0.0, 0.0)),
        "translate-x": lambda: _affine(x, fill, by=(int(strength * width), 0)),
        "translate-y": lambda: _affine(x, fill, by=(0, int(strength * height))),
        "translate-x-pixels": lambda: _affine(x, fill, by=(int(strength), 0)),
        "translate-y-pixels": lambda: _affine(x, fill, by=(0, int(strength))),
        "rotate": lambda: tv.rotate(x, strength, fill=list(fill)),
        "brightness": lambda: tv.adjust_brightness(x, 1 + strength),
        "colour": lambda: tv.adjust_saturation(x, 1 + strength),
        "contrast": lambda: tv.adjust_contrast(x, 1 + strength),
        "sharpness": lambda: tv.adjust_sharpness(x, 1 + strength),
        "posterize": lambda: _by_bytes(x, lambda b: tv.posterize(b, bits=8 - round(strength))),
        "solarize": lambda: tv.solarize(x, threshold=1 - strength),
        "autocontrast": lambda: tv.autocontrast(x),
        "equalize": lambda: _by_bytes(x, tv.equalize),
        "invert": lambda: tv.invert(x),
    }
    changed: torch.Tensor = table[name]()
    return changed


def _affine(
    x: torch.Tensor,
    fill: Sequence[float],
    *,
    by: tuple[int, int] = (0, 0),
    shear: tuple[float, float] = (0.0, 0.0),
    center: tuple[float, float] | None = None,
) -> torch.Tensor:
    from torchvision.transforms.v2 import functional as tv

    moved: torch.Tensor = tv.affine(
        x, angle=0.0, translate=list(by), scale=1.0, shear=list(shear), fill=list(fill),
        center=None if center is None else list(center),
    )  # fmt: skip
    return moved


def _by_bytes(x: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What counts grey levels, on 256 of them."""
    return change((x * 255).round().to(torch.uint8)).float() / 255
