"""The rows of one run's images in an entry of the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from plusx.fit.cache import CacheSlot
from plusx.fit.cache_rows import Bits, Keys, Rows


class KeyedRows:
    """A table's rows for n images, several views of each; equal images share theirs.

    Args:
        slot: where they are kept.
        keys: (n,) content hash of each image.
        views: numbers of the views.

    Attributes:
        own: (n,) number of each image among the different ones.
        damaged: rows that were there and are not sound.
    """

    def __init__(self, slot: CacheSlot, keys: Keys, views: range) -> None:
        self.slot, self.table, self.views = slot, slot.table, views
        self._keys, self._first, self.own = np.unique(keys, return_index=True, return_inverse=True)
        self._rows = np.full((len(views), len(self._keys)), -1, dtype=np.int64)
        self.damaged = 0
        self.look()

    @contextmanager
    def writing(self, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the one process that adds rows; what others added before is known in the block.

        Args:
            waiting: called where another process is at it, before it is waited for.
        """
        with self.slot.writing(waiting):
            self.look()
            yield

    def first(self, views: int) -> KeyedRows:
        """The same with no more than the first ``views`` of its views."""
        return KeyedRows(self.slot, self._keys[self.own], self.views[:views])

    def look(self) -> None:
        """See what the files hold now; ``damaged`` counts rows whose checksum is wrong."""
        self.table.load()
        self.damaged = self.table.cut
        for number, view in enumerate(self.views):
            rows = self.table.find(self._keys, view)
            known = np.flatnonzero(rows >= 0)
            wrong = known[~self.table.sound(rows[known])]
            rows[wrong] = -1
            self.damaged += len(wrong)
            self._rows[number] = rows

    def missing(self, view: int, among: Rows) -> Rows:
        """Those of the positions ``among`` to be run: one for each image that has no such view."""
        lack = among[self._rows[self._at(view), self.own[among]] < 0]
        once: Rows = lack[np.sort(np.unique(self.own[lack], return_index=True)[1])]
        return once

    def known(self, view: int) -> npt.NDArray[np.bool_]:
        """(n,) which images have this view."""
        found: npt.NDArray[np.bool_] = self._rows[self._at(view), self.own] >= 0
        return found

    def write(self, view: int, positions: Rows, rows: Bits) -> None:
        """Keep (N, row_bytes) as view ``view`` of the images at ``positions``."""
        images = self.own[positions]
        self._rows[self._at(view), images] = self.table.append(self._keys[images], view, rows)

    def read(self, views: Rows, positions: Rows) -> Bits:
        """(N, row_bytes): each position's view.

        Raises:
            IndexError: one of them was never written.
        """
        rows = self._rows[views - self.views.start, self.own[positions]]
        if (rows < 0).any():
            raise IndexError(f"image {positions[rows < 0][0]}: view {views[rows < 0][0]} is absent")
        return self.table.read(rows)

    def _at(self, view: int) -> int:
        return view - self.views.start
