"""uvicorn's HTTP/1.1 protocol, less patient: a connection that sends no request is closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Impatient(H11Protocol):
    """Closes a connection whose headers have not come within ``header_s`` seconds of its start or
    of its last answer, one whose answers are not taken within ``taken_s``, and new ones while
    ``most`` are open. uvicorn has no such limits: it waits for ever for who does not read."""

    def __init__(self, *args: Any, header_s: float, taken_s: float, most: int, **more: Any) -> None:
        super().__init__(*args, **more)
        self._header_s, self._taken_s, self._most = header_s, taken_s, most
        self._deadline: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        full = len(self.connections) >= self._most
        super().connection_made(transport)
        if full:
            transport.abort()
        else:
            self._arm()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        before = self.cycle
        if self._deadline is None and (before is None or before.response_complete):
            self._arm()
        super().data_received(data)
        if self.cycle is not before:
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._disarm()
        self._read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """See asyncio: much of an answer has not been taken yet."""
        super().pause_writing()
        self._watch_reader()

    def on_response_complete(self) -> None:
        """See uvicorn: the answer is written, though perhaps not taken."""
        super().on_response_complete()
        self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """See uvicorn."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if self._unread is None and self.transport.get_write_buffer_size() > 0:
            self._unread = self.loop.call_later(self._taken_s, self._never_read)

    def _never_read(self) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._header_s, self._too_late)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()
