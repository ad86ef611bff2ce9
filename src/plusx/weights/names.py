"""Parameter names: one declared table, pure strings.

Inside, names are readable (``stages.0.1.residual.conv1.weight``); on disk they are torchvision's
(``layer1.1.conv1.weight``), which timm shares for every post-activation net.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from plusx.errors import WeightsMismatch

# S is the stage (counted from 0 inside, from 1 on disk), B the block, K the place in the branch.
DISK = (
    ("stem.conv", "conv1"),
    ("stem.norm", "bn1"),
    ("stages.S.B.residual.convK", "layerS.B.convK"),
    ("stages.S.B.residual.normK", "layerS.B.bnK"),
    ("stages.S.B.shortcut.conv", "layerS.B.downsample.0"),
    ("stages.S.B.shortcut.norm", "layerS.B.downsample.1"),
    ("head.fc", "fc"),
)
"""What is written, and the first thing that is read: internal module, torchvision's and timm's."""

ALSO_READ = (
    ("head.fc", "linear"),
    ("stages.S.B.shortcut.conv", "layerS.B.shortcut.0"),
    ("stages.S.B.shortcut.norm", "layerS.B.shortcut.1"),
)
"""Where the CIFAR nets of akamaster/pytorch_resnet_cifar10 and kuangliu/pytorch-cifar differ."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DistributedDataParallel, torch.compile and training frameworks put before every name."""

OPTIONAL = "num_batches_tracked"
"""The one entry a file may lack: a counter that evaluation never reads."""


def disk_name(name: str) -> str:
    """An internal parameter or buffer name in torchvision's tongue.

    >>> disk_name("stages.0.1.residual.norm2.weight")
    'layer1.1.bn2.weight'
    """
    found = _translate(name, DISK, shift=1)
    if found is None:
        raise KeyError(name)
    return found


def internal_name(key: str) -> str | None:
    """The internal name of a key in any known tongue; None where there is none.

    >>> internal_name("layer1.1.bn2.weight"), internal_name("linear.bias")
    ('stages.0.1.residual.norm2.weight', 'head.fc.bias')
    """
    table = tuple((theirs, ours) for ours, theirs in DISK + ALSO_READ)
    found = _translate(key, table, shift=-1)
    own = tuple((ours, ours) for ours, _ in DISK)
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


def to_internal(keys: Iterable[str]) -> dict[str, str]:
    """Each incoming key -> its internal name; a key nobody knows keeps its own (stripped) name.

    Recognised are torchvision's and timm's names, plusx's own, and those of the CIFAR nets in
    ``ALSO_READ``, all with or without wrappers' prefixes.

    Raises:
        WeightsMismatch: two keys mean the same parameter.
    """
    names = {key: internal_name(name) or name for key, name in strip_prefixes(keys).items()}
    taken: dict[str, str] = {}
    for key, name in names.items():
        if name in taken:
            raise WeightsMismatch(
                f"{taken[name]!r} and {key!r} both name the parameter {disk_or_own(name)!r}; "
                "keep one of them in the file"
            )
        taken[name] = key
    return names


def disk_or_own(name: str) -> str:
    """How messages write an internal name: torchvision's where it has one, else as it is."""
    return _translate(name, DISK, shift=1) or name


def _translate(name: str, table: Iterable[tuple[str, str]], *, shift: int) -> str | None:
    module, dot, leaf = name.rpartition(".")
    for source, target in table:
        if dot and (found := re.fullmatch(_pattern(source), module)):
            for place, number in found.groupdict().items():
                written = int(number) + (shift if place == "S" else 0)
                target = target.replace(place, str(written))
            return f"{target}.{leaf}"
    return None


def _pattern(template: str) -> str:
    return re.sub("[SBK]", lambda place: rf"(?P<{place[0]}>\d+)", re.escape(template))
