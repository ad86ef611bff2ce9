"""Random views for training: crop, flip, light; every number drawn from one generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from plusx.data.preprocessing import Preprocessing, check_image
from plusx.errors import UsageError


@dataclass(frozen=True)
class Augmentation:
    """How far a training view may stray from the image.

    Attributes:
        scale: share of the image's area that the crop keeps, from and to.
        ratio: width over height of the crop before it is made square, from and to.
        hflip: probability of a left-right flip.
        vflip: probability of an upside-down flip (for images without an up: tiles, cells).
        brightness: factors are drawn from 1 - b to 1 + b.
        contrast: the same, about the image's mean grey; like brightness for 1 or 3 channels.
        saturation: the same, about the pixel's grey; 3 channels only.

    Raises:
        UsageError: a value out of range.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    vflip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"augmentation scale {self.scale!r} must rise within 0..1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"augmentation ratio {self.ratio!r} must rise above 0")
        for name in ("hflip", "vflip", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"augmentation {name} {getattr(self, name)!r} must be in 0..1")

    @classmethod
    def light(cls, n_images: int, *, size: int = 224, channels: int = 3) -> Augmentation:
        """A default that is right for a hundred images and sane for a hundred thousand.

        Few images are fine-tuned for few steps from good features: a crop that cuts the object
        out teaches more wrong labels than it prevents overfitting, so it keeps at least half of
        the area. With many images training is longer and the wrong crops average out, so the
        bound falls with log10(n), from 0.5 at 1,000 and below to 0.25 at 100,000 and above
        (Inception's 0.08 pays only over tens of epochs from scratch). A tiny picture has few
        pixels to lose: below 96 pixels at least 0.6 stays and its shape is kept more nearly,
        about what padding by an eighth and cropping does. Light is changed by up to a fifth.
        Flips are left-right only; text and handed things want ``hflip=0``.

        Args:
            n_images: training images.
            size: side of the network's input, in pixels.
            channels: light is left alone for other than 1 and 3, saturation for other than 3.
        """
        decades = math.log10(max(n_images, 1)) - 3
        least = 0.5 - 0.25 * min(max(decades / 2, 0.0), 1.0)
        ratio = (3 / 4, 4 / 3)
        if size < 96:
            least, ratio = max(least, 0.6), (0.9, 1 / 0.9)
        return cls(
            scale=(least, 1.0),
            ratio=ratio,
            brightness=0.2 if channels in (1, 3) else 0.0,
            contrast=0.2 if channels in (1, 3) else 0.0,
            saturation=0.2 if channels == 3 else 0.0,
        )

    def __call__(
        self, image: torch.Tensor, preprocessing: Preprocessing, *, rng: np.random.Generator
    ) -> torch.Tensor:
        """One view: (H, W, C) uint8, or float32 on 0..255 -> (C, size, size) float32.

        Crop, resize with the preprocessing's filter, flips, brightness, contrast, saturation (in
        this order, each result clipped to 0..1 as torchvision does), then the preprocessing's
        scale and normalisation. The same state of ``rng`` gives the same view, and each call
        draws the same number of values, whatever the image.

        Raises:
            UsageError: the image is not such a tensor, or saturation is asked for C != 3.
        """
        check_image(image, preprocessing)
        draw = rng.random(9)
        x = self.cropped(image.permute(2, 0, 1), preprocessing, draw)
        return preprocessing.normalise(self.lit(self.flipped(x, draw), draw))

    def cropped(
        self, image: torch.Tensor, preprocessing: Preprocessing, draw: np.ndarray
    ) -> torch.Tensor:
        """(C, H, W) on 0..255 -> (C, size, size) in 0..1; ``draw`` are nine numbers in 0..1."""
        size = preprocessing.size
        return preprocessing.resample(self._crop(image, draw), (size, size)) / 255

    def flipped(self, x: torch.Tensor, draw: np.ndarray) -> torch.Tensor:
        """(C, H, W) -> the same shape."""
        if draw[4] < self.hflip:
            x = x.flip(2)
        if draw[5] < self.vflip:
            x = x.flip(1)
        return x

    def lit(self, x: torch.Tensor, draw: np.ndarray) -> torch.Tensor:
        """(C, H, W) in 0..1 -> the same with brightness, contrast and saturation changed."""
        return self._light(x, 2 * draw[6:] - 1)

    def _crop(self, image: torch.Tensor, draw: np.ndarray) -> torch.Tensor:
        """(C, H, W) -> a part of it whose area and shape are drawn from ``scale`` and ``ratio``.

        Where the drawn shape does not fit into the image, the side that sticks out is cut to the
        image's (torchvision draws up to ten times and then takes the centre).
        """
        height, width = image.shape[1:]
        area = height * width * _between(self.scale, draw[0])
        shape = math.exp(_between((math.log(self.ratio[0]), math.log(self.ratio[1])), draw[1]))
        h = min(max(round(math.sqrt(area / shape)), 1), height)
        w = min(max(round(math.sqrt(area * shape)), 1), width)
        top = int(draw[2] * (height - h + 1))
        left = int(draw[3] * (width - w + 1))
        return image[:, top : top + h, left : left + w]

    def _light(self, x: torch.Tensor, change: np.ndarray) -> torch.Tensor:
        """(C, H, W) in 0..1 -> the same with brightness, contrast and saturation changed."""
        if not (self.brightness or self.contrast or self.saturation):
            return x
        if x.shape[0] != 3 and (self.saturation or x.shape[0] != 1):
            raise UsageError(
                f"augmentation of {x.shape[0]} channels cannot change brightness or contrast "
                "(1 or 3 channels) or saturation (3)"
            )
        # Imported here: it takes a second or two that a probe need not pay.
        from torchvision.transforms.v2 import functional

        x = functional.adjust_brightness(x, 1 + self.brightness * float(change[0]))
        x = functional.adjust_contrast(x, 1 + self.contrast * float(change[1]))
        if self.saturation:
            x = functional.adjust_saturation(x, 1 + self.saturation * float(change[2]))
        return x


def view_rng(seed: int, epoch: int, index: int, again: int = 0) -> np.random.Generator:
    """The generator of one view of one image.

    It depends on (seed, epoch or view number, index of the sample, how often the epoch had it
    before) alone, so that no order of workers can change what is drawn.
    """
    words = [seed % 2**64, epoch, index]
    return np.random.Generator(np.random.PCG64([*words, again] if again else words))


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * share
