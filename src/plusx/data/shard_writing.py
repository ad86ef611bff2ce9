"""Writing one shard: images as they are, each with its label, in a tar file.

Written by the library webdataset (BSD-3-Clause), so that whatever reads its shards reads these. It
gets finished bytes alone: none of its encoders, which would compress pixels anew or pickle, runs.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from plusx.atomic import replacing
from plusx.data.classes import SPLIT_NAMES
from plusx.data.dicom import is_dicom
from plusx.data.heic import is_heic
from plusx.data.reading import EXTENSIONS
from plusx.data.records import Listing, Sample
from plusx.data.split import relative_name
from plusx.data.tar_index import MARK
from plusx.errors import MissingExtra

_BLOCK = 512
_LONGEST = 90
"""Bytes of a key: with an extension it fits a plain tar header."""
_USUAL = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg"}
"""Extension -> what others that read shards look for."""
_KINDS = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"RIFF": "webp",
          b"II*\x00": "tif", b"MM\x00*": "tif"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """An image on its way into a shard.

    Attributes:
        key: names it and what belongs to it.
        parts: extension -> bytes.
        next: position, in the order of writing, of what comes after it.
    """

    key: str
    parts: dict[str, bytes]
    next: int

    @property
    def bytes(self) -> int:
        """That it takes in a tar file."""
        return sum(_BLOCK * (1 + -(-len(part) // _BLOCK)) for part in self.parts.values())


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        name: of its file.
        split: of its images; None where the data say nothing.
        images: how many.
        bytes: of the file.
        sha256: of the file.
        next: position, in the order of writing, of the first image that comes after it.
    """

    name: str
    split: str | None
    images: int
    bytes: int
    sha256: str
    next: int


def check_library() -> None:
    """Whether shards can be written.

    Raises:
        MissingExtra: webdataset is absent.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise MissingExtra("plusx shards", "shards") from error


def member_keys(listing: Listing) -> list[str]:
    """A key for each image: its path relative to the data's folder, less its extension and a
    leading split, in characters that mean nothing to those who read shards; no two alike."""
    taken: set[str] = set()
    keys = []
    for sample in listing.samples:
        name = relative_name(listing, sample).rpartition(MARK)[2]
        key = _key(name, sample.split)
        if key in taken or len(key.encode("utf-8", "replace")) > _LONGEST:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
            key = f"{posixpath.basename(key)[:20]}-{digest}"
        taken.add(key)
        keys.append(key)
    return keys


def _key(name: str, split: str | None) -> str:
    folder, base = posixpath.split(name.encode("utf-8", "replace").decode())
    parts = [part for part in folder.split("/") if part not in ("", ".", "..")]
    if parts and split is not None and SPLIT_NAMES.get(parts[0].lower()) == split:
        del parts[0]
    stem, dot, kind = base.rpartition(".")
    if not dot or f".{kind.lower()}" not in EXTENSIONS:
        stem = base
    parts.append(stem.replace(".", "_"))
    # a leading dot hides a name, and a leading __ is WebDataset's own
    return "/".join(f"_{part.lstrip('._')}" if part[0] in "._" else part for part in parts)


def make_member(
    listing: Listing, sample: Sample, key: str, content: bytes, *, next_at: int
) -> Member:
    """An image with what is known of it.

    ``cls`` holds the class's number, as others that read shards expect; ``json`` says what a
    number cannot: several labels, a group, or a name that the key does not tell.
    """
    said: dict[str, Any] = {}
    parts = {_extension(sample.path, content): content}
    names = [listing.classes[k] for k in sample.targets]
    if listing.task == "multi":
        said["label"] = names
    else:
        parts["cls"] = str(sample.targets[0]).encode("ascii")
        said["label"] = names[0]
    if sample.group is not None:
        said["group"] = sample.group
    name = relative_name(listing, sample).rpartition(MARK)[2]
    if _key(name, sample.split) != key:
        said["name"] = name
    if len(said) > 1 or listing.task == "multi":
        parts["json"] = json.dumps(said).encode("ascii")
    return Member(key, parts, next_at)


def _extension(path: str, content: bytes) -> str:
    kind = path.rpartition(".")[2].lower()
    if f".{kind}" in EXTENSIONS:
        return _USUAL.get(kind, kind)
    if is_dicom(content):
        return "dcm"
    if is_heic(content):
        return "heic"
    return next((kind for start, kind in _KINDS.items() if content.startswith(start)), "jpg")


def write_shard(path: Path, members: Iterable[Member], done: Callable[[Member], None]) -> Shard:
    """Write members to a tar file, which is there once it is whole.

    Args:
        path: of the file; the same members give the same bytes.
        members: at least one.
        done: told of each.

    Raises:
        OSError: it cannot be written.
    """
    from webdataset import TarWriter

    images, after = 0, 0
    with replacing(path, durable=True) as beside, beside.open("wb") as file:
        hashed = _Hashed(file)
        writer = TarWriter(
            hashed, user="", group="", mode=0o644, compress=False, encoder=False, mtime=0.0
        )
        for member in members:
            writer.write({"__key__": member.key, **member.parts})
            images, after = images + 1, member.next
            done(member)
        writer.close()
    return Shard(path.name, None, images, hashed.count, hashed.digest.hexdigest(), after)


class _Hashed:
    """Takes bytes for a file, and knows what they were."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.count += len(data)
        return self._file.write(data)


def file_sha256(path: Path, tick: Callable[[int], None] = lambda n: None) -> str:
    """Of a file's content, read in pieces.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            tick(len(piece))
    return digest.hexdigest()


def shard_name(split: str | None, number: int) -> str:
    """``train-000000.tar``; ``images-…`` where the data name no split."""
    return f"{split or 'images'}-{number:06}.tar"


def orders(listing: Listing, seed: int) -> dict[str | None, Sequence[int]]:
    """Split -> positions of its images in the order of writing: shuffled, the same each time."""
    import numpy as np

    found: dict[str | None, Sequence[int]] = {}
    for number, split in enumerate(("train", "val", "test", None)):
        mine = np.array([i for i, s in enumerate(listing.samples) if s.split == split], np.int64)
        if len(mine):
            found[split] = np.random.default_rng([seed, number]).permutation(mine).tolist()
    return found
