"""What a tar file of images holds: every image's place in it, and what its neighbours say of it.

A shard, as WebDataset lays it out, names what belongs together by one key: ``KEY.jpg`` with
``KEY.cls`` or ``KEY.json``. Headers are read by Python's own ``tarfile``, contents of ``.cls`` and
``.json`` alone as text; nothing is unpickled, run or unpacked to a file.
"""

from __future__ import annotations

import json
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from plusx.data.reading import EXTENSIONS
from plusx.errors import DataError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.xz", ".txz", ".tar.zst")
_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_BLOCK = 512
_MOST = {"cls": 4096, "json": 2**20}
"""Bytes of a member that is read whole."""


@dataclass(frozen=True, slots=True)
class TarImage:
    """One image in a tar file.

    Attributes:
        name: of its member.
        start: where its bytes begin in the tar file.
        size: how many they are.
        cls: the text of ``KEY.cls``.
        label: ``label`` of ``KEY.json``, as JSON.
        split: its ``split``.
        group: its ``group``.
    """

    name: str
    start: int
    size: int
    cls: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass
class _Key:
    images: list[TarImage] = field(default_factory=list)
    cls: str | None = None
    said: dict[str, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def at(tar: str, member: str) -> str:
    """A member as errors name it."""
    return f"{tar}: member {member!r}"


def read_tar(tar: str) -> tuple[list[TarImage], int]:
    """The images of a tar file in the order of their names, and how many keys have none.

    Args:
        tar: an uncompressed tar file.

    Raises:
        DataError: it is compressed, cut off or damaged; a member is there twice; a key has two
            images; or a ``.cls`` or ``.json`` says nothing that can be understood.
        OSError: it cannot be read.
    """
    if not stat.S_ISREG(os.stat(tar).st_mode):  # noqa: PTH116 (a name like others here)
        raise DataError(f"{tar}: is no file")  # opening a pipe would wait for ever
    keys: dict[str, _Key] = {}
    with open(tar, "rb") as file:
        for member in _members(tar, file):
            _take(tar, file, member, keys)
    found: list[TarImage] = []
    for one in keys.values():
        if len(one.images) > 1:
            first, second = (image.name for image in one.images[:2])
            raise DataError(f"{at(tar, second)}: has the key of {first!r}; give each image a key "
                            "of its own, the name up to its first dot")  # fmt: skip
        found += (_with_words(tar, image, one) for image in one.images)
    ignored = sum(not one.images for one in keys.values())
    return sorted(found, key=lambda image: image.name), ignored


def _members(tar: str, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Every member that is a file, checked to lie within the tar file."""
    if file.read(6).startswith(_STARTS):
        raise DataError(
            f"{tar}: is compressed, so no image can be read in place; unpack it to a plain .tar"
        )
    size = file.seek(0, 2)
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (file is the caller's)
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep them all
            end = member.offset_data + member.size
            if member.size < 0 or archive.offset <= member.offset:
                raise DataError(f"{at(tar, member.name)}: its header is damaged; {_AGAIN}")
            if end > size:
                raise DataError(f"{at(tar, member.name)}: is cut off: the tar file ends at byte "
                                f"{size:,} of {end:,}; {_AGAIN}")  # fmt: skip
            if member.issparse():
                raise DataError(f"{at(tar, member.name)}: is stored as a sparse file, which cannot "
                                "be read in place; pack it without --sparse")  # fmt: skip
            if member.isreg():
                yield member
        _check_end(tar, file, archive.offset)
    except (tarfile.TarError, ValueError, EOFError) as error:
        said = " ".join(str(error).split())[:100]
        raise DataError(f"{tar}: is no tar file that can be read ({said}); {_AGAIN}") from error


_AGAIN = "copy it or write it again"


def _check_end(tar: str, file: BinaryIO, offset: int) -> None:
    """``tarfile`` takes a damaged or missing header for the end; the real one is a block of 0."""
    file.seek(offset)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise DataError(f"{tar}: is cut off: it has no end mark; {_AGAIN}")
    if any(block):
        raise DataError(f"{tar}: is damaged at byte {offset:,}; {_AGAIN}")


def _take(tar: str, file: BinaryIO, member: tarfile.TarInfo, keys: dict[str, _Key]) -> None:
    name = member.name.removeprefix("./")
    folder, base = posixpath.split(name)
    if any(part.startswith((".", "__")) for part in name.split("/")):
        return  # hidden, or what WebDataset and macOS keep for themselves
    stem, _, kind = base.partition(".")
    kind = kind.lower()
    key = keys.setdefault(posixpath.join(folder, stem), _Key())
    if name in key.names:
        raise DataError(f"{at(tar, name)}: is there twice; keep one of the two")
    if f".{kind}" in EXTENSIONS:
        key.names.add(name)
        key.images.append(TarImage(name, member.offset_data, member.size))
    elif kind in _MOST:
        key.names.add(name)
        text = _text(tar, name, file, member)
        if kind == "cls":
            key.cls = text
        else:
            key.said = _object(tar, name, text)


def _text(tar: str, name: str, file: BinaryIO, member: tarfile.TarInfo) -> str:
    kind = name.rpartition(".")[2].lower()
    if member.size > _MOST[kind]:
        raise DataError(f"{at(tar, name)}: has {member.size:,} bytes, more than a label needs")
    file.seek(member.offset_data)
    try:
        return file.read(member.size).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{at(tar, name)}: is not UTF-8 text") from error


def _object(tar: str, name: str, text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{at(tar, name)}: is not valid JSON ({error})") from error
    if not isinstance(said, dict):
        raise DataError(f'{at(tar, name)}: holds {text[:40]!r}, not an object {{"label": ...}}')
    return said


def _with_words(tar: str, image: TarImage, key: _Key) -> TarImage:
    said = key.said
    texts: dict[str, str | None] = {}
    for name in ("split", "group"):
        value = said.get(name)
        if value is not None and not (isinstance(value, str | int) and str(value).strip()):
            raise DataError(f"{at(tar, image.name)}: its {name} {value!r} is no text; mend its "
                            ".json")  # fmt: skip
        texts[name] = None if value is None else str(value).strip()
    label = json.dumps(said["label"]) if "label" in said else None
    return TarImage(image.name, image.start, image.size, key.cls, label, **texts)
