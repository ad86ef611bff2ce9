"""The worker's side of ``plusx.data.isolated``, and the messages between the two."""

from __future__ import annotations

import pickle
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_LENGTH = struct.Struct("!I")


class Failed:
    """What the function raised, on its way to the parent."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def serve(fd: int) -> None:
    """The worker's side: takes lists of items from the socket ``fd``, answers one by one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    _be_expendable()
    channel = socket.socket(fileno=fd)
    try:
        function = pickle.loads(receive(channel))
    except EOFError:
        return
    except Exception as error:
        send(channel, f"{type(error).__name__}: {error}")
        return
    send(channel, None)
    with suppress(EOFError, OSError):  # the parent is done
        while True:
            for item in receive(channel):
                send(channel, _try(function, item))


def _try(function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return Failed(RuntimeError(f"{type(error).__name__}: {error}"))
        return Failed(error)


def _be_expendable() -> None:
    """No core files; and where memory runs out, Linux ends this process before others."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


def send(channel: socket.socket, value: Any) -> None:
    """One message, pickled, behind its length."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket) -> Any:
    """The next message.

    Raises:
        EOFError: the other side has ended.
    """
    (length,) = _LENGTH.unpack(_exactly(channel, _LENGTH.size))
    return pickle.loads(_exactly(channel, length))


def _exactly(channel: socket.socket, length: int) -> bytes:
    parts = []
    while length:
        part = channel.recv(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
