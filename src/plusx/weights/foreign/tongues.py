"""Which tongue a file is in, and its backbone under plusx's own names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from plusx.errors import UsageError, WeightsMismatch
from plusx.weights.files import KERAS_SUFFIXES
from plusx.weights.foreign import (
    detectron2,
    dino,
    keras,
    mmdetection,
    moco,
    selfsupervised,
    torchvision_detection,
    transformers,
)
from plusx.weights.foreign.table import Layout, to_internal
from plusx.weights.load import first_weight
from plusx.weights.names import internal_name, nearest_tongue

PLAIN = "torchvision"
"""The tongue of torchvision, timm and plusx: names that need no table of this room."""

LAYOUTS = (
    transformers.LAYOUT,
    detectron2.LAYOUT,
    torchvision_detection.LAYOUT,
    moco.LAYOUT,
    dino.LAYOUT,
    mmdetection.LAYOUT,
    selfsupervised.LAYOUT,
)
"""Tried in this order: the special before the general."""

NAMES = ("auto", PLAIN, keras.LAYOUT.name, *(layout.name for layout in LAYOUTS))


def find_layout(keys: list[str], wanted: str, origin: str) -> Layout | None:
    """The tongue of the file; None for names that need no table."""
    if wanted == PLAIN or (wanted == "auto" and any(key.startswith(_TELLING) for key in keys)):
        return None
    if wanted == keras.LAYOUT.name:
        raise UsageError(
            f"{origin}: --layout keras reads {', '.join(KERAS_SUFFIXES)}; leave --layout out"
        )
    for layout in LAYOUTS:
        if wanted == layout.name:
            return layout
        if wanted == "auto" and layout.recognises(keys):
            return layout
    return None


_TELLING = ("conv1.", "layer1.", "stem.conv.", "stages.0.")
"""What only torchvision's, timm's and plusx's names begin with."""


def sort(
    state: Mapping[str, Tensor], keys: Mapping[str, str], layout: Layout, origin: str
) -> tuple[dict[str, Tensor], int]:
    """The backbone (and head) under internal names, and how many entries were dropped."""
    prefix = next(
        (p for p in layout.prefixes if any(key.startswith(p) for key in keys.values())), ""
    )
    tongue = nearest_tongue(k.removeprefix(prefix) for k in keys.values() if k.startswith(prefix))
    named: dict[str, Tensor] = {}
    unknown: list[str] = []
    dropped = 0
    for original, key in keys.items():
        name = None if layout.drops(key) else _name(key, prefix, layout, tongue)
        if name in named:
            raise WeightsMismatch(f"{origin}: two entries mean {name}, one is {original!r}")
        if name is not None:
            named[name] = state[original]
        elif layout.drops(key):
            dropped += 1
        else:
            unknown.append(original)
    if unknown or first_weight(named) is None:
        listed = f"{len(unknown)} entries are unknown: {', '.join(unknown[:5])}"
        raise WeightsMismatch(
            f"{origin}: read as {layout.name}, "
            + (listed if unknown else "it holds no first convolution")
            + "; save the backbone's state_dict() alone, or state another --layout"
        )
    return named, dropped


def _name(key: str, prefix: str, layout: Layout, tongue: str) -> str | None:
    """The internal name of one foreign parameter."""
    module, _, leaf = key.rpartition(".")
    outside = to_internal(module, layout.outside)
    if outside is not None:
        return f"{outside}.{leaf}"
    if not key.startswith(prefix):
        return None
    rest = key.removeprefix(prefix)
    known = internal_name(rest, tongue) if layout.torchvision else None
    if known is not None:
        return known
    found = to_internal(module.removeprefix(prefix), layout.table)
    return None if found is None else f"{found}.{leaf}"
