"""Photographs made worse on purpose: seven kinds of harm at five strengths.

The kinds are some of Hendrycks & Dietterich 2019 (arXiv 1903.12261), by torchvision's kernels, with
strengths of our own, stated in ``STRENGTHS``. An image is harmed at the size the preprocessing
resizes it to, so that one strength means the same for every camera.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plusx.data.preprocessing import Preprocessing, shorten
from plusx.errors import UsageError

STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "noise": (0.04, 0.08, 0.12, 0.18, 0.26),  # standard deviation, of the full range
    "blur": (0.5, 1.0, 2.0, 3.0, 5.0),  # sigma, in pixels at a short side of 256
    "jpeg": (50, 25, 15, 8, 4),  # quality
    "brightness": (0.75, 0.6, 0.45, 0.3, 0.2),  # factor
    "contrast": (0.7, 0.5, 0.35, 0.2, 0.1),  # factor
    "rotation": (5, 10, 20, 45, 90),  # degrees
    "scale": (0.8, 0.6, 0.45, 0.3, 0.2),  # zoomed out to this share of the side
}
"""Kind -> what each of the strengths 1 to 5 is."""


def corrupt(
    image: Tensor, kind: str, strength: int, *, size: int, rng: np.random.Generator
) -> Tensor:
    """Harm one image.

    Args:
        image: (H, W, C) uint8.
        kind: a key of ``STRENGTHS``.
        strength: 1 (weak) to 5.
        size: the short side to harm it at, in pixels; the image is resized to it first.
        rng: of the noise and of the side a rotation turns to.

    Returns:
        (H', W', C) uint8 with a short side of ``size``.

    Raises:
        UsageError: an unknown kind or strength.
    """
    if kind not in STRENGTHS or not 1 <= strength <= len(STRENGTHS[kind]):
        raise UsageError(
            f"corruption {kind!r} of strength {strength!r} is not one of {', '.join(STRENGTHS)} "
            "at 1 to 5"
        )
    x = shrink(image, size).permute(2, 0, 1)
    harmed = _KINDS[kind](x, STRENGTHS[kind][strength - 1], rng)
    return harmed.permute(1, 2, 0).contiguous()


def shrink(image: Tensor, size: int) -> Tensor:
    """(H, W, C) resized to a short side of ``size``: (H', W', C) uint8; one of that size stays."""
    channels = image.shape[2]
    none = (0.0,) * channels
    resize = Preprocessing(size, size, mean=none, std=(1.0,) * channels, channels=channels)
    x = shorten(image.permute(2, 0, 1))
    x = resize.resample(x, resize.resized_hw(x.shape[1], x.shape[2]))
    return x.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def _noise(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.standard_normal(tuple(x.shape), dtype=np.float32))
    return (x.float() + 255 * level * noise).round().clamp(0, 255).to(torch.uint8)


def _blur(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional

    sigma = level * min(x.shape[1:]) / 256
    side = 2 * min(max(1, round(3 * sigma)), (min(x.shape[1:]) - 1) // 2) + 1
    blurred: Tensor = functional.gaussian_blur(x, [side, side], [max(sigma, 1e-3)] * 2)
    return blurred


def _jpeg(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    """Coded and decoded by Pillow (torchvision's coder leaves with 0.29); one plane at a time
    where there are neither 1 nor 3."""
    if x.shape[0] not in (1, 3):
        return torch.cat([_jpeg(plane[None], level, rng) for plane in x])
    array = x.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array[:, :, 0] if x.shape[0] == 1 else array).save(
        file, format="JPEG", quality=int(level)
    )
    with Image.open(file) as image:
        coded = np.array(image).reshape(array.shape)
    return torch.from_numpy(coded).permute(2, 0, 1)


def _brightness(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    return (x.float() * level).round().to(torch.uint8)


def _contrast(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    mean = x.float().mean()
    return (mean + (x.float() - mean) * level).round().clamp(0, 255).to(torch.uint8)


def _rotation(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    """Turned to either side inside an edge of reflections: no black corners give it away."""
    from torchvision.transforms.v2 import functional

    edge = [max(1, round(0.2 * side)) for side in x.shape[1:]]
    angle = float(level if rng.random() < 0.5 else -level)
    wide = functional.pad(x, [edge[1], edge[0]], padding_mode="reflect")
    turned = functional.rotate(wide, angle, functional.InterpolationMode.BILINEAR)
    cut: Tensor = turned[:, edge[0] : edge[0] + x.shape[1], edge[1] : edge[1] + x.shape[2]]
    return cut


def _scale(x: Tensor, level: float, rng: np.random.Generator) -> Tensor:
    """Zoomed out: the image shrinks inside its frame, which keeps the image's mean colour."""
    from torchvision.transforms.v2 import functional

    h, w = (max(1, round(level * side)) for side in x.shape[1:])
    small = functional.resize(x, [h, w], antialias=True)
    frame = x.float().mean(dim=(1, 2), keepdim=True).round().to(torch.uint8).expand_as(x).clone()
    top, left = (x.shape[1] - h) // 2, (x.shape[2] - w) // 2
    frame[:, top : top + h, left : left + w] = small
    return frame


_KINDS: Mapping[str, Callable[[Tensor, float, np.random.Generator], Tensor]] = {
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "brightness": _brightness,
    "contrast": _contrast,
    "rotation": _rotation,
    "scale": _scale,
}
