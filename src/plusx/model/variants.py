"""One plain table: name -> ResNetSpec. Names are timm's where timm has the same network.

``resnet50`` and its kin are v1.5 (stride on the 3x3), which is what torchvision, timm and nearly
all trained weights are; ``resnet50_v1`` is the paper's own layout. ``resnet18`` and ``resnet34``
have no bottleneck, so the two versions coincide. Families of nets for small images go by pattern:
``resnet56_cifar_a``, ``resnet164_cifar_preact``, ``wrn28_10``; see ``variant``. ``plain_NAME`` is
the same network without shortcuts.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from plusx.errors import UsageError
from plusx.model.spec import ResNetSpec
from plusx.model.spec_check import ShortcutKind

_FOUR = (64, 128, 256, 512)
_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _basic(name: str, depths: tuple[int, ...], **fields: Any) -> ResNetSpec:
    return ResNetSpec(name, "basic", depths, _FOUR, **fields)


def _deep(name: str, layers: int, **fields: Any) -> ResNetSpec:
    return ResNetSpec(name, "bottleneck", _DEPTHS[layers], _FOUR, **fields)


_D: dict[str, Any] = {"stem": "deep", "shortcut": "avg-conv"}

# timm has these networks, with equal logits: tests/weights/test_parity.py compares every row.
_AS_TIMM = [
    # He et al. 2015, arXiv 1512.03385, and the stride of NVIDIA's and torchvision's v1.5 (B)
    _basic("resnet18", (2, 2, 2, 2)),
    _basic("resnet34", (3, 4, 6, 3)),
    *(_deep(f"resnet{n}", n) for n in _DEPTHS),
    # He, Tong et al. 2018, "Bag of Tricks", arXiv 1812.01187
    _deep("resnet50c", 50, stem="deep"),
    _basic("resnet18d", (2, 2, 2, 2), **_D),
    _basic("resnet34d", (3, 4, 6, 3), **_D),
    *(_deep(f"resnet{n}d", n, **_D) for n in _DEPTHS),
    # Xie et al. 2017, arXiv 1611.05431
    _deep("resnext50_32x4d", 50, cardinality=32, base_width=4),
    _deep("resnext101_32x8d", 101, cardinality=32, base_width=8),
    _deep("resnext101_64x4d", 101, cardinality=64, base_width=4),
    # Zagoruyko and Komodakis 2016, arXiv 1605.07146: only the bottleneck is wider
    _deep("wide_resnet50_2", 50, base_width=128),
    _deep("wide_resnet101_2", 101, base_width=128),
    # Hu et al. 2018, arXiv 1709.01507
    *(_deep(f"seresnet{n}", n, channel_attention="se") for n in _DEPTHS),
    _deep("seresnext50_32x4d", 50, cardinality=32, base_width=4, channel_attention="se"),
    # Wu and He 2018, arXiv 1803.08494
    _deep("resnet50_gn", 50, norm="group"),
    # Zhang 2019, arXiv 1904.11486
    _deep("resnetblur50", 50, stem_pool="max-blur", blur=True),
    # He et al. 2016, arXiv 1603.05027
    *(_deep(f"resnetv2_{n}", n, order="pre") for n in _DEPTHS),
]

TIMM_NAMES = tuple(spec.name for spec in _AS_TIMM)
"""Names under which timm has the same network (equal logits, tested against timm itself)."""

_KERAS_V2: dict[str, Any] = {
    "order": "pre",
    "stem_pool": "max-zero",
    "shortcut": "conv-channels",
    "stride_block": "last",
    "conv_bias": True,
    "norm_eps": 1.001e-5,
}

_OWN = [
    *(_deep(f"resnet{n}_v1", n, bottleneck_stride="1x1") for n in _DEPTHS),
    # keras/src/applications/resnet_v2.py of keras-team/keras
    *(_deep(f"resnet{n}v2_keras", n, **_KERAS_V2) for n in _DEPTHS),
    # Srinivas et al. 2021, arXiv 2101.11605
    _deep("botnet50", 50, self_attention=1),
    # Our own, for small images: its trained weights come with plusx (weights/bundled/README.md).
    # Features of the last three stages: on tiles, edges and texture tell as much as objects do.
    ResNetSpec(
        "plusx_small",
        "basic",
        (1, 1, 2, 1),
        (32, 64, 128, 256),
        stem="3x3",
        stem_width=32,
        stem_stride=2,
        stem_pool="none",
        feature_stages=3,
        classes=8,
        image_size=64,
    ),
]

VARIANTS: dict[str, ResNetSpec] = {spec.name: spec for spec in (*_AS_TIMM, *_OWN)}

_OPTIONS: dict[str, ShortcutKind] = {"a": "zero-pad", "b": "conv", "c": "conv-all"}


def variant(name: str) -> ResNetSpec:
    """The spec of that name.

    Args:
        name: a key of ``VARIANTS``, ``resnet{6n+2}_cifar_{a|b|c}``, ``resnet{depth}_cifar_preact``,
            ``wrn{6n+4}_{k}``, or ``plain_`` and any of these.

    Raises:
        UsageError: there is no such variant; the text names the nearest ones.
    """
    if name.startswith("plain_plain_"):
        raise UsageError(f"model {name!r}: a plain network has no shortcuts to leave out again")
    if name.startswith("plain_"):
        return variant(name.removeprefix("plain_")).plain_twin()
    if name in VARIANTS:
        return VARIANTS[name]
    if found := re.fullmatch(r"resnet(\d{1,6})_cifar_preact", name):
        return cifar_preact(int(found[1]))
    if found := re.fullmatch(r"resnet(\d{1,6})_cifar(?:_([abc]))?", name):
        return cifar(int(found[1]), found[2] or "a")
    if found := re.fullmatch(r"wrn(\d{1,6})_(\d{1,4})", name):
        return wrn(int(found[1]), int(found[2]))
    near = get_close_matches(name, VARIANTS, n=3) or list(VARIANTS)
    raise UsageError(
        f"model {name!r} is unknown; did you mean {', '.join(near)}? "
        "CIFAR nets are named resnet20_cifar_a (any depth 6n+2, shortcut option a, b or c), "
        "resnet164_cifar_preact and wrn28_10, plain twins plain_resnet18, and a spec of your own "
        "is a .json file"
    )


def cifar(depth: int, option: str = "a") -> ResNetSpec:
    """The CIFAR net of He et al. 2015, section 4.2: three stages of n blocks, 16-32-64 channels.

    Args:
        depth: 6n + 2, for instance 20, 56, 110, 1202.
        option: the shortcut, ``a`` (zero padding, the paper's choice), ``b`` or ``c``.

    Raises:
        UsageError: the depth is not 6n + 2.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise UsageError(f"a CIFAR net has depth 6n + 2 (8, 14, 20, ...), not {depth}")
    return _small(
        f"resnet{depth}_cifar_{option}", (n, n, n), block="basic", shortcut=_OPTIONS[option]
    )


BOTTLENECKS_FROM = 164
"""The depth from which the pre-activation CIFAR nets of the paper have bottlenecks."""


def cifar_preact(depth: int) -> ResNetSpec:
    """The pre-activation CIFAR nets of He et al. 2016 (arXiv 1603.05027), section 4 and appendix.

    As in the paper, ResNet-110 (and what is shallower) has basic blocks and parameter-free
    shortcuts, 164 and 1001 have bottlenecks that project where the shape changes, with the stride
    on the first 1x1 (https://github.com/KaimingHe/resnet-1k-layers).

    Args:
        depth: 6n + 2 below 164, else 9n + 2.

    Raises:
        UsageError: the depth is neither.
    """
    basic = depth < BOTTLENECKS_FROM
    n, rest = divmod(depth - 2, 6 if basic else 9)
    if rest or n < 1:
        raise UsageError(
            f"a pre-activation CIFAR net has depth 6n + 2 below {BOTTLENECKS_FROM} (20, 56, 110) "
            f"and 9n + 2 from there on (164, 1001), not {depth}"
        )
    return _small(
        f"resnet{depth}_cifar_preact",
        (n, n, n),
        block="basic" if basic else "bottleneck",
        shortcut="zero-pad" if basic else "conv",
        bottleneck_stride="3x3" if basic else "1x1",
        order="pre",
    )


def wrn(depth: int, factor: int) -> ResNetSpec:
    """WRN-n-k of Zagoruyko and Komodakis 2016 (arXiv 1605.07146), table 1, without dropout.

    For the paper's dropout take ``wrn(28, 10).replace(dropout=0.3)``.

    Args:
        depth: n = 6N + 4, for instance 16, 28, 40.
        factor: k, how many times wider than 16-32-64 the stages are.

    Raises:
        UsageError: the depth is not 6N + 4, or the factor is 0.
    """
    n, rest = divmod(depth - 4, 6)
    if rest or n < 1:
        raise UsageError(f"a WRN has depth 6n + 4 (10, 16, 22, 28, ...), not {depth}")
    if factor < 1:
        raise UsageError(f"a WRN is at least 1 times as wide as 16-32-64, not {factor}")
    widths = (16 * factor, 32 * factor, 64 * factor)
    return _small(f"wrn{depth}_{factor}", (n, n, n), block="basic", order="pre", widths=widths)


def _small(name: str, depths: tuple[int, ...], **fields: Any) -> ResNetSpec:
    """A net for CIFAR's 32x32 pixels and ten classes."""
    usual: dict[str, Any] = {
        "widths": (16, 32, 64),
        "stem": "3x3",
        "stem_width": 16,
        "stem_stride": 1,
        "stem_pool": "none",
        "classes": 10,
        "image_size": 32,
    }
    return ResNetSpec(name, depths=depths, **usual | fields)
