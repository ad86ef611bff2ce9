"""One process a run folder: a lock that the system releases however its holder ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plusx.errors import UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FILE = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While it lasts, no other process has ``folder``.

    Raises:
        UsageError: another has it, or the folder cannot be locked.
    """
    path = folder / FILE
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        try:
            _take(file)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(file, 20).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"{folder}: another process (number {holder}) is at work in this run; wait until "
                "it is done, or stop it"
            ) from error
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot be locked ({error.strerror}); give a folder on another disk"
            ) from error
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(file)


if sys.platform == "win32":

    def _take(file: int) -> None:
        os.lseek(file, 1 << 20, os.SEEK_SET)  # a byte beyond the content, which stays readable
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(file, 0, os.SEEK_SET)

else:

    def _take(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
