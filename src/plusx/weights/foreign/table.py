"""What a tongue declares: where the backbone stands, how it is named, what else may be there.

A pair of names is one module inside plusx and the same module there. ``{S}``, ``{B}`` and ``{K}``
stand for the stage, the block and the place in the branch, counted as inside plusx (stage and block
from 0, place from 1); ``{S+2}`` is written two higher.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal

from plusx.model.spec_check import StrideSite

Pairs = tuple[tuple[str, str], ...]
Pixels = Literal["imagenet", "caffe-bgr"]

_PLACE = re.compile(r"\{([SBK])([+-]\d+)?\}")


@dataclass(frozen=True)
class Layout:
    """One tongue.

    Attributes:
        name: what ``--layout`` calls it.
        marks: a file is of this tongue where each of these regular expressions begins some key.
        prefixes: what stands before the backbone's keys; the first that any key has.
        table: the backbone's modules after the prefix. Torchvision's and timm's names are known
            besides, where ``torchvision`` says so.
        outside: modules of the network that stand elsewhere, under their full names.
        torchvision: whether the backbone may have torchvision's names.
        dropped: patterns (``*``) of the keys that are no part of the backbone.
        stride: which convolution of a bottleneck strides; None where both kinds exist and the
            file does not say.
        pixels: what the network saw; None where both kinds exist and the file does not say.
        what: what the dropped entries are, for the note.
    """

    name: str
    marks: tuple[str, ...]
    prefixes: tuple[str, ...]
    table: Pairs = ()
    outside: Pairs = ()
    torchvision: bool = False
    dropped: tuple[str, ...] = ()
    stride: StrideSite | None = None
    pixels: Pixels | None = None
    what: str = "other parts"

    def recognises(self, keys: list[str]) -> bool:
        """Whether keys without wrappers' prefixes are of this tongue."""
        return all(any(re.match(mark, key) for key in keys) for mark in self.marks)

    def drops(self, key: str) -> bool:
        """Whether the key is declared to be no part of the backbone."""
        return any(fnmatchcase(key, pattern) for pattern in self.dropped)


def to_internal(module: str, pairs: Pairs) -> str | None:
    """A foreign module's name inside plusx; None where the table lacks it.

    >>> to_internal("res3.0.conv2", (("stages.{S}.{B}.residual.conv{K}", "res{S+2}.{B}.conv{K}"),))
    'stages.1.0.residual.conv2'
    """
    for ours, theirs in pairs:
        found = _pattern(theirs).fullmatch(module)
        if found:
            return _write(
                ours, {k: int(v) - _shift(theirs, k) for k, v in found.groupdict().items()}
            )
    return None


def to_foreign(module: str, pairs: Pairs) -> str | None:
    """The reverse of ``to_internal``."""
    for ours, theirs in pairs:
        found = _pattern(ours).fullmatch(module)
        if found:
            return _write(theirs, {k: int(v) for k, v in found.groupdict().items()})
    return None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    parts, last = [], 0
    for place in _PLACE.finditer(template):
        parts += [re.escape(template[last : place.start()]), rf"(?P<{place[1]}>\d+)"]
        last = place.end()
    return re.compile("".join(parts) + re.escape(template[last:]))


def _shift(template: str, letter: str) -> int:
    return next(int(p[2] or 0) for p in _PLACE.finditer(template) if p[1] == letter)


def _write(template: str, numbers: dict[str, int]) -> str:
    return _PLACE.sub(lambda place: str(numbers[place[1]] + int(place[2] or 0)), template)
