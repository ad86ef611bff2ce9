"""Ctrl-C and SIGTERM: the first is heeded when the step is done, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = b"\nstopping after this step, with a checkpoint (once more: at once)\n"


class Stop:
    """Whether training shall end.

    Attributes:
        asked: it shall, after the step in hand.
    """

    def __init__(self) -> None:
        self.asked = False
        self._patient = False

    @contextmanager
    def listening(self, *, quiet: bool = False) -> Iterator[None]:
        """While it lasts, both signals raise KeyboardInterrupt, but for ``patiently``.

        Signals that are ignored (as under nohup) stay so. Outside the main thread, where signals
        cannot be caught, nothing changes.

        Args:
            quiet: say nothing when one is heeded later.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def hear(number: int, frame: FrameType | None) -> None:
            if not self._patient or self.asked:
                raise KeyboardInterrupt
            self.asked = True
            if not quiet:
                os.write(2, _SAID)  # print is not for signal handlers

        before: dict[signal.Signals, Any] = {}
        for one in _SIGNALS:
            if signal.getsignal(one) is not signal.SIG_IGN:
                before[one] = signal.signal(one, hear)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """While it lasts, the first signal only sets ``asked``."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
