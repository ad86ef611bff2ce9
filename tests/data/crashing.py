"""Functions for worker processes to choke on; importable there by name."""

from __future__ import annotations

import ctypes
import os
import time


def choke(item: int) -> int:
    """A fault on 7, 57, 107, ...; a hang on 33; an exit on 44; else twice the item."""
    if item % 50 == 7:
        ctypes.string_at(0)
    if item == 33:
        time.sleep(1000)
    if item == 44:
        os._exit(3)
    return 2 * item


def refuse(item: int) -> int:
    """Raises on 5."""
    if item == 5:
        raise ValueError("five")
    return item


def process_of(item: int) -> int:
    """Which process this is."""
    return os.getpid()
