"""Folders of images: one folder a class, with or without a level of splits above."""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH113, PTH118, PTH119, PTH122, PTH116

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from plusx.data.classes import SPLIT_NAMES, Row, assemble, quoted
from plusx.data.dicom import is_dicom, may_be_dicom
from plusx.data.reading import EXTENSIONS
from plusx.data.records import Listing
from plusx.errors import DataError

_LAYOUTS = "put each class's images in a folder of its own, <class>/ or train/<class>/"

Identity = tuple[int, int]
"""(device, inode) of a folder, to know it again behind a symbolic link."""


def is_image_name(name: str) -> bool:
    """True for a visible file name with the extension of a supported image format."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def is_image_file(path: str) -> bool:
    """The same, or a DICOM file whose name has no extension, as archives store them (the name may
    end in digits after a dot: it is an identifier)."""
    name = os.path.basename(path)
    if is_image_name(name):
        return True
    if name.startswith(".") or not may_be_dicom(name):
        return False
    if not os.path.isfile(path):  # opening a pipe would wait for ever
        return False
    try:
        with open(path, "rb", buffering=0) as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def read_folder(root: str | os.PathLike[str], *, training: bool = True) -> Listing:
    """List ``train/val[/test]/<class>/…`` or ``<class>/…``.

    It is the first layout when a folder called train, val, valid, validation or test (in any
    case) holds folders. Images lie at any depth below their class's folder. Hidden files and
    folders are skipped; files of other kinds, and folders beside the splits, are counted in
    ``Listing.ignored``. A symbolic link is followed, but never to a folder already seen above
    it, nor out of one class into another.

    Args:
        root: the folder.
        training: require what training needs (two classes, each with an image; a train split
            with every class where there are splits). False to read images for evaluation.

    Raises:
        DataError: the folder cannot be used; says why.
    """
    root = os.fspath(root)
    folders, files = _children(root)
    if not folders and not files:
        raise DataError(f"{root}: is empty; {_LAYOUTS}")
    splits = [name for name in folders if _is_split(os.path.join(root, name), name)]
    ignored = len(files)
    tops: dict[str | None, str]
    if splits:
        tops = dict(_split_folders(root, splits))
        for name in folders:
            if name not in splits:
                beside = list(_walk(os.path.join(root, name), stay_out={_identity(root)}))
                ignored += len(beside)
    else:
        tops = {None: root}
    found = _classes(root, tops)
    ignored += found.ignored
    if not found.rows:
        raise DataError(f"{root}: holds no image in a class folder; {_LAYOUTS}")
    if training and found.empty:
        raise DataError(
            f"{root}: no image in {quoted(found.empty)}; add images or remove the folder"
        )
    return assemble(root, found.rows, where=root, training=training, ignored=ignored)


def images_below(folder: str) -> Iterator[str]:
    """Paths of all images below a folder, sorted folder by folder.

    Lazy: memory holds the names of the folders being walked, not of the whole tree.
    """
    for path in _walk(folder, stay_out=set()):
        if is_image_file(path):
            yield path


@dataclass
class _Found:
    rows: list[Row] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)
    ignored: int = 0


def _is_split(path: str, name: str) -> bool:
    return name.lower() in SPLIT_NAMES and bool(_children(path)[0])


def _split_folders(root: str, names: list[str]) -> Iterator[tuple[str, str]]:
    taken: dict[str, str] = {}
    for name in names:
        split = SPLIT_NAMES[name.lower()]
        if split in taken:
            raise DataError(
                f"{root}: {taken[split]!r} and {name!r} both mean the split {split!r}; keep one"
            )
        taken[split] = name
        yield split, os.path.join(root, name)


def _classes(root: str, tops: dict[str | None, str]) -> _Found:
    found = _Found()
    class_folders: list[tuple[str | None, str, str]] = []
    for split, top in tops.items():
        folders, files = _children(top)
        found.ignored += len(files) if split is not None else 0
        class_folders += [(split, name, os.path.join(top, name)) for name in folders]
    stay_out = {_identity(path) for path in (root, *tops.values())}
    stay_out |= {_identity(path) for _, _, path in class_folders}
    for split, name, path in class_folders:
        images = 0
        for file in _walk(path, stay_out=stay_out):
            if is_image_file(file):
                images += 1
                found.rows.append((file, name, split, None))
            else:
                found.ignored += 1
        if images == 0 and split in (None, "train"):
            found.empty.add(name if split is None else f"{split}/{name}")
    return found


def _walk(top: str, *, stay_out: set[Identity]) -> Iterator[str]:
    """Visible files below ``top``, sorted within each folder; links into ``stay_out`` or
    back to a folder being walked are left alone."""
    pending: list[tuple[str, frozenset[Identity]]] = [(top, frozenset({_identity(top)}))]
    while pending:
        folder, above = pending.pop()
        folders, files = _children(folder)
        for name in files:
            yield os.path.join(folder, name)
        for name in reversed(folders):
            path = os.path.join(folder, name)
            identity = _identity(path)
            if identity not in above and identity not in stay_out:
                pending.append((path, above | {identity}))


def _identity(path: str) -> Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _children(folder: str) -> tuple[list[str], list[str]]:
    """Names of the visible folders and of the visible other entries, each sorted."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    (folders if _is_folder(entry) else files).append(entry.name)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: does not exist") from error
    except NotADirectoryError as error:
        raise DataError(f"{folder}: is not a folder") from error
    except PermissionError as error:
        raise DataError(f"{folder}: no permission to read this folder") from error
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted(folders), sorted(files)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
