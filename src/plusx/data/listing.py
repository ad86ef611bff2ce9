"""One way in: a listing from a folder or a manifest, less what is unusable; images to predict."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH110, PTH112, PTH114, PTH118, PTH208

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from plusx.data.classes import quoted
from plusx.data.folder import images_below, is_image_file, read_folder
from plusx.data.groups import group_patients
from plusx.data.hf_dataset import dataset_images, is_dataset, read_dataset
from plusx.data.manifest import is_manifest, read_manifest
from plusx.data.records import BadImage, Listing, Sample, Task
from plusx.data.shard_files import is_shards
from plusx.data.shards import read_shards, shard_images
from plusx.data.tar_index import in_tar
from plusx.errors import DataError

_GIVE = "give a folder of class folders, or a CSV or Parquet file (path,label[,split][,group])"

PathLike = str | os.PathLike[str]


def read_listing(
    source: PathLike,
    *,
    training: bool = True,
    task: Task | None = None,
    beside: Collection[str] = (),
) -> Listing:
    """List the images of a folder, a manifest, shards, or a data set that Hugging Face datasets
    saved.

    Args:
        source: a folder (see :func:`read_folder`), a ``.csv`` or ``.parquet`` file (see
            :func:`read_manifest`), tar files (see :func:`plusx.data.shards.read_shards`), or a
            folder that ``save_to_disk`` wrote (see :func:`plusx.data.hf_dataset.read_dataset`).
        training: require what training needs; False to read images for evaluation.
        task: what a model's task asks of the labels; by default the labels tell.
        beside: columns of a CSV or Parquet file that say something else of the images (see
            :func:`plusx.data.manifest.read_columns`).

    DICOM images without a group get their patient's; see :func:`plusx.data.groups.group_patients`.

    Raises:
        DataError: the source cannot be used, or has labels of another task.
        MissingExtra: Parquet or a saved data set, without the library that reads it.
    """
    found = _read(os.fspath(source), training=training, task=task, beside=beside)
    return group_patients(found)


def _read(where: str, *, training: bool, task: Task | None, beside: Collection[str]) -> Listing:
    if not where:
        raise DataError(f"the name of the data is empty; {_GIVE}")
    if beside and not (is_manifest(where) and not os.path.isdir(where)):
        raise DataError(
            f"{where}: has no columns {quoted(beside)}; give a CSV or Parquet file with them"
        )
    if os.path.isdir(where):
        if is_dataset(where):
            return read_dataset(where, training=training, task=task)
        if task == "multi" and not is_shards(where):
            raise DataError(
                f"{where}: is a folder, which gives an image one label, and the model gives it any "
                "number; give a CSV or Parquet file (path,label or path and a 0/1 column a class)"
            )
        if is_shards(where):
            return read_shards(where, training=training, task=task)
        return read_folder(where, training=training)
    if is_shards(where):
        return read_shards(where, training=training, task=task)
    if is_manifest(where):
        return read_manifest(where, training=training, task=task, beside=beside)
    if os.path.exists(where):
        raise DataError(f"{where}: is a single file, and no manifest; {_GIVE}")
    raise DataError(f"{where}: does not exist; {_GIVE}")


def drop(listing: Listing, bad: Iterable[BadImage]) -> Listing:
    """The listing without some images.

    Raises:
        DataError: nothing is left of a class (of its train images where there are splits), or
            of a whole split.
    """
    reasons = {item.path: item.reason for item in bad}
    if not reasons:
        return listing
    kept = tuple(sample for sample in listing.samples if sample.path not in reasons)
    gone = [sample for sample in listing.samples if sample.path in reasons]
    has_train = any(sample.split == "train" for sample in listing.samples)
    left = {k for s in kept if not has_train or s.split == "train" for k in s.targets}
    for sample in gone:
        counts = not has_train or sample.split == "train"
        for lost in sample.targets if counts else ():
            if lost in left:
                continue
            files = [s for s in gone if lost in s.targets and s.split == sample.split]
            said = "; ".join(f"{s.path}: {reasons[s.path]}" for s in files[:5])
            more = f"; and {len(files) - 5} more" if len(files) > 5 else ""
            raise DataError(
                f"{listing.source}: class {listing.classes[lost]!r} has no usable image "
                f"left{' in train' if has_train else ''} ({said}{more})"
            )
    for split in sorted({s.split for s in gone if s.split} - {s.split for s in kept if s.split}):
        raise DataError(f"{listing.source}: split {split!r} has no usable image left")
    return replace(listing, samples=kept)


def align(listing: Listing, classes: Iterable[str]) -> tuple[Listing, tuple[str, ...]]:
    """Number a listing's targets as a model does, by class name.

    Args:
        listing: the data.
        classes: the model's classes, in the model's order.

    Returns:
        The listing with ``classes`` in the model's order, and those of the model's classes that
        no image of the listing has.

    Raises:
        DataError: a class of the data is unknown to the model; lists both sides.
    """
    known = tuple(classes)
    number = {name: i for i, name in enumerate(known)}
    unknown = [name for name in listing.classes if name not in number]
    if unknown:
        raise DataError(
            f"{listing.source}: classes unknown to the model: {quoted(unknown)}; "
            f"the model knows {quoted(known, most=30)}"
        )
    renamed = [number[name] for name in listing.classes]
    targets: dict[int | tuple[int, ...] | None, int | tuple[int, ...] | None] = {
        target: tuple(sorted(renamed[k] for k in target))
        if isinstance(target, tuple)
        else target
        if target is None
        else renamed[target]
        for target in {s.target for s in listing.samples}
    }
    samples = tuple(replace(s, target=targets[s.target]) for s in listing.samples)
    present = {k for target in targets.values() for k in Sample("", target).targets}
    absent = tuple(name for i, name in enumerate(known) if i not in present)
    return replace(listing, classes=known, samples=samples), absent


def unlabelled(sources: PathLike | Iterable[PathLike]) -> Iterator[Sample]:
    """Stream the images to predict: files, folders (with all below), glob patterns.

    Each source is looked at when this is called, and walked only as the samples are asked for;
    memory holds the names of one folder at a time. A named file is taken whatever its
    extension; folders and patterns give files with an image's extension, sorted folder by
    folder, hidden ones skipped.

    Raises:
        DataError: a source matches nothing (at the call, before the first sample).
    """
    several = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not several:
        raise DataError("no image, folder or pattern was given")
    return chain.from_iterable([_stream(os.fspath(source)) for source in several])


def _stream(source: str) -> Iterator[Sample]:
    if os.path.isdir(source) and is_dataset(source):
        paths, problem = dataset_images(source), "holds no image"
    elif is_shards(source):
        paths, problem = shard_images(source), "holds no image"
    elif os.path.isdir(source):
        paths, problem = images_below(source), "holds no image"
    elif os.path.lexists(source) or in_tar(source):
        paths, problem = iter([source]), ""
    elif glob.has_magic(source):
        paths, problem = _matches(source), "matches no image"
    else:
        raise DataError(f"{source or 'an empty name'}: does not exist")
    first = next(paths, None)
    if first is None:
        raise DataError(f"{source}: {problem}")
    return (Sample(path, None) for path in chain([first], paths))


def _matches(pattern: str) -> Iterator[str]:
    """Images that a glob pattern matches, with those below the folders that it matches."""
    drive, rest = os.path.splitdrive(pattern)
    parts = [part for part in rest.replace(os.sep, "/").split("/") if part]
    start = drive + os.sep if rest.startswith(("/", os.sep)) else drive
    deep = "**" in parts[:-1]  # then what lies below a matched folder is matched itself
    for path in _expand(start, parts):
        if os.path.isdir(path):
            yield from iter(()) if deep else images_below(path)
        elif is_image_file(path):
            yield path


def _expand(folder: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield folder
        return
    head, rest = parts[0], parts[1:]
    if not glob.has_magic(head):
        path = os.path.join(folder, head)
        if os.path.lexists(path):
            yield from _expand(path, rest)
        return
    if head == "**" and rest:
        yield from _expand(folder, rest)
    for name in _names(folder):
        path = os.path.join(folder, name)
        if name.startswith(".") and not head.startswith("."):
            continue
        if head == "**" and rest:
            if os.path.isdir(path) and not os.path.islink(path):
                yield from _expand(path, parts)
        elif fnmatch.fnmatch(name, head) and (not rest or os.path.isdir(path)):
            yield from _expand(path, rest)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder or os.curdir))
    except NotADirectoryError:
        return []
    except PermissionError as error:
        raise DataError(f"{folder}: no permission to read this folder") from error
