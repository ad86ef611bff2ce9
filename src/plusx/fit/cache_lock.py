"""Advisory locks on files, which the system releases however a process ends."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class FileLock:
    """A lock on the file ``path``, which is made where it is absent.

    It belongs to this object: two in one process exclude each other as two processes do.

    Raises:
        OSError: the file cannot be made, or its file system knows no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._close = weakref.finalize(self, os.close, self._file)

    def take(self, *, shared: bool = False, wait: bool = True) -> bool:
        """Whether it could be taken; with ``wait`` it returns only when it could."""
        try:
            _take(self._file, shared=shared, wait=wait)
        except (BlockingIOError, PermissionError):
            return False
        return True

    @property
    def stands(self) -> bool:
        """Whether the file is still the one at ``path``: a folder may be removed and made anew
        while a lock in it is waited for."""
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Let go; more than once does nothing."""
        self._close()


@contextmanager
def locked(lock: FileLock) -> Iterator[None]:
    """``lock``, which is taken already, until the end of the block."""
    try:
        yield
    finally:
        lock.release()


if sys.platform == "win32":

    def _take(file: int, *, shared: bool, wait: bool) -> None:
        # No shared locks here; a file that is mapped cannot be removed, which serves as one.
        while not shared:
            try:
                msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:
                if not wait:
                    raise BlockingIOError from None
            else:
                return

else:

    def _take(file: int, *, shared: bool, wait: bool) -> None:
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, how if wait else how | fcntl.LOCK_NB)
