"""Rows of equal size under keys, in two files that only grow.

``rows.bin`` holds the rows, ``index.bin`` a record for each: the image's content hash, the number
of the view, and a checksum. A record is written after its row, so that what a killed process or a
full disk leaves behind is either whole or not there; and a row is used again only where its
checksum agrees. Rows are written as files are, not through a memory map, since a full disk kills
a process that does that; they are read through one, so that memory stays flat.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.bytes_]
"""(n,) of dtype S16: the content hash of each image."""
Bits = npt.NDArray[np.uint8]

RECORD = np.dtype([("key", "S16"), ("view", "<u4"), ("sum", "<u4")])
_LOOKED_UP = np.dtype("S20")


class RowTable:
    """The rows in ``folder``; one process writes at a time (see ``CacheSlot.writing``).

    Args:
        folder: holds the two files; they are made where absent.
        row_bytes: of each row.
    """

    def __init__(self, folder: Path, row_bytes: int) -> None:
        self.row_bytes = row_bytes
        self._data, self._index = folder / "rows.bin", folder / "index.bin"
        for path in (self._data, self._index):
            path.touch()
        self._map: Bits | None = None
        self._count = self.cut = 0
        self._all: npt.NDArray[Any] = np.zeros(0, RECORD)  # longer than what is known of
        self._good = np.zeros(0, dtype=np.bool_)
        self._sorted: tuple[Rows, Keys] | None = None
        self.load()

    def load(self) -> None:
        """See what is in the files now; ``cut`` counts the rows that they should hold and don't."""
        said = self._index.stat().st_size // RECORD.itemsize
        whole = min(said, self._data.stat().st_size // self.row_bytes)
        self.cut = said - whole
        known, good = min(self._count, whole), self._good
        self._all, self._good = np.fromfile(self._index, RECORD, whole), np.zeros(whole, np.bool_)
        self._good[:known] = good[:known]
        self._count, self._sorted = whole, None

    def __len__(self) -> int:
        return self._count

    @property
    def _records(self) -> npt.NDArray[Any]:
        return self._all[: self._count]

    def find(self, keys: Keys, view: int) -> Rows:
        """(n,) the row of each key's view, -1 where there is none."""
        if not self._count:
            return np.full(len(keys), -1, dtype=np.int64)
        if self._sorted is None:
            known = _looked_up(self._records["key"], self._records["view"])
            order = np.argsort(known, kind="stable")
            self._sorted = order, known[order]
        order, known = self._sorted
        wanted = _looked_up(keys, np.full(len(keys), view, dtype="<u4"))
        place = np.searchsorted(known, wanted, side="right") - 1  # the latest of several
        found: Rows = np.where(known[np.maximum(place, 0)] == wanted, order[place], -1)
        return found

    def sound(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(n,) whether each row's checksum agrees; each is looked at once."""
        doubtful = rows[~self._good[rows]]
        for start in range(0, len(doubtful), 64):
            part = doubtful[start : start + 64]
            sums = [zlib.crc32(row) for row in self.read(part)]
            self._good[part] = sums == self._records["sum"][part]
        return self._good[rows]

    def append(self, keys: Keys, view: int, rows: Bits) -> Rows:
        """Add (n, row_bytes) and return their numbers.

        Raises:
            OSError: the disk is full; nothing was added.
        """
        first, end = self._count, self._count + len(rows)
        records = np.zeros(len(rows), RECORD)
        records["key"], records["view"] = keys, view
        records["sum"] = [zlib.crc32(row) for row in rows]
        _put(self._data, first * self.row_bytes, rows)
        _put(self._index, first * RECORD.itemsize, records)
        if end > len(self._all):
            self._all = np.resize(self._all, 2 * end)
            self._good = np.resize(self._good, 2 * end)
        self._all[first:end], self._good[first:end] = records, True
        self._count, self._sorted = end, None
        return np.arange(first, end, dtype=np.int64)

    def read(self, rows: Rows) -> Bits:
        """A copy (n, row_bytes)."""
        if self._map is None or len(self._map) < self._count:
            shape = (self._count, self.row_bytes)
            self._map = np.memmap(self._data, np.uint8, "r", shape=shape)
        return np.take(self._map, rows, axis=0)

    def summary(self) -> tuple[int, int]:
        """Number of images and of views of them."""
        return len(np.unique(self._records["key"])), len(np.unique(self._records["view"]))


def _looked_up(keys: Keys, views: npt.NDArray[Any]) -> Keys:
    """Key and view side by side as one sortable value (n,)."""
    both = np.zeros(len(keys), np.dtype([("key", "S16"), ("view", ">u4")]))
    both["key"], both["view"] = keys, views
    return both.view(_LOOKED_UP)


def _put(path: Path, at: int, content: npt.NDArray[Any]) -> None:
    with path.open("r+b", buffering=0) as file:
        file.seek(at)
        left = memoryview(content.tobytes())
        while left:  # a write may be cut short, as by a full disk; the next one then says so
            left = left[file.write(left) :]
