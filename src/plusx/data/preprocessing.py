"""What every image goes through, in training, evaluation, prediction and export alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F

from plusx.data.reading import Reading, ResizeMode
from plusx.errors import UsageError

Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

MAX_ASPECT = 16
"""An image longer than this many times its short side is first cut to its central part."""

_TIMM_CROP_MODES: dict[str, ResizeMode] = {
    "center": "short",
    "squash": "squish",
    "border": "pad",
}


@dataclass(frozen=True)
class Preprocessing:
    """Image to network input: float, antialiased resize, centre crop, scale, normalise.

    To the rounding: the bytes become float32 0..255 (images that are float32 already, on the
    same scale, stay; NaN, which stands for no data, becomes the mean); the resize is torch's
    separable filter with antialiasing (``align_corners=False``), its result not rounded to bytes
    and, for bicubic, not clipped; the crop's offset is ``round((side - size) / 2)``, halves to
    even, as torchvision has it; then ``(x / 255 - mean) / std``. Only with ``mode="pad"`` can a
    side be shorter than ``size``; it is then filled with zeros, which are the mean. The other
    modes equal torchvision's ``v2.Resize, v2.CenterCrop, v2.Normalize`` on float tensors, but for
    images longer than ``MAX_ASPECT`` times their short side (see there), where the resized image
    might not fit in memory.

    Attributes:
        size: side of the square that the network sees, in pixels.
        resize: length of the short side before the crop (``mode="short"``, the aspect ratio
            stays), of both sides (``mode="squish"``), or of the long side (``mode="pad"``).
        interpolation: ``bilinear`` or ``bicubic``.
        mean: of each channel, 0..1.
        std: of each channel, 0..1.
        channels: C.
        mode: see ``resize``.
        reading: the choices by which files are decoded. They take no part in the tensor
            operation; they travel with it, so that prediction reads files as training did.

    Raises:
        UsageError: values that do not fit together.
    """

    size: int
    resize: int
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channels: int = 3
    mode: ResizeMode = "short"
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        if self.size < 1:
            raise UsageError(f"preprocessing size {self.size!r} must be at least 1")
        if self.resize < self.size:
            raise UsageError(f"preprocessing resize {self.resize!r} is below size {self.size!r}")
        if self.channels < 1:
            raise UsageError(f"preprocessing channels {self.channels!r} must be at least 1")
        if self.interpolation not in get_args(Interpolation):
            raise UsageError(
                f"preprocessing interpolation {self.interpolation!r} is not bilinear or bicubic"
            )
        if self.mode not in get_args(ResizeMode):
            raise UsageError(f"preprocessing mode {self.mode!r} is not short, squish or pad")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise UsageError(
                    f"preprocessing {name} has {len(values)} values for {self.channels} channels"
                )
        if not all(value > 0 for value in self.std):
            raise UsageError(f"preprocessing std {self.std!r} must be above 0")
        bands, pairs = self.reading.bands, self.reading.range
        if bands is not None and len(bands) != self.channels:
            raise UsageError(f"{len(bands)} bands for {self.channels} channels; give as many")
        if pairs is not None and len(pairs) not in (1, self.channels):
            raise UsageError(f"{len(pairs)} ranges for {self.channels} channels; give 1 or as many")

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(H, W, C) uint8, or float32 on 0..255 -> (C, size, size) float32, on its device.

        Raises:
            UsageError: another shape or dtype.
        """
        check_image(image, self)
        x = image.permute(2, 0, 1)
        if self.mode == "short" and not torch.compiler.is_compiling():
            x = shorten(x)
        x = self.resample(x, self.resized_hw(x.shape[1], x.shape[2]))
        top, left = (_offset(side, self.size) for side in (x.shape[1], x.shape[2]))
        if self.mode == "pad":  # negative where there is something to fill, not to cut
            below, right = self.size - x.shape[1] + top, self.size - x.shape[2] + left
            return F.pad(self.normalise(x / 255), (-left, right, -top, below))
        return self.normalise(x[:, top : top + self.size, left : left + self.size] / 255)

    @property
    def takes_floats(self) -> bool:
        """Whether an image may be float32: only bands of TIFF files are. Elsewhere a float image
        is refused, as it may well be one on the scale 0..1."""
        chosen = self.reading.bands is not None or self.reading.range is not None
        return chosen or self.channels not in (1, 3)

    def resized_hw(self, h: int, w: int) -> tuple[int, int]:
        """Height and width after the resize: the long side is cut to an integer, as torchvision
        does (``int(resize * long / short)``); with ``mode="pad"`` the short side is rounded, as
        timm does."""
        if self.mode == "squish":
            return self.resize, self.resize
        if self.mode == "pad":
            long: Any = torch.sym_max(h, w)
            rounded: list[Any] = [(2 * self.resize * side + long) // (2 * long) for side in (h, w)]
            return torch.sym_max(1, rounded[0]), torch.sym_max(1, rounded[1])
        short: Any = torch.sym_min(h, w)  # like min, and can be traced
        return self.resize * h // short, self.resize * w // short

    def crop_box(self, hw: tuple[int, int]) -> tuple[int, int, int, int]:
        """Top, left, height and width, in pixels of an image of ``hw``, of what is seen of it.

        With ``mode="pad"`` the box may begin above or left of the image and end beyond it.
        """
        short = MAX_ASPECT * min(hw)
        kept = tuple(min(side, short) for side in hw) if self.mode == "short" else hw
        resized = self.resized_hw(*kept)
        box = []
        for side, inside, new in zip(hw, kept, resized, strict=True):
            scale = inside / new
            start = _offset(side, inside) + _offset(new, self.size) * scale
            box.append((round(start), max(1, round(self.size * scale))))
        (top, height), (left, width) = box
        if self.mode == "pad":
            return top, left, height, width
        return top, left, min(height, hw[0] - top), min(width, hw[1] - left)

    def resample(self, image: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
        """(C, H, W) of any dtype -> (C, *hw) float32 on the same scale; the resize alone.

        At an image's own size the filter changes nothing, and is left out. NaN in a float image
        becomes the mean first, which is zero for the network.
        """
        x = image.float()
        if image.is_floating_point():
            mean = 255 * torch.tensor(self.mean, device=image.device)[:, None, None]
            x = torch.where(x.isnan(), mean, x)
        if not torch.compiler.is_compiling() and tuple(x.shape[1:]) == hw:
            return x
        if not torch.compiler.is_compiling() and hw[1] == 1:
            # torch 2.15 gives a result of width 1 its first row throughout; height 1 is right
            return self._filtered(x.transpose(1, 2), (1, hw[0])).transpose(1, 2)
        return self._filtered(x, hw)

    def _filtered(self, x: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
        return F.interpolate(
            x[None], size=hw, mode=self.interpolation, align_corners=False, antialias=True
        )[0]

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """(C, H, W) in 0..1 -> what the network wants: ``(x - mean) / std``."""
        mean = torch.tensor(self.mean, device=image.device)[:, None, None]
        std = torch.tensor(self.std, device=image.device)[:, None, None]
        return (image - mean) / std

    @classmethod
    def for_size(cls, size: int, channels: int = 3) -> Preprocessing:
        """The usual one: ImageNet's mean and std, bilinear, crop 0.875 of the resized side from
        160 pixels on, below that no crop. For other than 3 channels, each gets the average of
        ImageNet's three means (0.449) and stds (0.226)."""
        mean: tuple[float, ...] = IMAGENET_MEAN
        std: tuple[float, ...] = IMAGENET_STD
        if channels != 3:
            mean = (round(sum(mean) / 3, 6),) * channels
            std = (round(sum(std) / 3, 6),) * channels
        resize = math.floor(size / 0.875) if size >= 160 else size
        return cls(size, resize, mean=mean, std=std, channels=channels)

    def as_mode(self, mode: ResizeMode) -> Preprocessing:
        """The same with another mode: ``squish`` and ``pad`` then show the whole image, ``short``
        crops as much as is usual at that size; its own mode leaves it as it is."""
        if mode == self.mode:
            return self
        usual = Preprocessing.for_size(self.size).resize
        return replace(self, mode=mode, resize=usual if mode == "short" else self.size)

    def at_size(self, size: int) -> Preprocessing:
        """The same for other pixels, cropping the same share; its own size leaves it as it is."""
        if size == self.size:
            return self
        return replace(self, size=size, resize=round(self.resize * size / self.size))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` gives an equal object back.

        ``reading`` is left out where it is the one that its absence means, so that what the first
        release trained is written as it wrote it.
        """
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        del plain["reading"]
        old = self.reading == Reading.before_profiles()
        return plain if old else plain | {"reading": self.reading.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """The reverse of :meth:`to_dict`. Where no ``reading`` is stated, files were decoded as
        before there was one: without colour profiles.

        Raises:
            UsageError: a key is missing or unknown, or a value cannot work.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"preprocessing {values!r} is not a table")
        stated = values.get("reading")
        old = Reading.before_profiles()
        reading = old if stated is None else Reading.from_dict(stated)
        values = {**values, "reading": reading}
        names = {item.name for item in fields(cls)}
        if set(values) != names:
            raise UsageError(
                f"preprocessing: missing keys {sorted(names - set(values))}, "
                f"unknown keys {sorted(set(values) - names)}"
            )
        return cls(**values)

    def to_timm(self) -> dict[str, Any]:
        """The keys of timm's ``pretrained_cfg`` that say the same."""
        crop_pct = self.size / self.resize
        while math.floor(self.size / crop_pct) < self.resize:  # timm's own formula must come back
            crop_pct = math.nextafter(crop_pct, 0.0)
        return {
            "input_size": [self.channels, self.size, self.size],
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_pct": crop_pct,
            "crop_mode": next(k for k, v in _TIMM_CROP_MODES.items() if v == self.mode),
        }

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> Preprocessing:
        """Read timm's ``pretrained_cfg``; ``resize = floor(size / crop_pct)`` as timm has it.

        A missing key gets timm's default (bicubic, ImageNet's mean and std, 0.875, centre),
        except ``input_size``. timm resizes bytes with Pillow, so values differ from timm's by
        its rounding (about half a grey level).

        Source: https://github.com/huggingface/pytorch-image-models, ``timm/data/config.py`` and
        ``timm/data/transforms_factory.py``.

        Raises:
            UsageError: no input size, one that is not square, or a value plusx does not have.
        """
        try:
            channels, height, width = (int(value) for value in pretrained_cfg["input_size"])
        except (KeyError, TypeError, ValueError) as error:
            said = pretrained_cfg.get("input_size")
            raise UsageError(f"pretrained_cfg input_size {said!r} is not [C, H, W]") from error
        if height != width:
            raise UsageError(f"pretrained_cfg input_size {[channels, height, width]} is not square")
        crop_mode = pretrained_cfg.get("crop_mode") or "center"
        if crop_mode not in _TIMM_CROP_MODES:
            raise UsageError(
                f"pretrained_cfg crop_mode {crop_mode!r} is not center, squash or border"
            )
        crop_pct = float(pretrained_cfg.get("crop_pct") or 0.875)
        return cls(
            size=height,
            resize=math.floor(height / crop_pct),
            interpolation=pretrained_cfg.get("interpolation") or "bicubic",
            mean=tuple(pretrained_cfg.get("mean") or IMAGENET_MEAN),
            std=tuple(pretrained_cfg.get("std") or IMAGENET_STD),
            channels=channels,
            mode=_TIMM_CROP_MODES[crop_mode],
        )


def check_image(image: torch.Tensor, preprocessing: Preprocessing) -> None:
    """Raise UsageError unless it is (H, W, C) uint8, or float32 where that may be, with pixels."""
    channels, floats = preprocessing.channels, preprocessing.takes_floats
    known = image.dtype == torch.uint8 or (image.dtype == torch.float32 and floats)
    sound = known and image.ndim == 3 and image.shape[2] == channels
    if not sound or image.shape[0] == 0 or image.shape[1] == 0:
        raise UsageError(
            f"image is {tuple(image.shape)} {image.dtype}; expected (H, W, {channels}) torch.uint8"
            + " or float32" * floats
        )


def shorten(image: torch.Tensor) -> torch.Tensor:
    """(C, H, W): the central part of the long side, at most MAX_ASPECT short sides."""
    limit = MAX_ASPECT * min(image.shape[1], image.shape[2])
    for axis in (1, 2):
        if image.shape[axis] > limit:
            image = image.narrow(axis, _offset(image.shape[axis], limit), limit)
    return image


def _offset(side: int, size: int) -> int:
    """``round((side - size) / 2)`` with halves to even, in integers, so that it can be traced."""
    spare = side - size
    half = spare // 2
    return half + (spare % 2) * (half % 2)
