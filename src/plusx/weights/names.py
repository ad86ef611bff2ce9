"""Parameter names: declared tables, one per tongue, pure strings.

Inside, names are readable (``stages.0.1.residual.conv1.weight``). On disk they are torchvision's
(``layer1.1.conv1.weight``) for every post-activation net, which timm shares, and timm's
(``stages.0.blocks.1.conv1.weight``) for pre-activation. Which tongue a network is written in
follows from its spec: ``tongue_for``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from plusx.errors import WeightsMismatch

Table = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tongue:
    """How a family of networks is named on disk.

    Attributes:
        table: (internal module, module on disk); what is written, and read. S is the stage, B the
            block, K the place in the branch, * any one part of a name.
        first_stage: what the stages on disk are counted from; inside it is 0.
        also_read: further names on disk, from those who differ.
        linear_head: whether the head's weight is stored (classes, features), or as a 1x1
            convolution, (classes, features, 1, 1).
    """

    table: Table
    first_stage: int
    also_read: Table = ()
    linear_head: bool = True


_POST: Table = (
    ("stem.norm", "bn1"),
    ("stages.S.B.residual.convK", "layerS.B.convK"),
    ("stages.S.B.residual.convK.*", "layerS.B.convK.*"),
    ("stages.S.B.residual.normK", "layerS.B.bnK"),
    ("stages.S.B.residual.attention.*", "layerS.B.se.*"),
    ("head.fc", "fc"),
)
_SINGLE: Table = (("stem.conv", "conv1"),)
_DEEP: Table = (
    ("stem.start.conv1", "conv1.0"),
    ("stem.start.norm1", "conv1.1"),
    ("stem.start.conv2", "conv1.3"),
    ("stem.start.norm2", "conv1.4"),
    ("stem.conv", "conv1.6"),
)
_CONV: Table = (
    ("stages.S.B.shortcut.conv", "layerS.B.downsample.0"),
    ("stages.S.B.shortcut.norm", "layerS.B.downsample.1"),
)
_AVERAGED: Table = (
    ("stages.S.B.shortcut.conv", "layerS.B.downsample.1"),
    ("stages.S.B.shortcut.norm", "layerS.B.downsample.2"),
)
# Where the CIFAR nets of akamaster/pytorch_resnet_cifar10 and kuangliu/pytorch-cifar differ.
_CIFAR: Table = (
    ("head.fc", "linear"),
    ("stages.S.B.shortcut.conv", "layerS.B.shortcut.0"),
    ("stages.S.B.shortcut.norm", "layerS.B.shortcut.1"),
)
# In timm's pre-activation nets a norm has the number of the convolution after it.
_PRE: Table = (
    ("stages.S.B.preact.norm", "stages.S.blocks.B.norm1"),
    ("stages.S.B.residual.norm1", "stages.S.blocks.B.norm2"),
    ("stages.S.B.residual.norm2", "stages.S.blocks.B.norm3"),
    ("stages.S.B.residual.convK", "stages.S.blocks.B.convK"),
    ("stages.S.B.residual.convK.*", "stages.S.blocks.B.convK.*"),
    ("stages.S.B.residual.attention.*", "stages.S.blocks.B.se.*"),
    ("stages.S.B.shortcut.conv", "stages.S.blocks.B.downsample.conv"),
    ("norm.norm", "norm"),
    ("head.fc", "head.fc"),
)

_PRE_DEEP: Table = (
    ("stem.start.conv1", "stem.conv1"),
    ("stem.start.norm1", "stem.norm1"),
    ("stem.start.conv2", "stem.conv2"),
    ("stem.start.norm2", "stem.norm2"),
    ("stem.conv", "stem.conv3"),
)

TONGUES: dict[str, Tongue] = {
    "post": Tongue(_SINGLE + _POST + _CONV, 1, _CIFAR),
    "post-averaged": Tongue(_SINGLE + _POST + _AVERAGED, 1),
    "post-deep": Tongue(_DEEP + _POST + _CONV, 1),
    "post-deep-averaged": Tongue(_DEEP + _POST + _AVERAGED, 1),
    "pre": Tongue((("stem.conv", "stem.conv"), *_PRE), 0, linear_head=False),
    "pre-deep": Tongue(_PRE_DEEP + _PRE, 0, linear_head=False),
}
"""``post...``: torchvision's names, and timm's where torchvision has no such net. ``pre...``:
timm's (``timm/models/resnetv2.py``)."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DistributedDataParallel, torch.compile and training frameworks put before every name."""

OPTIONAL = "num_batches_tracked"
"""The one entry a file may lack: a counter that evaluation never reads."""


def tongue_for(order: str, stem: str, shortcut: str) -> str:
    """The tongue of a residual network with these fields of its spec: a key of ``TONGUES``."""
    words = [order, "deep" if stem == "deep" else ""]
    words += ["averaged" if (order, shortcut) == ("post", "avg-conv") else ""]
    return "-".join(filter(None, words))


def disk_name(name: str, tongue: str = "post") -> str:
    """An internal parameter or buffer name as it is written.

    >>> disk_name("stages.0.1.residual.norm2.weight")
    'layer1.1.bn2.weight'
    >>> disk_name("stages.0.1.residual.norm2.weight", "pre")
    'stages.0.blocks.1.norm3.weight'
    """
    found = _written(name, TONGUES[tongue])
    if found is None:
        raise KeyError(name)
    return found


def internal_name(key: str, tongue: str = "post") -> str | None:
    """The internal name of a key in that tongue, or plusx's own; None where there is none.

    >>> internal_name("layer1.1.bn2.weight"), internal_name("linear.bias")
    ('stages.0.1.residual.norm2.weight', 'head.fc.bias')
    """
    spoken = TONGUES[tongue]
    table = tuple((theirs, ours) for ours, theirs in spoken.table + spoken.also_read)
    found = _translate(key, table, shift=-spoken.first_stage)
    own = tuple((ours, ours) for ours, _ in spoken.table)
    return found if found is not None else _translate(key, own, shift=0)


def strip_prefixes(keys: Iterable[str]) -> dict[str, str]:
    """Each key -> itself without the wrappers' prefixes that all of them share."""
    names = {key: key for key in keys}
    while names:
        shared = [p for p in PREFIXES if all(name.startswith(p) for name in names.values())]
        if not shared:
            break
        names = {key: name[len(shared[0]) :] for key, name in names.items()}
    return names


def nearest_tongue(keys: Iterable[str]) -> str:
    """The tongue that knows the most of the keys; the first of ``TONGUES`` among equals."""
    names = list(strip_prefixes(keys).values())
    best, known = next(iter(TONGUES)), -1
    for tongue in TONGUES:
        knows = sum(internal_name(name, tongue) is not None for name in names)
        if knows > known:
            best, known = tongue, knows
        if knows == len(names):
            break
    return best


def to_internal(keys: Iterable[str], tongue: str | None = None) -> dict[str, str]:
    """Each incoming key -> its internal name; a key nobody knows keeps its own (stripped) name.

    Args:
        keys: in that tongue or plusx's own, with or without wrappers' prefixes.
        tongue: a key of ``TONGUES``; None takes the nearest.

    Raises:
        WeightsMismatch: two keys mean the same parameter.
    """
    keys = list(keys)
    tongue = nearest_tongue(keys) if tongue is None else tongue
    stripped = strip_prefixes(keys)
    names = {key: internal_name(name, tongue) or name for key, name in stripped.items()}
    taken: dict[str, str] = {}
    for key, name in names.items():
        if name in taken:
            raise WeightsMismatch(
                f"{taken[name]!r} and {key!r} both name the parameter "
                f"{disk_or_own(name, tongue)!r}; keep one of them in the file"
            )
        taken[name] = key
    return names


def disk_or_own(name: str, tongue: str = "post") -> str:
    """How messages write an internal name: as on disk where it has a name there, else as it is."""
    return _written(name, TONGUES[tongue]) or name


def _written(name: str, tongue: Tongue) -> str | None:
    return _translate(name, tongue.table, shift=tongue.first_stage)


def _translate(name: str, table: Iterable[tuple[str, str]], *, shift: int) -> str | None:
    module, dot, leaf = name.rpartition(".")
    for source, target in table:
        if dot and (found := _pattern(source).fullmatch(module)):
            for place, part in found.groupdict().items():
                written = str(int(part) + shift) if place == "S" else part
                target = target.replace("*" if place == "rest" else place, written)
            return f"{target}.{leaf}"
    return None


@lru_cache(maxsize=256)
def _pattern(template: str) -> re.Pattern[str]:
    numbered = re.sub("[SBK]", lambda place: rf"(?P<{place[0]}>\d+)", re.escape(template))
    return re.compile(numbered.replace(r"\*", r"(?P<rest>\w+)"))
