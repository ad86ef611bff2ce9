"""Which network a state is for, from its shapes; its stride must be told."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from plusx.errors import PlusxError, WeightsMismatch
from plusx.model import ResNetSpec, variant
from plusx.model.spec_check import StemKind, StrideSite
from plusx.weights.families import FIRST, HEAD
from plusx.weights.recognise import depths_of, looks_like

_STEMS: dict[int, StemKind] = {7: "7x7", 3: "3x3"}


def spec_of(
    state: Mapping[str, Tensor], stride: StrideSite, origin: str, asked: ResNetSpec | None = None
) -> ResNetSpec:
    """The variant with these shapes and that stride, else a network of the classic kind.

    Its classes and channels are those of the state.

    Args:
        state: under internal names; may lack the head, and then says nothing of classes.
        stride: which convolution of a bottleneck strides.
        origin: where it comes from, for messages.
        asked: the network, where it need not be found.

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
        spec = asked or _found(state, stride)
        return spec.replace(
            classes=spec.classes if head is None else head.shape[0], in_channels=first.shape[1]
        )
    except (PlusxError, KeyError, IndexError) as error:
        raise WeightsMismatch(
            f"{origin}: its shapes are of no network that plusx knows; describe it in a SPEC.json "
            "and give that as --model"
        ) from error


def _found(state: Mapping[str, Tensor], stride: StrideSite) -> ResNetSpec:
    """The first known variant that fits, else a net as found."""
    # A backbone alone is recognised as well as a whole net: the head's shape does not count.
    whole = {name: torch.empty(0) for name in HEAD} | dict(state)
    for name in looks_like(whole):
        spec = variant(name)
        if spec.block == "basic" or spec.bottleneck_stride == stride:
            return spec
    return _classic(state, stride)


def first_name(state: Mapping[str, Tensor]) -> str:
    """The name of the first convolution's weight, which must be there."""
    return next(name for name in FIRST if name in state)


def _classic(state: Mapping[str, Tensor], stride: StrideSite) -> ResNetSpec:
    """Basic blocks or plain bottlenecks, whose widths the first convolutions tell."""
    depths = depths_of(state)
    widths = [
        state[f"stages.{stage}.0.residual.conv1.weight"].shape[0] for stage in range(len(depths))
    ]
    bottleneck = any(name.endswith("residual.conv3.weight") for name in state)
    first = state[first_name(state)]
    kernel = first.shape[2]
    return ResNetSpec(
        name=f"resnet{sum(depths) * (3 if bottleneck else 2) + 2}_as_found",
        block="bottleneck" if bottleneck else "basic",
        depths=depths,
        widths=tuple(widths),
        stem=_STEMS[kernel],
        stem_width=first.shape[0],
        stem_stride=2 if kernel == 7 else 1,
        stem_pool="max" if kernel == 7 else "none",
        bottleneck_stride=stride,
    )
