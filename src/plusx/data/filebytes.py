"""A file's bytes: read once, whole, within limits; and what a person is told when that fails."""

from __future__ import annotations

import errno
import os
import stat

from plusx.data.reading import Limits


class Refused(Exception):
    """A file that is not what was asked for; the text is the reason, in a few words."""


def check_bytes(content: bytes, limits: Limits) -> bytes:
    """The same content, if it may be decoded.

    Raises:
        Refused: empty or too large.
    """
    if not content:
        raise Refused("is empty (0 bytes)")
    if len(content) > limits.file_bytes:
        raise Refused(f"has {len(content):,} bytes, more than the limit of {limits.file_bytes:,}")
    return content


def read_bytes(name: str | os.PathLike[str], limits: Limits) -> bytes:
    """The file's content, as it stood at one moment.

    Decoders work on these bytes, so that a file that changes or vanishes meanwhile cannot harm
    them, and no name can be taken for anything but a name.

    Raises:
        Refused: no regular file, empty, too large, or it changed while it was read.
    """
    try:
        status = os.stat(name)  # noqa: PTH116 (a tenth of the time of Path.stat)
        # Opening a pipe would wait for ever, so it is looked at first.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
            raise Refused(f"is {kind}, not a file")
        if status.st_size == 0:
            raise Refused("is empty (0 bytes)")
        if status.st_size > limits.file_bytes:
            raise Refused(
                f"has {status.st_size:,} bytes, more than the limit of {limits.file_bytes:,}"
            )
        with open(name, "rb", buffering=0) as file:
            content = file.read(status.st_size + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError) as error:
        raise Refused(_reason(error)) from error
    if len(content) != status.st_size or _version(status) != _version(after):
        raise Refused("changed while it was read")
    return content


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
