"""Decoding that outlives its decoders: those that may take a process down run in one of their own.

JPEG, PNG, GIF, BMP and WebP are decoded here: their decoders have been hardened for decades, and
none of some 15,000 damaged files crashed one (``tests/data/test_fuzz.py``). Everything else
(TIFF, AVIF, HEIC, DICOM's many codecs) goes to a worker process, at about a millisecond a
megapixel; a file that ends or hangs the worker is one unreadable image.
"""

from __future__ import annotations

import threading

import numpy as np

from plusx.data.decode import UNNAMED, read_image
from plusx.data.filebytes import open_bytes
from plusx.data.isolated import Crashed, IsolatedCall
from plusx.data.reading import Reading
from plusx.errors import UnreadableImage

HARDENED = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM")
"""How a file of a format begins whose decoder runs in this process; WebP is looked for apart."""

Asked = tuple[str | bytes, int, Reading]
Told = tuple[np.ndarray, list[str]]

_own = threading.local()


def read_safely(
    path: str | bytes, *, channels: int, reading: Reading, timeout_s: float = 60.0
) -> Told:
    """``read_image`` of a file or of its content, wherever it is safe; the image, and remarks.

    Args:
        path: the file, or its content.
        channels: see ``read_image``.
        reading: see ``read_image``.
        timeout_s: the longest that a decoder in a worker may take, in seconds; of one thread's
            calls the first says.

    Raises:
        UnreadableImage: it cannot be read, or its decoder crashed or hung.
    """
    asked = (path, channels, reading)
    if _hardened(path):
        return read_noting(asked)
    call = getattr(_own, "call", None)
    if call is None:  # one worker for each thread, so that threads don't wait for one another
        call = _own.call = IsolatedCall[Asked, Told](read_noting, timeout_s=timeout_s)
    found = call(asked)
    if isinstance(found, Crashed):
        name = UNNAMED if isinstance(path, bytes) else path
        raise UnreadableImage(name, f"cannot be decoded ({found.reason})")
    image, notes = found
    return image, notes


def read_noting(asked: Asked) -> Told:
    """``read_image`` for a worker: one argument, one result."""
    path, channels, reading = asked
    notes: list[str] = []
    return read_image(path, channels=channels, reading=reading, notes=notes), notes


def _hardened(path: str | bytes) -> bool:
    """By content; a file that cannot be opened is refused in this process as well."""
    try:
        if isinstance(path, bytes):
            start = path[:16]
        else:
            with open_bytes(path) as file:
                start = file.read(16)
    except (OSError, ValueError):
        return True
    return start.startswith(HARDENED) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")
