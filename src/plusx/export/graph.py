"""The whole way from pixels to probabilities as one module that every exporter can follow.

The resize is written as two matrix products whose weights are computed from the image's size: the
same antialiased filter as torch's, in operations that every runtime has. An ONNX ``Resize`` with
``antialias`` would be shorter, but OpenVINO drops the attribute in silence. Positions are whole
numbers throughout, so that a runtime that computes in half precision cannot lose them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plusx.data.preprocessing import MAX_ASPECT, Preprocessing
from plusx.data.records import Task
from plusx.decide import FARTHEST, Decision, Unknown
from plusx.errors import UsageError
from plusx.model.classifier import Classifier
from plusx.model.surgery import fold_batchnorm
from plusx.weights.exported import OUTPUTS, PREPROCESSED, UNKNOWN_SCORE

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class PixelsToInput(nn.Module):
    """``Preprocessing`` for a batch: (N, H, W, C) -> (N, C, size, size) float32.

    For sides and lengths as ``Preprocessing`` has them; images longer than ``MAX_ASPECT`` short
    sides are cut like there (``mode="short"``).
    """

    mean: Tensor
    std: Tensor
    out: Tensor
    counted: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.p = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(preprocessing.std)[:, None, None])
        self.register_buffer("out", torch.arange(preprocessing.size)[:, None])
        most = preprocessing.resize * (MAX_ASPECT if preprocessing.mode == "short" else 4)
        self.register_buffer("counted", torch.arange(1, most + 1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, C) uint8 (float32 where ``takes_floats``) -> (N, C, size, size) float32."""
        n, height, width, channels = images.shape
        pixels = images.float()
        if images.is_floating_point():
            pixels = torch.where(pixels.isnan(), 255 * self.mean.flatten(), pixels)
        rows = torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device)
        h, w = rows[-1:] + 1, columns[-1:] + 1
        short = torch.minimum(h, w)
        along = self._weights(rows, h, short, torch.maximum(h, w))
        across = self._weights(columns, w, short, torch.maximum(h, w))
        # The long axis of memory stays last: nothing is moved before the image is small.
        x = torch.matmul(along, pixels.reshape(n, height, width * channels))
        x = x.reshape(n, self.p.size, width, channels).permute(0, 3, 1, 2)
        x = torch.matmul(x, across.t()) / 255
        if self.p.mode != "pad":
            return (x - self.mean) / self.std
        filled = along.sum(1, keepdim=True) * across.sum(1)[None]  # 1 inside, 0 in the border
        return (x - self.mean * filled) / self.std

    def _weights(self, place: Tensor, side: Tensor, short: Tensor, long: Tensor) -> Tensor:
        """(size, side): what each pixel of one axis gives to each pixel of the crop."""
        kept = side
        if self.p.mode == "short":
            kept = torch.minimum(side, MAX_ASPECT * short)
            resized = self._quotient(self.p.resize * kept, short)
        elif self.p.mode == "squish":
            resized = torch.full_like(side, self.p.resize)
        else:
            resized = self._quotient(2 * self.p.resize * side + long, 2 * long).clamp(min=1)
        start = _offset(side - kept, place + 1)
        size = self.p.size  # 4 * size keep the spare above 0, where a border is to be filled
        crop = _offset(resized - size + 4 * size, self.counted) - 2 * size
        wanted = self.out + crop
        # Distance between centres, and the filter's unit, both in 1 / (2 * resized) pixels.
        distance = ((2 * (place - start) + 1) * resized - (2 * wanted + 1) * kept).abs()
        unit = 2 * torch.maximum(kept, resized)
        seen = (place >= start) & (place < start + kept)
        weights = self._filter(distance, unit) * seen.float()
        if self.p.mode != "pad":
            return weights / weights.sum(1, keepdim=True)
        inside = ((wanted >= 0) & (wanted < resized)).float()
        weights = weights * inside
        return weights / (weights.sum(1, keepdim=True) + 1 - inside)

    def _filter(self, distance: Tensor, unit: Tensor) -> Tensor:
        """The triangle, or Keys' cubic with a = -0.5 (as torch has it with antialiasing)."""
        if self.p.interpolation == "bilinear":
            return (unit - torch.minimum(distance, unit)).float() / unit.float()
        x = torch.minimum(distance, 2 * unit).float() / unit.float()
        near = (1.5 * x - 2.5) * x * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return torch.where(x < 1, near, far)

    def _quotient(self, a: Tensor, b: Tensor) -> Tensor:
        """``a // b`` by counting: exporters turn a division of whole numbers into one of floats,
        which half precision spoils."""
        return (self.counted * b <= a).sum(0, keepdim=True)


def _offset(spare: Tensor, counted: Tensor) -> Tensor:
    """``round(spare / 2)`` with halves to even, as ``Preprocessing`` has it; ``counted`` is 1, 2,
    ... to at least half of ``spare``."""
    half = (2 * counted <= spare).sum(0, keepdim=True)
    quarter = (4 * counted <= spare).sum(0, keepdim=True)
    return half + (spare - 2 * half) * (half - 2 * quarter)


class UnknownScore(nn.Module):
    """``plusx.decide.Unknown.score`` as a module: features (N, D) -> (N,) float32 in 0..2."""

    bank: Tensor

    def __init__(self, unknown: Unknown) -> None:
        super().__init__()
        if unknown.bank is None:
            raise UsageError("an exported file cannot be exported again: use the run")
        self.neighbours = unknown.neighbours
        # float32: NNCF cannot read a graph that converts what it stores.
        self.register_buffer("bank", torch.from_numpy(unknown.bank.astype("float32")))

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        finite = features.isfinite()
        x = torch.where(finite, features, 0.0)
        largest = x.abs().amax(1, keepdim=True)  # before squares overflow
        x = x / torch.where(largest > 0, largest, 1.0)
        length = (x * x).sum(1, keepdim=True).sqrt()
        x = x / torch.where(length > 0, length, 1.0)
        alike = torch.matmul(x, self.bank.t())
        near = torch.topk(alike, self.neighbours, dim=1, sorted=False).values
        score = (1 - near.mean(1)).clamp(0.0, FARTHEST)
        return torch.where(finite.all(1), score, FARTHEST)


class Pipeline(nn.Module):
    """What is exported: images -> ``OUTPUTS``, perhaps ``unknown_score``, and ``preprocessed``.

    Args:
        model: the network; it is copied, and its BatchNorms folded.
        preprocessing: None where the graph takes preprocessed images.
        decision: its temperature and unknown score go into the graph.
        task: ``single`` (softmax) or ``multi`` (sigmoid).
        inner: whether ``preprocessed`` is among what it returns.
        dtype: of the network's weights and activations; all before it, pooling and head are
            float32.
    """

    def __init__(
        self,
        model: Classifier,
        preprocessing: Preprocessing | None,
        decision: Decision,
        *,
        task: Task,
        inner: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.prepare = None if preprocessing is None else PixelsToInput(preprocessing)
        self.network = fold_batchnorm(model).to(dtype)
        self.network.head.float()
        self.unknown = None if decision.unknown is None else UnknownScore(decision.unknown)
        self.temperature, self.task, self.dtype = decision.temperature, task, dtype
        self.inner = inner and self.prepare is not None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images -> all outputs by name."""
        x = images if self.prepare is None else self.prepare(images)
        features = self.network.features(x.to(self.dtype)).float()
        logits = self.network.head(features)
        tempered = logits / self.temperature
        shares = tempered.sigmoid() if self.task == "multi" else tempered.softmax(1)
        found = dict(zip(OUTPUTS, (shares, logits, features), strict=True))
        if self.unknown is not None:
            found[UNKNOWN_SCORE] = self.unknown(features)
        return found | ({PREPROCESSED: x} if self.inner else {})


def example(preprocessing: Preprocessing, *, preprocessed: bool) -> Tensor:
    """Two images to trace with; zeros of sides that no rule singles out."""
    size, channels = preprocessing.size, preprocessing.channels
    if preprocessed:
        return torch.zeros(2, channels, size, size)
    dtype = torch.float32 if preprocessing.takes_floats else torch.uint8
    return torch.zeros(2, size + 3, size + 7, channels, dtype=dtype)
