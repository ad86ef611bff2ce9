"""Strong augmentation, for long trainings of a whole network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F

from plusx.data.augmentation import Augmentation
from plusx.data.policies import Policy
from plusx.data.preprocessing import Preprocessing, check_image
from plusx.errors import UsageError


@dataclass(frozen=True)
class StrongAugmentation:
    """More than crop, flip and light.

    Attributes:
        light: crop, flips and light.
        pad: instead of the crop that is resized, the image gets this many pixels on each side (of
            the mean, which is zero for the network) and a part of its own size is taken (He et al.
            2015, section 4.2); 0 for none.
        policy: between flips and light.
        erase: probability that a rectangle becomes the mean at last (Zhong et al. 2020, arXiv
            1708.04896: 2% to 33% of the area, sides of 0.3 to 3.3).

    Raises:
        UsageError: a value out of range.
    """

    light: Augmentation
    pad: int = 0
    policy: Policy = field(default_factory=lambda: Policy("none"))
    erase: float = 0.0

    def __post_init__(self) -> None:
        if type(self.pad) is not int or self.pad < 0:
            raise UsageError(f"--pad {self.pad!r} must be a number of pixels, at least 0")
        if not 0 <= self.erase <= 1:
            raise UsageError(f"--erase {self.erase!r} must be in 0..1")

    def __call__(
        self, image: torch.Tensor, preprocessing: Preprocessing, *, rng: np.random.Generator
    ) -> torch.Tensor:
        """One view, as ``Augmentation`` gives it: (H, W, C) -> (C, size, size) float32.

        Raises:
            UsageError: see ``Augmentation``; or a policy for other than 1 or 3 channels.
        """
        check_image(image, preprocessing)
        if self.policy.name != "none" and preprocessing.channels not in (1, 3):
            raise UsageError(
                f"--policy {self.policy.name} changes light and colour of images with 1 or 3 "
                f"channels, and these have {preprocessing.channels}; give --policy none"
            )
        draw = rng.random(9)
        if self.pad:
            x = self._padded(image, preprocessing, draw)
        else:
            x = self.light.cropped(image.permute(2, 0, 1), preprocessing, draw)
        x = self.light.flipped(x, draw)
        x = self.policy(x, fill=preprocessing.mean, rng=rng)
        x = preprocessing.normalise(self.light.lit(x, draw))
        return self._erased(x, rng) if self.erase else x

    def _padded(
        self, image: torch.Tensor, preprocessing: Preprocessing, draw: np.ndarray
    ) -> torch.Tensor:
        """A part of the padded image, in 0..1."""
        pad, size = self.pad, preprocessing.size
        wide = F.pad(preprocessing(image), (pad, pad, pad, pad))
        top, left = (int(share * (2 * pad + 1)) for share in draw[2:4])
        part = wide[:, top : top + size, left : left + size]
        mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean,
                                                              preprocessing.std))  # fmt: skip
        return (part * std + mean).clamp(0, 1)

    def _erased(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """(C, H, W) normalised, with a rectangle of zeros, or as it is."""
        chance, area, shape, top, left = rng.random(5)
        if chance >= self.erase:
            return x
        height, width = x.shape[1:]
        pixels = height * width * (0.02 + (0.33 - 0.02) * area)
        ratio = math.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * shape)
        h = min(height, round(math.sqrt(pixels * ratio)))
        w = min(width, round(math.sqrt(pixels / ratio)))
        y, left_edge = int(top * (height - h + 1)), int(left * (width - w + 1))
        x = x.clone()
        x[:, y : y + h, left_edge : left_edge + w] = 0.0
        return x


AnyAugmentation: TypeAlias = Augmentation | StrongAugmentation
