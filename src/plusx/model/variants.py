"""One plain table: name -> ResNetSpec.

``resnet50`` and its kin are v1.5 (stride on the 3x3), which is what torchvision, timm and nearly
all trained weights are; ``resnet50_v1`` is the paper's own layout. ``resnet18`` and ``resnet34``
have no bottleneck, so the two versions coincide. CIFAR nets of any depth 6n + 2 are named
``resnet56_cifar_a`` (options ``_a``, ``_b``, ``_c`` for the shortcut; section 4.2 of He et al.
2015). ``plain_NAME`` is the same network without shortcuts.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from plusx.errors import UsageError
from plusx.model.spec import ResNetSpec, ShortcutKind

_FOUR = (64, 128, 256, 512)
_DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

_SPECS = [
    ResNetSpec("resnet18", "basic", (2, 2, 2, 2), _FOUR),
    ResNetSpec("resnet34", "basic", (3, 4, 6, 3), _FOUR),
    *(ResNetSpec(f"resnet{n}", "bottleneck", depths, _FOUR) for n, depths in _DEPTHS.items()),
    *(
        ResNetSpec(f"resnet{n}_v1", "bottleneck", depths, _FOUR, bottleneck_stride="1x1")
        for n, depths in _DEPTHS.items()
    ),
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

VARIANTS: dict[str, ResNetSpec] = {spec.name: spec for spec in _SPECS}

_OPTIONS: dict[str, ShortcutKind] = {"a": "zero-pad", "b": "conv", "c": "conv-all"}


def variant(name: str) -> ResNetSpec:
    """The spec of that name.

    Args:
        name: a key of ``VARIANTS``, ``resnet{6n+2}_cifar_{a|b|c}``, or ``plain_`` and either.

    Raises:
        UsageError: there is no such variant; the text names the nearest ones.
    """
    if name.startswith("plain_"):
        return variant(name.removeprefix("plain_")).plain_twin()
    if name in VARIANTS:
        return VARIANTS[name]
    if found := re.fullmatch(r"resnet(\d+)_cifar(?:_([abc]))?", name):
        return cifar(int(found[1]), found[2] or "a")
    near = get_close_matches(name, VARIANTS, n=3) or list(VARIANTS)
    raise UsageError(
        f"model {name!r} is unknown; did you mean {', '.join(near)}? "
        "CIFAR nets are named resnet20_cifar_a (any depth 6n+2, shortcut option a, b or c), "
        "plain twins plain_resnet18, and a spec of your own is a .json file"
    )


def cifar(depth: int, option: str = "a") -> ResNetSpec:
    """The CIFAR net of He et al. 2015, section 4.2: three stages of n blocks, 16-32-64 channels.

    Args:
        depth: 6n + 2, for instance 20, 56, 110.
        option: the shortcut, ``a`` (zero padding, the paper's choice), ``b`` or ``c``.

    Raises:
        UsageError: the depth is not 6n + 2.
    """
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise UsageError(f"a CIFAR net has depth 6n + 2 (8, 14, 20, ...), not {depth}")
    return ResNetSpec(
        f"resnet{depth}_cifar_{option}",
        "basic",
        (n, n, n),
        (16, 32, 64),
        stem="3x3",
        stem_width=16,
        stem_stride=1,
        stem_pool="none",
        shortcut=_OPTIONS[option],
        classes=10,
        image_size=32,
    )
