"""One way in: a listing from a folder or a manifest, less what is unusable; images to predict."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH110, PTH112, PTH114, PTH118, PTH119, PTH208

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain

from plusx.data.classes import quoted
from plusx.data.folder import images_below, is_image_name, read_folder
from plusx.data.manifest import read_manifest
from plusx.data.records import BadImage, Listing, Sample
from plusx.errors import DataError

PathLike = str | os.PathLike[str]


def read_listing(
    source: PathLike, *, exclude: Iterable[str] = (), training: bool = True
) -> Listing:
    """List the images of a folder or of a CSV file.

    Args:
        source: a folder (see :func:`read_folder`) or a ``.csv`` file (see :func:`read_manifest`).
        exclude: images to leave out: paths, relative to the listing's root or as listed, or
            patterns such as ``train/cat/bad_*`` (where ``*`` also crosses folders).
        training: require what training needs; False to read images for evaluation.

    Raises:
        DataError: the source cannot be used, or an item of ``exclude`` matches no image.
    """
    where = os.fspath(source)
    if not where:
        raise DataError("the name of the data is empty; give a folder of class folders, or a CSV")
    if os.path.isdir(where):
        listing = read_folder(where, training=training)
    elif where.lower().endswith(".csv"):
        listing = read_manifest(where, training=training)
    elif os.path.exists(where):
        raise DataError(
            f"{where}: is a single file; give a folder of class folders, or a CSV file "
            "(path,label[,split][,group])"
        )
    else:
        raise DataError(f"{where}: does not exist; give a folder of class folders, or a CSV file")
    unwanted = _matching(listing, list(exclude))
    return drop(listing, [BadImage(path, "excluded") for path in unwanted])


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
    left = {s.target for s in kept if not has_train or s.split == "train"}
    for sample in gone:
        counts = not has_train or sample.split == "train"
        if counts and sample.target is not None and sample.target not in left:
            files = [s for s in gone if s.target == sample.target and s.split == sample.split]
            said = "; ".join(f"{s.path}: {reasons[s.path]}" for s in files[:5])
            more = f"; and {len(files) - 5} more" if len(files) > 5 else ""
            raise DataError(
                f"{listing.source}: class {listing.classes[sample.target]!r} has no usable image "
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
    samples = tuple(
        s if s.target is None else replace(s, target=number[listing.classes[s.target]])
        for s in listing.samples
    )
    present = {sample.target for sample in samples}
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
    if os.path.isdir(source):
        paths, problem = images_below(source), "holds no image"
    elif os.path.lexists(source):
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
        elif is_image_name(os.path.basename(path)):
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


def _matching(listing: Listing, exclude: list[str]) -> set[str]:
    """Paths of the samples that the items of ``exclude`` name."""
    if not exclude:
        return set()
    names = {os.path.relpath(s.path, listing.root).replace(os.sep, "/"): s.path
             for s in listing.samples}  # fmt: skip
    listed = set(names.values())
    unwanted: set[str] = set()
    for item in exclude:
        relative = item.replace(os.sep, "/")
        if relative in names:
            hits = {names[relative]}
        elif item in listed:
            hits = {item}
        else:
            hits = {names[n] for n in fnmatch.filter(names, relative)}
        if not hits:
            raise DataError(f"exclude {item!r} matches no image of {listing.source}")
        unwanted |= hits
    return unwanted
