"""Where facts are kept: a growing table while they come in, and a file from scan to scan."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from plusx.data.facts import ROW, THUMB, FactTable, ImageFacts
from plusx.errors import DataError

VERSION = 1
"""To be raised when a fact is read differently: facts of another version are read again."""

_BATCH = 256
_PIXELS = THUMB * THUMB


class FactsSink:
    """Takes facts by position, in any order; thumbnails go to a temporary file in ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._paths: list[str] = []
        self._rows = np.zeros(256, dtype=ROW)
        self._reasons: dict[int, str] = {}
        self._cameras: dict[str, int] = {"": 0}
        self._thumbs = tempfile.TemporaryFile(dir=folder, prefix=".plusx-")  # noqa: SIM115

    def extend(self, path: str) -> None:
        """One more image, of which nothing is known yet."""
        self._paths.append(path)
        if len(self._paths) > len(self._rows):
            larger = np.zeros(2 * len(self._rows), dtype=ROW)
            larger[: len(self._rows)] = self._rows
            self._rows = larger

    def put(self, index: int, facts: ImageFacts) -> None:
        """The facts of image ``index``."""
        camera = self._cameras.setdefault(facts.camera, len(self._cameras))
        self._rows[index] = to_row(facts, camera)
        if facts.error is not None:
            self._reasons[index] = facts.error
        self._thumbs.seek(index * _PIXELS)
        self._thumbs.write(facts.thumb)

    def table(self) -> FactTable:
        """All that came in; the sink is of no use any more."""
        n = len(self._paths)
        rows = self._rows[:n].copy()
        rows.flags.writeable = False
        thumbs: npt.NDArray[np.uint8] = np.zeros((0, THUMB, THUMB), dtype=np.uint8)
        if n:
            self._thumbs.truncate(n * _PIXELS)
            self._thumbs.flush()
            thumbs = np.memmap(self._thumbs, np.uint8, "r", shape=(n, THUMB, THUMB))
        self._thumbs.close()
        return FactTable(self._paths, rows, thumbs, self._reasons, tuple(self._cameras))


def to_row(facts: ImageFacts, camera: int) -> tuple[Any, ...]:
    """The values of ``ROW`` for one image."""
    known = asdict(facts)
    known["camera"] = camera
    known["taken"] = np.datetime64(facts.taken or "NaT", "s")
    known["readable"] = facts.error is None
    return tuple(known[name] for name in ROW.names or ())


class FactsCache:
    """Facts of readable images by path, size and mtime, in an SQLite file.

    Raises:
        DataError: the file cannot be opened or written, or is not such a file.
    """

    def __init__(self, path: Path, channels: int) -> None:
        self._path = path
        self._waiting: list[tuple[Any, ...]] = []
        self._version = f"{VERSION} {PIL.__version__} {channels}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=60)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def _prepare(self) -> None:
        run = self._file.execute
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("CREATE TABLE IF NOT EXISTS about (version TEXT)")
        found = run("SELECT version FROM about").fetchone()
        if found is None or found[0] != self._version:
            run("DROP TABLE IF EXISTS facts")
            run("DELETE FROM about")
            run("INSERT INTO about VALUES (?)", (self._version,))
        run(
            "CREATE TABLE IF NOT EXISTS facts (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER,"
            " row BLOB, camera TEXT, thumb BLOB) WITHOUT ROWID"
        )
        self._file.commit()

    def find(self, path: str) -> ImageFacts | None:
        """The facts of a file that has not changed since they were read."""
        try:
            status = os.stat(path)  # noqa: PTH116 (paths are plain strings here)
        except (OSError, ValueError):
            return None
        try:
            found = self._file.execute(
                "SELECT row, camera, thumb FROM facts WHERE path = ? AND size = ? AND mtime = ?",
                (os.fsencode(path), status.st_size, status.st_mtime_ns),
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if found is None or len(found[0]) != ROW.itemsize:
            return None
        row = np.frombuffer(found[0], dtype=ROW)
        thumb = np.frombuffer(found[2], dtype=np.uint8).reshape(1, THUMB, THUMB)
        camera = row.copy()
        camera["camera"] = 0
        return FactTable([path], camera, thumb, {}, (found[1],))[0]

    def add(self, facts: ImageFacts) -> None:
        """Keep the facts of a readable image; written in batches."""
        row = np.array([to_row(facts, 0)], dtype=ROW).tobytes()
        key = (os.fsencode(facts.path), facts.size_bytes, facts.mtime_ns)
        self._waiting.append((*key, row, facts.camera, facts.thumb))
        if len(self._waiting) >= _BATCH:
            self._write()

    def close(self) -> None:
        """Write what waits and close the file."""
        try:
            self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        try:
            with self._file:
                self._file.executemany(
                    "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", self._waiting
                )
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._waiting.clear()

    def _unusable(self, error: Exception) -> DataError:
        return DataError(f"{self._path}: cannot be used as a cache ({error}); remove it")
