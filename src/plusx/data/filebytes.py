"""An image's bytes: read once, whole, within limits; and what a person is told when that fails.

The one place that knows where they lie: in a file of their own, or in a tar file (see
:mod:`plusx.data.tar_index`).
"""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

from plusx.data.reading import Limits
from plusx.data.tar_index import find_in_tar, in_tar
from plusx.errors import DataError


class Refused(Exception):
    """A file that is not what was asked for; the text is the reason, in a few words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image's bytes lie.

    Attributes:
        file: that holds them.
        start: where they begin in it.
        size: how many they are.
        mtime_ns: when the file was last changed.
        version: of the file; another one when it was changed.
        mode: of the file, as ``os.stat`` has it.
    """

    file: str
    start: int
    size: int
    mtime_ns: int
    version: tuple[int, int, int]
    mode: int


def locate(name: str | os.PathLike[str]) -> Place:
    """Look where an image lies, reading nothing of it.

    Raises:
        Refused: in a tar file that cannot be used.
        OSError: there is no such file, or none that may be read.
        ValueError: this is no name.
    """
    text = os.fspath(name)
    inside = in_tar(text)
    if inside is None:
        status = os.stat(text)  # noqa: PTH116 (a tenth of the time of Path.stat)
        file, start, size = text, 0, status.st_size
    else:
        file = inside[0]
        try:
            status, start, size = find_in_tar(*inside)
        except DataError as error:
            raise Refused(f"cannot be read ({error})") from error
    return Place(file, start, size, status.st_mtime_ns, _version(status), status.st_mode)


def open_bytes(name: str | os.PathLike[str]) -> BinaryIO:
    """An image's bytes to read from, and from nothing beyond them.

    Raises:
        OSError: there is no such file, or none that may be read.
        ValueError: this is no name.
    """
    text = os.fspath(name)
    if in_tar(text) is None:
        return open(text, "rb")
    try:
        place = locate(text)
    except Refused as refusal:
        raise OSError(errno.EIO, str(refusal), text) from refusal
    return io.BufferedReader(_Part(place))


def check_bytes(content: bytes, limits: Limits) -> bytes:
    """The same content, if it may be decoded.

    Raises:
        Refused: empty or too large.
    """
    _check_size(len(content), limits)
    return content


def read_bytes(name: str | os.PathLike[str], limits: Limits) -> bytes:
    """An image's content, as it stood at one moment.

    Decoders work on these bytes, so that a file that changes or vanishes meanwhile cannot harm
    them, and no name can be taken for anything but a name.

    Raises:
        Refused: no regular file, empty, too large, or it changed while it was read.
    """
    try:
        place = locate(name)
        # Opening a pipe would wait for ever, so it is looked at first.
        if not stat.S_ISREG(place.mode):
            kind = "a folder" if stat.S_ISDIR(place.mode) else "a device or pipe"
            raise Refused(f"is {kind}, not a file")
        _check_size(place.size, limits)
        with open(place.file, "rb", buffering=0) as file:
            if place.start:
                file.seek(place.start)
            content = file.read(place.size)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise Refused(_reason(error)) from error
    if len(content) != place.size or place.version != _version(after):
        raise Refused("changed while it was read")
    return content


class _Part(io.RawIOBase):
    """The bytes of one place, as a file of their own."""

    def __init__(self, place: Place) -> None:
        self._file = open(place.file, "rb", buffering=0)  # noqa: SIM115 (closed in close)
        self._place = place
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = max(0, self._place.size - self._at)
        self._file.seek(self._place.start + self._at)
        count = self._file.readinto(memoryview(buffer)[:left]) or 0
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._place.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


def _check_size(size: int, limits: Limits) -> None:
    if size == 0:
        raise Refused("is empty (0 bytes)")
    if size > limits.file_bytes:
        raise Refused(f"has {size:,} bytes, more than the limit of {limits.file_bytes:,}")


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "is a symbolic link that leads back to itself"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or type(error).__name__})"
    return f"cannot be read ({error})"
