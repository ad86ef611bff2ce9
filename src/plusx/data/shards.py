"""Shards: images with their labels in tar files, as WebDataset lays them out.

The tar files stay as they are, and each image is read at its place in one of them (see
:mod:`plusx.data.tar_index`); to all else that reads images it is a file like others.
"""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH112, PTH119, PTH120

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from plusx.data.classes import SEPARATOR, SPLIT_NAMES, Label, assemble, quoted
from plusx.data.records import Listing, Task
from plusx.data.shard_files import Beside, tar_files
from plusx.data.tar_index import image_name, images_of_tar
from plusx.data.tar_reading import TarImage, at
from plusx.errors import DataError

_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?![a-z])", re.IGNORECASE)


def read_shards(source: str, *, training: bool = True, task: Task | None = None) -> Listing:
    """List the images of tar files.

    What belongs to one image has one key, the name up to its first dot: ``KEY.jpg`` (or another
    image format), and ``KEY.cls`` with its class (a name or a number from 0), or ``KEY.json`` with
    ``label`` (the same, or a list for task ``multi``) and, if wanted, ``split`` and ``group``. What
    the numbers mean stands beside the shards: in ``index.json`` as ``plusx shards`` writes it, in
    ``classes.txt`` (a name a line), or in ``dataset.json`` under ``classes``; else a number is its
    own name. A split that no ``.json`` names is taken from the shard's name (``train-000.tar``).

    The images come in the order in which a folder of the same names lists them.

    Args:
        source: a tar file, a folder of them, or a pattern.
        training: see :func:`plusx.data.folder.read_folder`.
        task: what a model's task asks of the labels; by default the labels tell.

    Raises:
        DataError: they cannot be used; names shard and member.
    """
    tars = tar_files(source)
    folders = {folder: Beside.of(folder) for folder in {os.path.dirname(tar) for tar in tars}}
    for folder, beside in folders.items():
        beside.check(folder, tars, whole=os.path.isdir(source))
    found = _Found()
    for tar in tars:
        images, ignored = images_of_tar(tar)
        found.ignored += ignored
        for image in images:
            found.take(tar, image, folders[os.path.dirname(tar)].classes)
    _check_found(source, found, task)
    several = "multi" if found.several else "single"
    kind: Task = task or several  # type: ignore[assignment]
    rows = [
        (image_name(tar, name), label if kind == "single" else _listed(label), split, group)
        for tar, name, label, split, group in sorted(found.rows, key=_order)
    ]
    names = {n for b in folders.values() for n in b.classes or ()} if kind == "multi" else set()
    root = os.path.commonpath(list(folders)) or "."
    return assemble(
        root, rows, where=source, training=training, task=kind, names=names,
        ignored=found.ignored, unlabelled=found.unlabelled,
    )  # fmt: skip


def shard_images(source: str) -> Iterator[str]:
    """Names of all images in tar files, whatever their labels, shard after shard.

    Raises:
        DataError: a tar file cannot be used.
    """
    for tar in tar_files(source):
        for image in images_of_tar(tar)[0]:
            yield image_name(tar, image.name)


_Found_Row = tuple[str, str, Label, str | None, str | None]


@dataclass
class _Found:
    rows: list[_Found_Row] = field(default_factory=list)
    ignored: int = 0
    unlabelled: int = 0
    several: bool = False
    without_split: str = ""
    with_split: str = ""

    def take(self, tar: str, image: TarImage, classes: Sequence[str] | None) -> None:
        label = _label(tar, image, classes)
        if label is None:
            self.unlabelled += 1
            return
        self.several = self.several or isinstance(label, tuple)
        split = _split(tar, image)
        if split is None:
            self.without_split = tar
        else:
            self.with_split = tar
        self.rows.append((tar, image.name, label, split, image.group))


def _check_found(source: str, found: _Found, task: Task | None) -> None:
    if not found.rows and not found.unlabelled:
        raise DataError(f"{source}: holds no image; a shard's members are KEY.jpg with KEY.cls or "
                        "KEY.json")  # fmt: skip
    if found.with_split and found.without_split:
        raise DataError(
            f"{found.without_split}: says no split, but {found.with_split} does; name every shard "
            "train-…, val-… or test-…, or none"
        )
    if task == "single" and found.several:
        raise DataError(
            f"{source}: gives an image any number of labels, and the model gives it just one"
        )
    if task == "multi" and found.rows and not found.several:
        raise DataError(
            f"{source}: gives an image one label, and the model gives it any number; write the "
            "labels as lists in KEY.json"
        )


def _order(row: _Found_Row) -> tuple[str, list[tuple[bool, str]], str]:
    """As a folder is walked: the files of a folder, then the folders in it."""
    tar, name, _, split, _ = row
    *above, last = name.split("/")
    return split or "", [*((True, part) for part in above), (False, last)], tar


def _listed(label: Label) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else label


def _label(tar: str, image: TarImage, classes: Sequence[str] | None) -> Label | None:
    """Its label; None where it says that nobody has looked."""
    if image.label is not None:
        value = json.loads(image.label)
    elif image.cls is None:
        key = image.name.rpartition("/")[2].partition(".")[0]
        raise DataError(f"{at(tar, image.name)}: has no label: neither {key}.cls nor a {key}.json "
                        'with a "label"')  # fmt: skip
    else:
        text = image.cls.strip()
        value = int(text) if re.fullmatch(r"-?\d{1,9}", text) else text
    if value is None or value == -1:
        return None
    if not isinstance(value, list):
        return _name(value, tar, image, classes)
    names = [_name(one, tar, image, classes) for one in value]
    if bad := [name for name in names if SEPARATOR in name]:
        raise DataError(f"{at(tar, image.name)}: class {bad[0]!r} holds {SEPARATOR!r}, which "
                        "separates labels; rename it")  # fmt: skip
    return tuple(sorted(set(names)))


def _name(value: Any, tar: str, image: TarImage, classes: Sequence[str] | None) -> str:
    if type(value) is int and classes is not None:
        if not 0 <= value < len(classes):
            raise DataError(f"{at(tar, image.name)}: class number {value}, but {len(classes)} "
                            "classes are named beside the shard")  # fmt: skip
        return classes[value]
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{at(tar, image.name)}: label {value!r} is no name and no whole number")
    name = value.strip()
    if classes is not None and name not in classes:
        raise DataError(f"{at(tar, image.name)}: class {name!r} is not among those named beside "
                        f"the shard: {quoted(classes)}")  # fmt: skip
    return name


def _split(tar: str, image: TarImage) -> str | None:
    if image.split is not None:
        if image.split.lower() not in SPLIT_NAMES:
            raise DataError(f"{at(tar, image.name)}: split {image.split!r} is not one of train, "
                            "val, test")  # fmt: skip
        return SPLIT_NAMES[image.split.lower()]
    found = _SPLIT.match(os.path.basename(tar))
    return SPLIT_NAMES[found[1].lower()] if found else None
