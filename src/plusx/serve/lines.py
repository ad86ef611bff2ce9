"""One line of JSON a request. A log that cannot be written never stops an answer."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO


class Lines:
    """Writes to a file, or to stderr.

    Args:
        path: appended to; None for stderr.

    Attributes:
        lost: lines that could not be written, because a disk is full or a pipe is closed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._file: TextIO = sys.stderr if path is None else path.open("a", encoding="utf-8")
        self.lost = 0

    def write(self, event: str, **more: Any) -> None:
        """One event; ``None`` values are left out."""
        now = time.time()
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        )
        told = {name: value for name, value in more.items() if value is not None}
        line = json.dumps({"time": stamp, "event": event, **told})
        with self._lock:
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost += 1
        if self._path is None or self.lost > 1:
            return
        with suppress(OSError, ValueError):
            print(f"{self._path}: cannot be written ({error}); request lines are lost until it can",
                  file=sys.stderr)  # fmt: skip
