"""The folder of what frozen networks gave, kept from run to run.

Each entry is a folder ``NAME/`` with ``about.json`` (what it holds and all that its values depend
on but the images), the rows, and two locks: ``writing`` is held by the one process that adds rows,
``used`` is shared by all that read them, so that nothing in use is removed. Entries are found by
what they depend on and, among those, by how many of the wanted images they hold: a data set that
was moved or to which images were added finds its own again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx.atomic import replacing
from plusx.fit.cache_rows import RECORD, Keys, RowTable
from plusx.lock import FileLock, locked

FORMAT = 1
"""To be raised when the files mean something else: entries of another format are not used."""

FREE = 0.9
"""Share of the free disk that may be filled."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a system says of a disk, or of a share of it, that is full."""

SHARED = 0.1
"""An entry that holds less than this share of the wanted images belongs to another data set."""


@dataclass(frozen=True)
class About:
    """What an entry is.

    Attributes:
        kind: ``features``, ``plain`` (activations without augmentation) or ``views``.
        depends: all that the values depend on but the images; plain JSON.
        row_bytes: of one image and view.
        net: for a person: the network.
        data: for a person: the data set's name.
    """

    kind: str
    depends: Mapping[str, Any]
    row_bytes: int
    net: str
    data: str

    @property
    def key(self) -> str:
        """16 hexadecimal digits that stand for kind, ``depends`` and ``row_bytes``."""
        said = json.dumps([FORMAT, self.kind, self.depends, self.row_bytes], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Content of ``about.json``."""
        return {"format": FORMAT, "key": self.key, **vars(self)}


@dataclass(frozen=True)
class Entry:
    """An entry as it lies on disk.

    Attributes:
        folder: of it.
        about: content of its ``about.json``; empty where it is damaged.
        size_bytes: of all its files.
        used: when a run last used it, seconds since 1970.
    """

    folder: Path
    about: Mapping[str, Any]
    size_bytes: int
    used: float

    @property
    def counts(self) -> tuple[int, int]:
        """Number of images and of views; both 0 where it is damaged."""
        row_bytes = self.about.get("row_bytes")
        if not isinstance(row_bytes, int) or row_bytes < 1:
            return 0, 0
        return RowTable(self.folder, row_bytes).summary()

    def remove(self) -> bool:
        """Remove it, unless a process uses it; whether it is gone."""
        try:
            used = FileLock(self.folder / "used")
        except OSError:  # something else than an entry, or no locks here
            shutil.rmtree(self.folder, ignore_errors=True)
            return not self.folder.exists()
        if not used.take(wait=False):
            used.release()
            return False
        with locked(used):
            shutil.rmtree(self.folder, ignore_errors=True)
        return not self.folder.exists()


class CacheSlot:
    """An entry in use: nobody removes it until ``release``.

    Attributes:
        folder: of the entry.
        table: its rows.
    """

    def __init__(self, folder: Path, about: About, used: FileLock) -> None:
        self.folder = folder
        self.table = RowTable(folder, about.row_bytes)
        self._used = used

    @contextmanager
    def writing(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Be the one process that adds rows; look at the table again inside the block.

        Args:
            waiting: called where another process is at it, before it is waited for.
        """
        lock = FileLock(self.folder / "writing")
        if not lock.take(wait=False):
            waiting()
            lock.take()
        with locked(lock):
            yield

    def release(self) -> None:
        """Others may remove it now."""
        self._used.release()

    def remove(self) -> None:
        """Remove it, unless another process uses it."""
        self.release()
        Entry(self.folder, {}, 0, 0.0).remove()


class TrunkCache:
    """All entries below ``folder``.

    Args:
        folder: made when something is kept.
        most_bytes: what all entries may take together.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes

    def entries(self) -> list[Entry]:
        """All of them, the last used first."""
        found = []
        for place in self.folder.glob("*/"):
            with suppress(OSError):  # it may be removed meanwhile
                size = sum(file.stat().st_size for file in place.iterdir())
                about = place / "about.json"
                used = (about if about.exists() else place).stat().st_mtime
                found.append(Entry(place, _read(about), size, used))
        return sorted(found, key=lambda entry: -entry.used)

    def open(self, about: About, keys: Keys) -> CacheSlot:
        """The entry for ``about`` that holds most of the images ``keys``, or a new one.

        Raises:
            OSError: the folder cannot be written, or its file system knows no locks.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            place = self._own(about, keys)
            place.mkdir(exist_ok=True)
            try:
                used = FileLock(place / "used")
            except FileNotFoundError:  # removed at this moment
                continue
            used.take(shared=True)
            if used.stands:
                break
            used.release()
        if not _is(place, about):
            lock = FileLock(place / "writing")
            lock.take()
            with locked(lock):
                if not _is(place, about):  # another process may have made it meanwhile
                    _make(place, about)
        os.utime(place / "about.json")
        return CacheSlot(place, about, used)

    def holds(self, about: About, keys: Keys) -> int:
        """How many of the images ``keys`` the entry has that ``open`` would give; none is made."""
        return self._nearest(about, np.unique(keys))[1]

    def make_room(self, wanted: int, mine: list[Path]) -> int:
        """Remove what was not used for longest until ``wanted`` more bytes fit.

        Args:
            wanted: bytes to be added.
            mine: entries that stay.

        Returns:
            How many bytes may be added, perhaps fewer: what ``most_bytes`` leaves, and nine
            tenths of the disk's free space.
        """
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries)
        allowed = min(self.most_bytes - total, self._free())
        for entry in reversed(entries):
            if allowed >= wanted:
                break
            if entry.folder not in mine and entry.remove():
                total -= entry.size_bytes
                allowed = min(self.most_bytes - total, self._free())
        return max(0, allowed)

    def clear(self, older_than_s: float = 0.0) -> tuple[list[Entry], list[Entry]]:
        """Remove the entries last used so long ago; those that went, and those in use."""
        chosen = [e for e in self.entries() if time.time() - e.used >= older_than_s]
        went = [(entry, entry.remove()) for entry in chosen]
        return [e for e, gone in went if gone], [e for e, gone in went if not gone]

    def _free(self) -> int:
        return int(FREE * shutil.disk_usage(self.folder).free)

    def _own(self, about: About, keys: Keys) -> Path:
        wanted = np.unique(keys)
        name = hashlib.sha256(wanted.tobytes()).hexdigest()[:8]
        return self._nearest(about, wanted)[0] or self.folder / f"{about.key}-{name}"

    def _nearest(self, about: About, wanted: Keys) -> tuple[Path | None, int]:
        """The entry that holds most of these different images, if it holds its share of them, and
        how many."""
        best, most = None, 0
        for place in sorted(self.folder.glob(f"{about.key}-*/")):
            with suppress(OSError, ValueError):
                size = (place / "index.bin").stat().st_size // RECORD.itemsize
                held = np.fromfile(place / "index.bin", RECORD, size)["key"]
                shared = int(np.isin(wanted, held).sum())
                if shared >= max(1, most, SHARED * len(wanted)):
                    best, most = place, shared
        return best, most


def _read(path: Path) -> dict[str, Any]:
    """Content of an ``about.json``; empty where it is absent or damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def _is(place: Path, about: About) -> bool:
    return _read(place / "about.json").get("key") == about.key


def _make(place: Path, about: About) -> None:
    """State what an entry is; rows of something else that lie there are not its own."""
    for name in ("rows.bin", "index.bin"):
        (place / name).unlink(missing_ok=True)
    with replacing(place / "about.json") as beside:
        beside.write_text(json.dumps(about.to_json(), indent=1), encoding="utf-8")
