"""``ResNetSpec``: frozen, JSON-serialisable data that says everything about a network.

The traps of the literature are settled here, each at the field that decides it. Which values can
be built is checked in ``plusx/model/spec_check.py``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from plusx.errors import SpecError
from plusx.model.spec_check import (
    EXPANSION,
    BlockKind,
    NormKind,
    Order,
    PoolKind,
    ShortcutKind,
    StemKind,
    StrideBlock,
    StrideSite,
    check,
    whole_numbers,
)

TRAINING_ONLY = ("drop_path", "dropout", "zero_init_last")
"""Fields without effect on what a trained network answers."""


@dataclass(frozen=True)
class ResNetSpec:
    """A residual network (He et al. 2015, arXiv 1512.03385, and its kin) as data.

    Attributes:
        name: what the network is called; a label, without effect on what is built.
        block: ``basic`` (two 3x3) or ``bottleneck`` (1x1, 3x3, 1x1 with four times the width out).
        depths: blocks per stage.
        widths: branch channels per stage; a bottleneck's output has four times as many.
        stem: ``7x7``, ``3x3`` for small images, or ``deep``: three 3x3, the first two of half the
            width (ResNet-C; He, Tong et al. 2018, arXiv 1812.01187).
        stem_width: channels of the stem's output.
        stem_stride: stride of the stem's first convolution.
        stem_pool: what follows it; see the comment at the field.
        shortcut: the bypass; see the comment at the field. ``none`` is the plain twin.
        bottleneck_stride: where a bottleneck halves the resolution; see the comment at the field.
        feature_stages: ``features`` concatenates the pooled outputs of this many last stages.
        in_channels: channels of the input.
        classes: outputs of the head.
        image_size: height and width, in pixels, that the network is meant for.
        order: norm and activation after (``post``) or before (``pre``) the convolutions; see the
            comment at the field.
        cardinality: groups of a bottleneck's 3x3 (ResNeXt; Xie et al. 2017, arXiv 1611.05431).
        base_width: width of each group in a stage of width 64; see ``inner_width``.
        norm: ``batch``, or ``group`` with 32 groups (Wu and He 2018, arXiv 1803.08494).
        norm_eps: what a norm adds to the variance; Keras has 1.001e-5.
        channel_attention: ``none`` or a key of ``CHANNEL_ATTENTION``, at the end of each branch.
        self_attention: in this many last stages, global self-attention takes the place of the
            3x3 (BoTNet; Srinivas et al. 2021, arXiv 2101.11605).
        blur: a branch strides by a blur instead of its convolution (Zhang 2019, arXiv 1904.11486).
        stride_block: which block of a stage strides; see the comment at the field.
        conv_bias: convolutions that no norm follows have a bias (only in order ``pre``).
        drop_path: how often the last block's branch is left out in training, image by image; the
            l-th of L blocks has l / L of it (stochastic depth; Huang et al. 2016, arXiv
            1603.09382, section 3).
        dropout: before the last convolution of each branch, in training (Zagoruyko and Komodakis
            2016, arXiv 1605.07146, section 2.4).
        zero_init_last: each branch starts as zero: its last norm's scale does (Goyal et al. 2017,
            arXiv 1706.02677, section 5.1), or its last convolution where no norm follows.

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
    # "max-zero": as "max", but the border counts as zeros (Keras pads before it pools): another
    # function in order "pre", whose stem has no ReLU. "max-blur": 3x3 of stride 1, then a blur.
    stem_pool: PoolKind = "max"
    # Section 3.3 and 4.1 of the paper: "zero-pad" is option A (no parameters), "conv" is option B
    # (1x1 convolution where the shape changes), "conv-all" is option C (everywhere). "avg-conv" is
    # ResNet-D: averaged by 2x2 where it strides, so that no pixel is lost (arXiv 1812.01187).
    # "conv-channels": 1x1 convolution where channels change, every second pixel where only the
    # resolution does (Keras V2). "identity" is legal only where no shape changes. "none" leaves
    # the bypass out: the plain twin.
    shortcut: ShortcutKind = "conv"
    # v1 (the paper, Caffe) strides the first 1x1, v1.5 (torchvision, timm, NVIDIA) the 3x3. Names
    # and shapes of the weights are identical, the logits differ by about a fifth: never guessed.
    bottleneck_stride: StrideSite = "3x3"
    feature_stages: int = 1
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224
    # "ResNetV2" means "pre" (He et al. 2016, arXiv 1603.05027): norm and activation before each
    # convolution, none after the stem's, and one more norm after the last block.
    order: Order = "post"
    # "Wide" names two nets: WRN-28-10 has wide stages ("pre", ``widths``), wide_resnet50_2 only
    # wide bottlenecks (``base_width`` 128 instead of 64).
    cardinality: int = 1
    base_width: int = 64
    norm: NormKind = "batch"
    norm_eps: float = 1e-5
    channel_attention: str = "none"
    self_attention: int = 0
    blur: bool = False
    # Nearly all nets stride in the first block of every stage but the first. Keras V2 strides in
    # the last block of every stage but the last, so its C2 to C4 have half the usual resolution.
    stride_block: StrideBlock = "first"
    conv_bias: bool = False
    drop_path: float = 0.0
    dropout: float = 0.0
    zero_init_last: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", whole_numbers("depths", self.depths))
        object.__setattr__(self, "widths", whole_numbers("widths", self.widths))
        check(self)

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

    def inner_width(self, stage: int) -> int:
        """Channels of a bottleneck's 3x3 in that stage, as torchvision counts them."""
        return int(self.widths[stage] * (self.base_width / 64)) * self.cardinality

    def replace(self, **changes: Any) -> ResNetSpec:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)

    def plain_twin(self) -> ResNetSpec:
        """The same network without shortcuts, the paper's plain net.

        Raises:
            SpecError: it has none already.
        """
        if self.shortcut == "none":
            raise SpecError(f"{self.name} has no shortcuts: it is a plain network already")
        # Without a bypass a branch that is left out, or starts as zero, would end the signal.
        return self.replace(
            name=f"plain_{self.name}", shortcut="none", drop_path=0.0, zero_init_last=False
        )

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
