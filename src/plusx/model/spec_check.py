"""Which values a ``ResNetSpec`` may have: the names of its choices, and one check of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from plusx.errors import SpecError
from plusx.model.attention import CHANNEL_ATTENTION

if TYPE_CHECKING:
    from plusx.model.spec import ResNetSpec

BlockKind = Literal["basic", "bottleneck"]
StemKind = Literal["7x7", "3x3", "deep"]
PoolKind = Literal["max", "max-ceil", "max-zero", "max-blur", "none"]
ShortcutKind = Literal[
    "conv", "conv-all", "avg-conv", "conv-channels", "zero-pad", "identity", "none"
]
StrideSite = Literal["3x3", "1x1"]
StrideBlock = Literal["first", "last"]
Order = Literal["post", "pre"]
NormKind = Literal["batch", "group"]

EXPANSION: dict[BlockKind, int] = {"basic": 1, "bottleneck": 4}

MOST, MOST_BLOCKS = 2**20, 10_000
"""Of any other number, and of blocks: far above every known network, and still quick to refuse."""

NORM_GROUPS = 32
"""Of group norm: the paper's choice (arXiv 1803.08494, table 3), and timm's."""

HEADS = 4
"""Of self-attention: the paper's choice (arXiv 2101.11605, section 4)."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "block": get_args(BlockKind),
    "stem": get_args(StemKind),
    "stem_pool": get_args(PoolKind),
    "shortcut": get_args(ShortcutKind),
    "bottleneck_stride": get_args(StrideSite),
    "order": get_args(Order),
    "norm": get_args(NormKind),
    "stride_block": get_args(StrideBlock),
    "channel_attention": ("none", *CHANNEL_ATTENTION),
}
_COUNTS = (
    *("stem_width", "stem_stride", "in_channels", "classes", "image_size"),
    *("cardinality", "base_width"),
)


def check(spec: ResNetSpec) -> None:
    """Refuse what cannot be built.

    Raises:
        SpecError: names the field, its value and what is legal.
    """
    _check_fields(spec)
    if spec.blocks > MOST_BLOCKS:
        raise SpecError(f"depths={list(spec.depths)} are more than {MOST_BLOCKS} blocks")
    if len(spec.depths) != len(spec.widths):
        raise SpecError(
            f"depths={list(spec.depths)} and widths={list(spec.widths)} differ in length; "
            "give one of each per stage"
        )
    for field, least in (("feature_stages", 1), ("self_attention", 0)):
        value = getattr(spec, field)
        if type(value) is not int or not least <= value <= spec.stages:
            raise SpecError(
                f"{field}={value!r} must lie between {least} and the number of stages, "
                f"{spec.stages}"
            )
    _check_together(spec)
    _check_channels(spec)


def whole_numbers(field: str, values: Any) -> tuple[int, ...]:
    """A list of one number per stage, as a tuple.

    Raises:
        SpecError: it is none, or a number is out of range.
    """
    if not isinstance(values, list | tuple) or not values:
        raise SpecError(f"{field}={values!r} must be a list of whole numbers, one per stage")
    for value in values:
        if type(value) is not int or not 1 <= value <= MOST:
            raise SpecError(f"{field}={list(values)!r} must hold whole numbers from 1 to {MOST}")
    return tuple(values)


def _check_fields(spec: ResNetSpec) -> None:
    if not isinstance(spec.name, str):
        raise SpecError(f"name={spec.name!r} must be text")
    for field, legal in _CHOICES.items():
        if getattr(spec, field) not in legal:
            raise SpecError(f"{field}={getattr(spec, field)!r} is not one of {', '.join(legal)}")
    for field in _COUNTS:
        value = getattr(spec, field)
        if type(value) is not int or not 1 <= value <= MOST:
            raise SpecError(f"{field}={value!r} must be a whole number from 1 to {MOST}")
    for field in ("blur", "conv_bias", "zero_init_last"):
        if type(getattr(spec, field)) is not bool:
            raise SpecError(f"{field}={getattr(spec, field)!r} must be true or false")
    for field in ("drop_path", "dropout"):
        value = getattr(spec, field)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise SpecError(f"{field}={value!r} must be a number from 0 to below 1")
    if type(spec.norm_eps) not in (int, float) or not 0 < spec.norm_eps < 1:
        raise SpecError(f"norm_eps={spec.norm_eps!r} must be a number between 0 and 1")


def _check_together(spec: ResNetSpec) -> None:
    """Fields that are legal each, but not with one another."""
    if spec.block == "basic":
        for field, usual in (("cardinality", 1), ("base_width", 64), ("self_attention", 0)):
            if (value := getattr(spec, field)) != usual:
                raise SpecError(
                    f"{field}={value} is for bottlenecks, and block='basic' has none; use "
                    f"block='bottleneck' or leave {field} at {usual}"
                )
    if spec.self_attention and spec.cardinality > 1:
        raise SpecError(
            f"self_attention={spec.self_attention} has no groups, so cardinality must be 1, not "
            f"{spec.cardinality}"
        )
    if spec.conv_bias and spec.order == "post":
        raise SpecError(
            "conv_bias=True is for order='pre': in order='post' a norm follows every convolution "
            "and takes a bias out again"
        )
    for field in ("drop_path", "zero_init_last"):
        if spec.shortcut == "none" and getattr(spec, field):
            raise SpecError(
                f"{field}={getattr(spec, field)} needs shortcuts: with shortcut='none' nothing "
                "would be left of the signal"
            )


def _check_channels(spec: ResNetSpec) -> None:
    """Channel counts that come from several fields."""
    if spec.stem == "deep" and spec.stem_width % 2:
        raise SpecError(f"stem_width={spec.stem_width} must be even for stem='deep'")
    stem = {spec.stem_width, spec.stem_width // 2} if spec.stem == "deep" else {spec.stem_width}
    inner = [spec.inner_width(stage) for stage in range(spec.stages)]
    for width, channels in zip(spec.widths, inner, strict=True):
        if not 1 <= channels <= MOST:
            raise SpecError(
                f"base_width={spec.base_width} and cardinality={spec.cardinality} give a stage of "
                f"width {width} {channels} inner channels; they must be 1 to {MOST}"
            )
    for channels in sorted({*stem, *inner, *spec.stage_channels}):
        if spec.norm == "group" and channels % NORM_GROUPS:
            raise SpecError(
                f"norm='group' has {NORM_GROUPS} groups, which {channels} channels cannot be "
                f"divided into; choose widths and stem_width divisible by {NORM_GROUPS}"
            )
    for channels in inner[spec.stages - spec.self_attention :]:
        if channels % HEADS:
            raise SpecError(
                f"self_attention has {HEADS} heads, which {channels} channels cannot be divided "
                f"into; choose widths divisible by {HEADS}"
            )
