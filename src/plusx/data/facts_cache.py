"""Where facts are kept: a growing table while they come in, and a file from scan to scan."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from plusx.data.facts import ROW, THUMB, FactTable, ImageFacts
from plusx.data.filebytes import Refused, locate
from plusx.errors import DataError

VERSION = 1
"""To be raised when a fact is read differently: facts of another version are read again."""

Known = tuple[bytes, str, str, bytes]
"""(row without camera and remark, camera, remarks, thumbnail)"""

_BATCH = 256
_PIXELS = THUMB * THUMB


class FactsSink:
    """Takes facts by position, in any order; thumbnails go to a temporary file in ``folder``."""

    def __init__(self, folder: Path | None = None) -> None:
        self._paths: list[str] = []
        self._rows = np.zeros(256, dtype=ROW)
        self._reasons: dict[int, str] = {}
        self._cameras: dict[str, int] = {"": 0}
        self._remarks: dict[str, int] = {"": 0}
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
        self._rows[index] = to_row(facts)
        if facts.error is not None:
            self._reasons[index] = facts.error
        self._place(index, facts.camera, "\n".join(facts.remarks), facts.thumb)

    def put_known(self, index: int, known: Known) -> None:
        """The same, as the cache gives it."""
        row, camera, remarks, thumb = known
        self._rows[index] = np.frombuffer(row, dtype=ROW)[0]
        self._place(index, camera, remarks, thumb)

    def _place(self, index: int, camera: str, remarks: str, thumb: bytes) -> None:
        self._rows["camera"][index] = self._cameras.setdefault(camera, len(self._cameras))
        self._rows["remark"][index] = self._remarks.setdefault(remarks, len(self._remarks))
        self._thumbs.seek(index * _PIXELS)
        self._thumbs.write(thumb)

    def table(self) -> FactTable:
        """All that came in."""
        n = len(self._paths)
        rows = self._rows[:n].copy()
        rows.flags.writeable = False
        thumbs: npt.NDArray[np.uint8] = np.zeros((0, THUMB, THUMB), dtype=np.uint8)
        if n:
            self._thumbs.truncate(n * _PIXELS)
            self._thumbs.flush()
            thumbs = np.memmap(self._thumbs, np.uint8, "r", shape=(n, THUMB, THUMB))
        said = tuple(tuple(text.splitlines()) for text in self._remarks)
        return FactTable(self._paths, rows, thumbs, self._reasons, tuple(self._cameras), said)

    def close(self) -> None:
        """Let the temporary file go; a table keeps its thumbnails."""
        self._thumbs.close()


def to_row(facts: ImageFacts) -> tuple[Any, ...]:
    """The values of ``ROW`` for one image, but for its camera."""
    apart = {
        "camera": 0,
        "remark": 0,
        "taken": np.datetime64(facts.taken or "NaT", "s"),
        "readable": facts.error is None,
    }
    return tuple(apart[n] if n in apart else getattr(facts, n) for n in ROW.names or ())


class FactsCache:
    """Facts of readable images by path, size and mtime, in an SQLite file.

    Raises:
        DataError: the file cannot be opened or written, or is not such a file.
    """

    def __init__(self, path: Path, choices: str) -> None:
        self._path = path
        self._waiting: list[tuple[Any, ...]] = []
        self._version = f"{VERSION} {PIL.__version__} {choices}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=60)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._file.close()
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
            " row BLOB, camera TEXT, remarks TEXT, thumb BLOB) WITHOUT ROWID"
        )
        self._file.commit()

    def find(self, path: str) -> Known | None:
        """What is known of a file that has not changed since it was read."""
        try:
            place = locate(path)
        except (Refused, OSError, ValueError):
            return None
        try:
            found = self._file.execute(
                "SELECT row, camera, remarks, thumb FROM facts"
                " WHERE path = ? AND size = ? AND mtime = ?",
                (os.fsencode(path), place.size, place.mtime_ns),
            ).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        if found is None or len(found[0]) != ROW.itemsize or len(found[3]) != _PIXELS:
            return None
        known: Known = found
        return known

    def add(self, facts: ImageFacts) -> None:
        """Keep the facts of a readable image; written in batches."""
        row = np.array([to_row(facts)], dtype=ROW).tobytes()
        key = (os.fsencode(facts.path), facts.size_bytes, facts.mtime_ns)
        self._waiting.append((*key, row, facts.camera, "\n".join(facts.remarks), facts.thumb))
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
                    "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?)", self._waiting
                )
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        self._waiting.clear()

    def _unusable(self, error: Exception) -> DataError:
        return DataError(f"{self._path}: cannot be used as a cache ({error}); remove it")
