"""Data sets that the library Hugging Face datasets saved to disk (``save_to_disk``).

Their images lie inside Arrow files. All that reads images here takes paths, so each image is
written out once, as it is, to the cache folder (``PLUSX_CACHE``, else ``~/.cache/plusx``), below a
name that changes with the data set's files. That takes as much disk as the images themselves;
memory stays flat, and a second run finds them there.
"""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH113, PTH116, PTH118

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plusx.data.classes import SEPARATOR, SPLIT_NAMES, Label, Row, assemble, quoted
from plusx.data.records import Listing, Task
from plusx.errors import DataError, MissingExtra
from plusx.runtime import cache_folder

_BATCH = 64  # rows with their images in memory at a time
_KINDS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp",
          b"II*\x00": ".tif", b"MM\x00*": ".tif", b"RIFF": ".webp"}  # fmt: skip


def is_dataset(folder: str) -> bool:
    """Whether ``save_to_disk`` made this folder."""
    return os.path.isfile(os.path.join(folder, "dataset_dict.json")) or all(
        os.path.isfile(os.path.join(folder, name)) for name in ("dataset_info.json", "state.json")
    )


def read_dataset(folder: str, *, training: bool = True, task: Task | None = None) -> Listing:
    """List a saved ``Dataset``, or a ``DatasetDict`` with splits named train, validation, test.

    It has one column of images (feature ``Image``) and a column ``label`` or ``labels`` of
    ``ClassLabel``, text or whole numbers; a list of these is task ``multi``. A column ``group`` is
    taken as a manifest's. A label that is null or -1 says that nobody has looked: such images are
    left out.

    Args:
        folder: what ``save_to_disk`` made.
        training: see :func:`plusx.data.folder.read_folder`.
        task: what a model's task asks of the labels; by default the column tells.

    Raises:
        DataError: it cannot be read, or lacks what is needed.
        MissingExtra: the library datasets is absent.
    """
    rows: list[Row] = []
    found: set[Task] = set()
    names: set[str] = set()
    unlabelled = 0
    for split, part, place in _parts(folder):
        if split is not None and split.lower() not in SPLIT_NAMES:
            raise DataError(f"{folder}: split {split!r} is not one of train, validation, test")
        column = _label_column(part, folder)
        feature = part.features[column]
        inner = getattr(feature, "feature", None)
        found.add("single" if inner is None else "multi")
        listed = getattr(feature if inner is None else inner, "names", None)
        if inner is not None:
            names.update(listed or ())
        labels = _labels(part, column, listed, folder)
        groups = _texts(part, "group") if "group" in part.features else iter([None] * len(part))
        known = None if split is None else SPLIT_NAMES[split.lower()]
        for path, label, group in zip(_images(part, place, folder), labels, groups, strict=True):
            if label is None:
                unlabelled += 1
            else:
                rows.append((path, label, known, group))
    if len(found) > 1 or (task is not None and found != {task}):
        have = " and ".join(sorted(found))
        raise DataError(f"{folder}: its labels are of task {have}; wanted: {task or 'just one'}")
    (kind,) = found or {"single"}
    return assemble(
        folder, rows, where=folder, training=training, task=kind, names=names,
        unlabelled=unlabelled,
    )  # fmt: skip


def dataset_images(folder: str) -> Iterator[str]:
    """Paths of all images of a saved data set, whatever its splits and labels.

    Raises:
        DataError: it cannot be read.
        MissingExtra: the library datasets is absent.
    """
    for _, part, place in _parts(folder):
        yield from _images(part, place, folder)


def _parts(folder: str) -> list[tuple[str | None, Any, str]]:
    """(split, Dataset, its folder) of each part."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(f"{folder}: a saved data set", "datasets") from error
    try:
        found = datasets.load_from_disk(folder)
    except Exception as error:  # Arrow, JSON and the library itself raise many kinds
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{folder}: is no data set that can be read ({said})") from error
    if isinstance(found, datasets.DatasetDict):
        return [(split, part, os.path.join(folder, split)) for split, part in found.items()]
    return [(None, found, folder)]


def _label_column(part: Any, folder: str) -> str:
    for name in ("label", "labels"):
        if name in part.features:
            return name
    raise DataError(f"{folder}: has no column 'label' or 'labels'; it has {quoted(part.features)}")


def _labels(part: Any, column: str, names: list[str] | None, folder: str) -> Iterator[Label | None]:
    def text(value: Any) -> str | None:
        if value is None or value == -1:
            return None
        if names is not None:
            return str(names[value])
        if isinstance(value, str | int) and str(value).strip():
            return str(value).strip()
        raise DataError(f"{folder}: column {column!r} holds {value!r}; text, whole numbers and "
                        "class labels are read")  # fmt: skip

    for value in _values(part, column):
        if not isinstance(value, list):
            yield text(value)
            continue
        several = [label for label in map(text, value) if label is not None]
        if bad := [label for label in several if SEPARATOR in label]:
            raise DataError(f"{folder}: class {bad[0]!r} holds {SEPARATOR!r}, which separates "
                            "labels; rename it")  # fmt: skip
        yield None if len(several) < len(value) else tuple(sorted(set(several)))


def _texts(part: Any, column: str) -> Iterator[str | None]:
    for value in _values(part, column):
        yield None if value is None or value == "" else str(value)


def _values(part: Any, column: str) -> Iterator[Any]:
    """One column, a block at a time, as plain Python values."""
    for block in part.select_columns([column]).with_format("arrow").iter(8192):
        yield from block.column(0).to_pylist()


def _images(part: Any, place: str, folder: str) -> Iterator[str]:
    """A path for each row; see the top of the file."""
    import datasets

    columns = [n for n, kind in part.features.items() if isinstance(kind, datasets.Image)]
    if len(columns) != 1:
        raise DataError(f"{folder}: has {len(columns)} columns of images; it needs just one")
    cached = cache_folder() / "datasets" / f"{_plain(place)}-{_fingerprint(place)}"
    if not cached.is_dir():
        _write_out(part, columns[0], cached, folder)
    with (cached / "names").open(encoding="utf-8") as lines:
        for line in lines:
            yield str(cached / line.rstrip("\n"))


def _write_out(part: Any, column: str, cached: Path, folder: str) -> None:
    """Every image to a file of its own; they appear under ``cached`` when all are there."""
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=cached.parent, prefix=".writing-"))
        try:
            with (fresh / "names").open("w", encoding="utf-8") as names:
                row = 0
                for block in part.select_columns([column]).with_format("arrow").iter(_BATCH):
                    for value in block.column(0).to_pylist():
                        names.write(_write_one(value or {}, fresh, row, folder) + "\n")
                        row += 1
            if not cached.is_dir():  # else another process was quicker
                fresh.rename(cached)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder}: its images cannot be written to {cached.parent} ({error.strerror}); make "
            "room there, or set PLUSX_CACHE to another folder"
        ) from error


def _write_one(value: dict[str, Any], fresh: Path, row: int, folder: str) -> str:
    """The name of the file that the image now has."""
    data = value.get("bytes")
    if data is None and value.get("path"):
        raise DataError(
            f"{folder}: the image of row {row} is not inside ({value['path']!r}); save the data "
            "set with save_to_disk, which puts the images in"
        )
    data = data or b""  # a null: reading it says that it is empty
    kind = next((end for start, end in _KINDS.items() if data.startswith(start)), ".bin")
    (fresh / f"{row:08}{kind}").write_bytes(data)
    return f"{row:08}{kind}"


def _plain(place: str) -> str:
    """The last two parts of the path, in letters that any file system takes."""
    parts = Path(place).absolute().parts[-2:]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(parts))[-60:]


def _fingerprint(place: str) -> str:
    """Of the names, sizes and times of the data set's files."""
    digest = hashlib.sha256(os.path.realpath(place).encode("utf-8", "surrogatepass"))
    for name in sorted(os.listdir(place)):  # noqa: PTH208
        found = os.stat(os.path.join(place, name))
        digest.update(f"\0{name}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "replace"))
    return digest.hexdigest()[:12]
