"""``ResNetSpec``: frozen, JSON-serialisable data that says everything about a network.

The traps of the literature are settled here, each at the field that decides it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from plusx.errors import SpecError

BlockKind = Literal["basic", "bottleneck"]
StemKind = Literal["7x7", "3x3"]
PoolKind = Literal["max", "max-ceil", "none"]
ShortcutKind = Literal["conv", "conv-all", "zero-pad", "identity", "none"]
StrideSite = Literal["3x3", "1x1"]

MOST, MOST_BLOCKS = 2**20, 10_000
"""Of any other number, and of blocks: far above every known network, and still quick to refuse."""

EXPANSION: dict[BlockKind, int] = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True)
class ResNetSpec:
    """A post-activation residual network (He et al. 2015, arXiv 1512.03385) as data.

    Attributes:
        name: what the network is called; a label, without effect on what is built.
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1 with four times the width out).
        depths: blocks per stage.
        widths: branch channels per stage; a bottleneck's output has four times as many.
        stem: ``7x7`` (stride 2) or ``3x3``, the latter for small images.
        stem_width: channels of the stem.
        stem_stride: stride of the stem's convolution.
        stem_pool: what follows it; see the comment at the field.
        shortcut: the bypass; see the comment at the field. ``none`` is the plain twin.
        bottleneck_stride: where a bottleneck halves the resolution; see the comment at the field.
        feature_stages: ``features`` concatenates the pooled outputs of this many last stages.
        in_channels: channels of the input.
        classes: outputs of the head.
        image_size: height and width, in pixels, that the network is meant for.

    Raises:
        SpecError: a field has a value that cannot be built.
    """

    name: str
    block: BlockKind
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: StemKind = "7x7"
    stem_width: int = 64
    stem_stride: int = 2
    # "max": 3x3, stride 2, padding 1 (torchvision, timm). "max-ceil": 3x3, stride 2, no padding,
    # ceil mode, as nets of Caffe lineage have it (KaimingHe/deep-residual-networks, prototxt
    # `pool1`: Caffe rounds up). At 224 pixels both give 56, but with other values at the border.
    stem_pool: PoolKind = "max"
    # Section 3.3 and 4.1 of the paper: "zero-pad" is option A (no parameters), "conv" is option B
    # (1x1 convolution where the shape changes), "conv-all" is option C (everywhere). "identity"
    # is legal only where no shape changes. "none" leaves the bypass out: the plain twin.
    shortcut: ShortcutKind = "conv"
    # v1 (the paper, Caffe) strides the first 1x1, v1.5 (torchvision, timm, NVIDIA) the 3x3. Names
    # and shapes of the weights are identical, the logits differ by about a fifth: never guessed.
    bottleneck_stride: StrideSite = "3x3"
    feature_stages: int = 1
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", _integers("depths", self.depths))
        object.__setattr__(self, "widths", _integers("widths", self.widths))
        if not isinstance(self.name, str):
            raise SpecError(f"name={self.name!r} must be text")
        for field, kind in _CHOICES.items():
            if getattr(self, field) not in get_args(kind):
                legal = ", ".join(get_args(kind))
                raise SpecError(f"{field}={getattr(self, field)!r} is not one of {legal}")
        for field in ("stem_width", "stem_stride", "in_channels", "classes", "image_size"):
            value = getattr(self, field)
            if type(value) is not int or not 1 <= value <= MOST:
                raise SpecError(f"{field}={value!r} must be a whole number from 1 to {MOST}")
        if self.blocks > MOST_BLOCKS:
            raise SpecError(f"depths={list(self.depths)} are more than {MOST_BLOCKS} blocks")
        if len(self.depths) != len(self.widths):
            raise SpecError(
                f"depths={list(self.depths)} and widths={list(self.widths)} differ in length; "
                "give one of each per stage"
            )
        if type(self.feature_stages) is not int or not 1 <= self.feature_stages <= self.stages:
            raise SpecError(
                f"feature_stages={self.feature_stages!r} must lie between 1 and the number of "
                f"stages, {self.stages}"
            )

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.depths)

    @property
    def blocks(self) -> int:
        """Number of residual blocks in all stages."""
        return sum(self.depths)

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Output channels of each stage."""
        return tuple(width * EXPANSION[self.block] for width in self.widths)

    @property
    def feature_channels(self) -> int:
        """Length of the pooled feature vector, the C of ``features(x)``."""
        return sum(self.stage_channels[-self.feature_stages :])

    def replace(self, **changes: Any) -> ResNetSpec:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def plain_twin(self) -> ResNetSpec:
        """The same network without shortcuts, the paper's plain net."""
        return self.replace(name=f"plain_{self.name}", shortcut="none")

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        fields = dataclasses.asdict(self)
        return fields | {"depths": list(self.depths), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ResNetSpec:
        """The inverse of ``to_dict``; fields with a default may be left out.

        Raises:
            SpecError: a field is unknown, missing or impossible.
        """
        if not isinstance(fields, dict):
            raise SpecError(f"a spec is a JSON object of fields, not {type(fields).__name__}")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            legal = ", ".join(sorted(known))
            raise SpecError(f"unknown field {', '.join(unknown)}; known: {legal}")
        fields = dict[str, Any](name="custom") | fields
        if missing := [name for name in ("block", "depths", "widths") if name not in fields]:
            raise SpecError(f"missing field {', '.join(missing)}")
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> ResNetSpec:
        """A spec from JSON text.

        Raises:
            SpecError: the text is no JSON, or a field is unknown, missing or impossible.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"not JSON: {error}") from error
        return cls.from_dict(fields)


_CHOICES: dict[str, Any] = {
    "block": BlockKind,
    "stem": StemKind,
    "stem_pool": PoolKind,
    "shortcut": ShortcutKind,
    "bottleneck_stride": StrideSite,
}


def _integers(field: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not values:
        raise SpecError(f"{field}={values!r} must be a list of whole numbers, one per stage")
    for value in values:
        if type(value) is not int or not 1 <= value <= MOST:
            raise SpecError(f"{field}={list(values)!r} must hold whole numbers from 1 to {MOST}")
    return tuple(values)
