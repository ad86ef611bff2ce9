"""Which tar files a name stands for, and what the files beside them say of them."""

# Paths are plain strings here, as they are in listings.
# ruff: noqa: PTH110, PTH112, PTH118, PTH119, PTH120, PTH202, PTH207, PTH208

from __future__ import annotations

import glob
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plusx.data.folder import is_image_name
from plusx.data.tar_reading import COMPRESSED
from plusx.errors import DataError

INDEX = "index.json"
"""Beside the shards that ``plusx shards`` wrote: classes, and what each shard has to hold."""
UNFINISHED = "unfinished.json"
"""The same while they are being written."""
FORMAT = "plusx_shards"
"""The key of either file that says of which version it is."""
VERSION = 1

MOST_SHARDS = 100_000
"""Names that one pattern may stand for."""

_REMOTE = re.compile(r"(pipe:|[A-Za-z][A-Za-z0-9+.-]+://)")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def is_shards(where: str) -> bool:
    """Whether this is a tar file, a pattern for some (``train-{000..010}.tar``), or a folder that
    holds tar files and neither folders nor images."""
    if not os.path.isdir(where):
        return where.lower().endswith((".tar", *COMPRESSED))
    found = False
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir() or is_image_name(entry.name):
                    return False
                found = found or entry.name.lower().endswith((".tar", *COMPRESSED))
    except OSError:
        return False
    return found


def tar_files(source: str) -> list[str]:
    """The tar files that a name, a folder or a pattern stands for, sorted.

    Raises:
        DataError: there are none, they are compressed, or not on a disk.
    """
    if _REMOTE.match(source):
        raise DataError(f"{source}: shards are read from local disks, and nothing is run or "
                        "fetched; download them and name the files")  # fmt: skip
    if os.path.isdir(source):
        try:
            inside = sorted(name for name in os.listdir(source) if not name.startswith("."))
        except OSError as error:
            raise DataError(f"{source}: cannot be read ({error.strerror})") from error
        kinds = (".tar", *COMPRESSED)
        tars = [os.path.join(source, name) for name in inside if name.lower().endswith(kinds)]
    elif os.path.exists(source):
        tars = [source]
    else:
        tars = [tar for one in _braces(source) for tar in _existing(one, source)]
    for tar in tars:
        if tar.lower().endswith(COMPRESSED):
            raise DataError(f"{tar}: is compressed, so no image can be read in place; unpack it to "
                            "a plain .tar")  # fmt: skip
    return sorted(dict.fromkeys(tars))


def _existing(pattern: str, source: str) -> list[str]:
    found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    if not found or not os.path.exists(found[0]):
        of = "" if pattern == source else f" (named by {source})"
        raise DataError(f"{pattern}: does not exist{of}; name tar files, or a folder of them")
    return found


def _braces(pattern: str) -> list[str]:
    """``a-{00..10}.tar`` and ``{train,val}.tar`` as shells read them."""
    choices: list[list[str]] = []
    count = 1
    for i, part in enumerate(_BRACES.split(pattern)):
        choices.append([part] if i % 2 == 0 else _choices(part, pattern))
        count *= len(choices[-1])
        if count > MOST_SHARDS:
            raise DataError(f"{pattern}: stands for more than {MOST_SHARDS:,} shards")
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> list[str]:
    span = _RANGE.fullmatch(inside)
    if span is None:
        return inside.split(",") if "," in inside else [f"{{{inside}}}"]
    first, last = int(span[1]), int(span[2])
    if last < first or last - first >= MOST_SHARDS:
        raise DataError(f"{pattern}: {{{inside}}} must rise, to at most {MOST_SHARDS:,} shards")
    width = len(span[1]) if span[1].startswith("0") else 1
    return [f"{number:0{width}}" for number in range(first, last + 1)]


@dataclass(frozen=True)
class Beside:
    """What a folder says of the shards in it.

    Attributes:
        classes: their names by number; None where nothing names them.
        sizes: bytes of each shard, where ``plusx shards`` wrote them.
    """

    classes: tuple[str, ...] | None = None
    sizes: dict[str, int] | None = None

    @classmethod
    def of(cls, folder: str) -> Beside:
        """Read it.

        Raises:
            DataError: a file is damaged, or the shards are not finished.
        """
        if os.path.exists(os.path.join(folder, UNFINISHED)):
            raise DataError(
                f"{folder or '.'}: plusx shards has not finished it; run the same command again"
            )
        index = _json(os.path.join(folder, INDEX))
        if isinstance(index, dict) and index.get(FORMAT) == VERSION:
            try:
                sizes = {str(one["name"]): int(one["bytes"]) for one in index["shards"]}
                return cls(tuple(map(str, index["classes"])), sizes)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{os.path.join(folder, INDEX)}: is damaged; write the shards "
                                "again") from error  # fmt: skip
        listed = os.path.join(folder, "classes.txt")
        if os.path.exists(listed):
            return cls(_names(_text(listed).splitlines(), listed))
        about = os.path.join(folder, "dataset.json")
        said = _json(about)
        if isinstance(said, dict) and isinstance(said.get("classes"), list):
            return cls(_names(said["classes"], about))
        return cls()

    def check(self, folder: str, tars: Sequence[str], *, whole: bool) -> None:
        """Whether the shards are those that were written.

        Raises:
            DataError: one was changed, and with ``whole`` also where one is missing or new.
        """
        if self.sizes is None:
            return
        here = [os.path.basename(tar) for tar in tars if os.path.dirname(tar) == folder]
        index = os.path.join(folder, INDEX)
        for name in here:
            if name not in self.sizes:
                raise DataError(f"{os.path.join(folder, name)}: is not named in {index}; take it "
                                f"away, or remove {INDEX}")  # fmt: skip
            size = os.path.getsize(os.path.join(folder, name))
            if size != self.sizes[name]:
                raise DataError(
                    f"{os.path.join(folder, name)}: has {size:,} bytes, not the "
                    f"{self.sizes[name]:,} that it was written with; copy it or write it again"
                )
        gone = sorted(set(self.sizes) - set(here)) if whole else []
        if gone:
            raise DataError(f"{folder}: shard {gone[0]} is missing; {index} names it")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _json(path: str) -> Any:
    if not os.path.exists(path):
        return None
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not valid JSON ({error})") from error


def _names(lines: Sequence[Any], where: str) -> tuple[str, ...]:
    names = tuple(str(line).strip() for line in lines)
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"{where}: a class is named twice, or a line is empty")
    return names
