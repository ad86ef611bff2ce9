"""Files that are never half written: made beside their place, then renamed."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A name beside ``path`` to write to; at the end of the block it takes the place of ``path``.

    Where the block fails, ``path`` stays as it was and nothing is left beside it.

    Args:
        path: of the file.
        durable: also against a power cut: what was written is on the disk before it takes its
            place, and so is the new name when the block is left.

    Raises:
        OSError: the new file cannot take its place.
    """
    beside = path.with_name(f".plusx-{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield beside
        if durable:
            _flush(beside, os.O_RDWR)
        beside.replace(path)
        if durable and sys.platform != "win32":  # Windows has no handle of a folder to flush
            _flush(path.parent, os.O_RDONLY)
    finally:
        with suppress(OSError):  # it took its place, or could never be made
            beside.unlink()


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
