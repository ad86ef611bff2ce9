"""Files that are never half written: made beside their place, then renamed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; at the end of the block it takes the place of ``path``.

    Where the block fails, ``path`` stays as it was and nothing is left beside it.

    Raises:
        OSError: the new file cannot take its place.
    """
    beside = path.with_name(f".plusx-{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield beside
        beside.replace(path)
    finally:
        with suppress(OSError):  # it took its place, or could never be made
            beside.unlink()
