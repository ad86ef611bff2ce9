"""Which network a state is for, from its shapes; its stride must be told."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from plusx.errors import PlusxError, WeightsMismatch
from plusx.model import ResNetSpec, variant
from plusx.model.spec import StemKind, StrideSite
from plusx.weights.load import FIRST, HEAD, looks_like

_STEMS: dict[int, StemKind] = {7: "7x7", 3: "3x3"}


def spec_of(state: Mapping[str, Tensor], stride: StrideSite, origin: str) -> ResNetSpec:
    """The variant with these shapes and that stride, else a network of the classic kind.

    Args:
        state: under internal names; may lack the head, whose classes are then 1000.
        stride: which convolution of a bottleneck strides.
        origin: where it comes from, for messages.

    Raises:
        WeightsMismatch: the shapes are of no network that plusx builds, or the head has 0 classes.
    """
    head, first = state.get(HEAD[0]), state[first_name(state)]
    if head is not None and (head.ndim != 2 or head.shape[0] < 1):
        raise WeightsMismatch(
            f"{origin}: its head has the shape {tuple(head.shape)}; a head needs at least 1 class"
        )
    if first.ndim != 4:
        raise WeightsMismatch(f"{origin}: its first convolution has the shape {tuple(first.shape)}")
    try:
        fits = [variant(name) for name in looks_like(state)]
        found = [s for s in fits if s.block == "basic" or s.bottleneck_stride == stride]
        spec = found[0] if found else _classic(state, stride)
        return spec.replace(
            classes=1000 if head is None else head.shape[0], in_channels=first.shape[1]
        )
    except (PlusxError, KeyError, IndexError) as error:
        raise WeightsMismatch(
            f"{origin}: its shapes are of no network that plusx knows; describe it in a SPEC.json "
            "and give that as --model"
        ) from error


def first_name(state: Mapping[str, Tensor]) -> str:
    """The name of the first convolution's weight, which must be there."""
    return next(name for name in FIRST if name in state)


def _classic(state: Mapping[str, Tensor], stride: StrideSite) -> ResNetSpec:
    """Basic blocks or plain bottlenecks, whose widths the first convolutions tell."""
    depths: dict[int, int] = {}
    widths: dict[int, int] = {}
    for name, value in state.items():
        if found := re.fullmatch(r"stages\.(\d+)\.(\d+)\.residual\.conv1\.weight", name):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            widths[stage] = value.shape[0]
    bottleneck = any(name.endswith("residual.conv3.weight") for name in state)
    first = state[first_name(state)]
    kernel = first.shape[2]
    return ResNetSpec(
        name=f"resnet{sum(depths.values()) * (3 if bottleneck else 2) + 2}_as_found",
        block="bottleneck" if bottleneck else "basic",
        depths=tuple(depths[stage] for stage in sorted(depths)),
        widths=tuple(widths[stage] for stage in sorted(widths)),
        stem=_STEMS[kernel],
        stem_width=first.shape[0],
        stem_stride=2 if kernel == 7 else 1,
        stem_pool="max" if kernel == 7 else "none",
        bottleneck_stride=stride,
    )
