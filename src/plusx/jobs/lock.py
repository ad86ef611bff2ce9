"""One process a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plusx.errors import UsageError
from plusx.lock import FileLock, locked

FILE = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While it lasts, no other process has ``folder``.

    Raises:
        UsageError: another has it, or the folder cannot be locked.
    """
    try:
        lock = FileLock(folder / FILE)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from error
    with locked(lock):
        try:
            free = lock.take(wait=False)
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot be locked ({error.strerror}); give a folder on another disk"
            ) from error
        if not free:
            raise UsageError(
                f"{folder}: another process (number {lock.holder}) is at work in this run; wait "
                "until it is done, or stop it"
            )
        lock.sign()
        yield
