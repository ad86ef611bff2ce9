"""Where each image of a tar file lies, found out once and kept.

An image in a tar file goes by a name like that of a file, ``shards/train-000.tar!cats/1.jpg``. An
index in the cache folder says for each such name where its bytes begin and how many they are: one
SQLite file for each folder of shards, which all processes and threads share. A tar file of another
size or time is indexed anew.
"""

# Paths are plain strings here: a listing may hold millions of them.
# ruff: noqa: PTH100, PTH116, PTH119, PTH120

from __future__ import annotations

import errno
import hashlib
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plusx.data.tar_reading import TarImage, read_tar
from plusx.errors import DataError
from plusx.runtime import cache_folder

MARK = ".tar!"
VERSION = 1
"""To be raised when tar files are read differently."""

_OPEN = 4
"""Folders whose index stays open."""

_TABLES = """
CREATE TABLE IF NOT EXISTS about (version INTEGER);
CREATE TABLE IF NOT EXISTS shards (id INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE,
    size INTEGER, mtime INTEGER, ignored INTEGER);
CREATE TABLE IF NOT EXISTS images (shard INTEGER, name BLOB, start INTEGER, size INTEGER,
    cls TEXT, label TEXT, split TEXT, grp TEXT, PRIMARY KEY (shard, name)) WITHOUT ROWID;
"""


def image_name(tar: str, member: str) -> str:
    """How an image in a tar file is called."""
    return f"{tar}!{member}"


def in_tar(name: str) -> tuple[str, str] | None:
    """The reverse of :func:`image_name`; None for any other name. A file of that very name is
    what it is."""
    at = name.find(MARK)
    if at < 0 or os.path.lexists(name):
        return None
    return name[: at + len(MARK) - 1], name[at + len(MARK) :]


def find_in_tar(tar: str, member: str) -> tuple[os.stat_result, int, int]:
    """The tar file as it is, and where the image begins and how many bytes it has.

    Raises:
        FileNotFoundError: it has no such image.
        OSError: the tar file cannot be read.
        DataError: it is damaged.
    """
    status = os.stat(tar)
    place = _index(tar).find(tar, status, member)
    if place is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image_name(tar, member))
    return status, *place


def images_of_tar(tar: str) -> tuple[list[TarImage], int]:
    """What ``read_tar`` gives, from the index where it is there.

    Raises:
        DataError: it cannot be used.
    """
    try:
        return _index(tar).images(tar, os.stat(tar))
    except FileNotFoundError as error:
        raise DataError(f"{tar}: does not exist") from error
    except OSError as error:
        raise DataError(f"{tar}: cannot be read ({error.strerror})") from error


class _Index:
    """One SQLite file; safe in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, int]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                path, timeout=60, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        self.close = weakref.finalize(self, self._file.close)
        with self._lock, self._guarded():
            self._prepare()

    def _prepare(self) -> None:
        run = self._file.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        self._file.executescript(_TABLES)
        found = run("SELECT version FROM about").fetchone()
        if found != (VERSION,):
            for table in ("about", "shards", "images"):
                run(f"DELETE FROM {table}")
            run("INSERT INTO about VALUES (?)", (VERSION,))

    def find(self, tar: str, status: os.stat_result, member: str) -> tuple[int, int] | None:
        """(start, size) of an image."""
        with self._lock, self._guarded():
            for _ in range(2):  # another process may have indexed the tar file anew meanwhile
                found: tuple[int, int] | None = self._file.execute(
                    "SELECT start, size FROM images WHERE shard = ? AND name = ?",
                    (self._number(tar, status), os.fsencode(member)),
                ).fetchone()
                if found is not None:
                    return found
                self._known.pop(tar, None)
        return None

    def images(self, tar: str, status: os.stat_result) -> tuple[list[TarImage], int]:
        """All of them."""
        with self._lock, self._guarded():
            number = self._number(tar, status)
            (ignored,) = self._file.execute(
                "SELECT ignored FROM shards WHERE id = ?", (number,)
            ).fetchone()
            rows = self._file.execute(
                "SELECT name, start, size, cls, label, split, grp FROM images WHERE shard = ?"
                " ORDER BY name",
                (number,),
            )
            return [TarImage(os.fsdecode(name), *rest) for name, *rest in rows], ignored

    def _number(self, tar: str, status: os.stat_result) -> int:
        """Of the tar file in the index; it is read and put in where it is not there as it is."""
        state = status.st_size, status.st_mtime_ns
        known = self._known.get(tar)
        if known is not None and known[1:] == state:
            return known[0]
        name = os.fsencode(os.path.abspath(tar))
        number = self._find_shard(name, state)
        if number is None:
            images, ignored = read_tar(tar)
            run = self._file.execute
            run("BEGIN IMMEDIATE")
            try:
                number = self._find_shard(name, state)  # another process may have been quicker
                if number is None:
                    number = self._put(name, state, images, ignored)
                run("COMMIT")
            except BaseException:
                run("ROLLBACK")
                raise
        self._known[tar] = (number, *state)
        return number

    def _find_shard(self, name: bytes, state: tuple[int, int]) -> int | None:
        found = self._file.execute(
            "SELECT id FROM shards WHERE name = ? AND size = ? AND mtime = ?", (name, *state)
        ).fetchone()
        return None if found is None else int(found[0])

    def _put(
        self, name: bytes, state: tuple[int, int], images: list[TarImage], ignored: int
    ) -> int:
        run = self._file.execute
        run("DELETE FROM images WHERE shard IN (SELECT id FROM shards WHERE name = ?)", (name,))
        run("DELETE FROM shards WHERE name = ?", (name,))
        put = run("INSERT INTO shards (name, size, mtime, ignored) VALUES (?, ?, ?, ?)",
                  (name, *state, ignored))  # fmt: skip
        number = put.lastrowid
        self._file.executemany(
            "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (number, os.fsencode(i.name), i.start, i.size, i.cls, i.label, i.split, i.group)
                for i in images
            ),
        )
        return int(number or 0)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DataError:
        return DataError(f"{self._path}: cannot be used as an index of shards ({error}); remove it "
                         "or make room there, or set PLUSX_CACHE to another folder")  # fmt: skip


_indexes: dict[Path, _Index] = {}
_opening = threading.Lock()


def _index(tar: str) -> _Index:
    folder = os.path.dirname(os.path.abspath(tar))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", os.path.basename(folder))[-40:]
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    path = cache_folder() / "shards" / f"{name}-{key}.sqlite"
    with _opening:
        found = _indexes.get(path)
        if found is None:
            found = _indexes[path] = _Index(path)
            for old in list(_indexes)[:-_OPEN]:
                _indexes.pop(old)  # closes when the last thread lets go of it
        return found
