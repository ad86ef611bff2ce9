"""A map over many items in worker processes: one that crashes or hangs costs its item, no more."""

from __future__ import annotations

import itertools
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from plusx.data.isolated_worker import Failed, receive, send
from plusx.errors import PlusxError, UsageError

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16
"""Items handed over at a time; a worker holds at most twice as many."""

# OpenBLAS would start a thread for every core in every worker.
_START = (
    "import os, sys; os.environ.setdefault('OPENBLAS_NUM_THREADS', '1'); sys.path[:] = {path!r}; "
    "from plusx.data.isolated_worker import serve; serve({fd})"
)


@dataclass(frozen=True, slots=True)
class Crashed(Generic[T]):
    """An item whose worker died or was ended for taking too long, and why, in a few words."""

    item: T
    reason: str


def map_isolated(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    processes: int,
    timeout_s: float = 60.0,
    ahead: int = 1024,
) -> Iterator[R | Crashed[T]]:
    """``map(function, items)`` in worker processes, lazily and in order.

    A worker that dies (a fault in a native decoder, the system short of memory) or is silent for
    longer than ``timeout_s`` is replaced; the item it was at yields :class:`Crashed`, all others
    their results. Workers are fresh interpreters, not forks, and do not run the caller's main
    module, so that this is safe beside threads and in scripts without a ``__main__`` guard. They
    start with the first item, and end with the iterator (or with this process).

    Args:
        function: importable by name from a module that loads quickly (not the main module), or a
            ``functools.partial`` of such a one. What it raises is raised here, in its turn.
        items: small and picklable; drawn in this thread, as they are needed.
        processes: how many workers.
        timeout_s: the longest that one item may take, in seconds; starting a worker counts.
        ahead: at most so many items are under way or wait for the consumer.

    Raises:
        UsageError: ``processes`` or ``ahead`` is below 1, ``timeout_s`` not above 0, or
            ``function`` is of the main module.
        PlusxError: a worker cannot start.
    """
    for name, value in (("processes", processes), ("ahead", ahead)):
        if value < 1:
            raise UsageError(f"{name} {value!r} must be at least 1")
    if not timeout_s > 0:
        raise UsageError(f"timeout_s {timeout_s!r} must be above 0")
    target = getattr(function, "func", function)
    if getattr(target, "__module__", None) == "__main__":
        raise UsageError(f"function {target!r} must be importable by name, not of the main module")
    return _Pool(pickle.dumps(function), iter(items), processes, timeout_s, ahead).run()


class IsolatedCall(Generic[T, R]):
    """A function that runs in a worker process of its own, one item at a time.

    Like :func:`map_isolated` for callers that come with their items one by one. The worker starts
    with the first call, and ends with this object or this process. Safe in threads, which wait
    for one another: give each its own for calls side by side.

    Args:
        function: see :func:`map_isolated`.
        timeout_s: the longest that one item may take, in seconds; starting a worker counts.
    """

    def __init__(self, function: Callable[[T], R], *, timeout_s: float = 60.0) -> None:
        self._function = pickle.dumps(function)
        self._timeout_s = timeout_s
        self._worker: _Worker | None = None
        self._lock = threading.Lock()

    def __call__(self, item: T) -> R | Crashed[T]:
        """The result; what the function raises is raised here.

        Raises:
            PlusxError: the worker cannot start.
        """
        with self._lock:
            try:
                result = self._ask(item)
            except TimeoutError:
                self.close()
                return Crashed(item, f"took longer than {self._timeout_s:g} s")
            except (EOFError, OSError):
                status = self.close()
                return Crashed(item, f"its process {_died(status)}")
        if isinstance(result, Failed):
            raise result.error
        return cast("R", result)

    def close(self) -> int:
        """End the worker, if there is one; the next call starts another."""
        worker, self._worker = self._worker, None
        return 0 if worker is None else worker.end()

    def __del__(self) -> None:
        with suppress(Exception):
            self.close()

    def _ask(self, item: T) -> Any:
        if self._worker is None:
            self._worker = start_worker(self._function)
            self._worker.channel.settimeout(self._timeout_s)
            if (problem := receive(self._worker.channel)) is not None:
                self.close()
                raise PlusxError(f"a worker process cannot start: {problem}")
        send(self._worker.channel, [item])
        return receive(self._worker.channel)


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    ready: bool = False
    given: deque[tuple[int, Any]] = field(default_factory=deque)
    since: float = field(default_factory=time.monotonic)

    def end(self) -> int:
        """Stop it; its exit status."""
        self.channel.close()
        self.process.kill()
        return self.process.wait()


class _Pool:
    """The parent's side: hands out items, gathers results by number, replaces workers."""

    def __init__(
        self, function: bytes, items: Iterator[Any], processes: int, timeout_s: float, ahead: int
    ) -> None:
        self.function = function
        self.fresh = enumerate(items)
        self.again: deque[tuple[int, Any]] = deque()
        self.processes = processes
        self.timeout_s = timeout_s
        self.ahead = ahead
        self.drawn = 0
        self.done: dict[int, Any] = {}
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def run(self) -> Iterator[Any]:
        turn = 0
        try:
            while True:
                self._hand_out(turn)
                while turn in self.done:
                    result = self.done.pop(turn)
                    if isinstance(result, Failed):
                        raise result.error
                    turn += 1
                    yield result
                if turn < self.drawn:
                    self._gather()
                elif not self._hand_out(turn):
                    return
        finally:
            for worker in self.workers:
                worker.end()
            self.selector.close()

    def _hand_out(self, turn: int) -> bool:
        """Give items to workers that have little left; False where there are none to give."""
        gave = False
        for number in range(self.processes):
            worker = self.workers[number] if number < len(self.workers) else None
            if worker is not None and len(worker.given) > CHUNK:
                continue
            part = self._draw(turn)
            if not part:
                break
            if worker is None:
                worker = self._start()
            if not worker.given:
                worker.since = time.monotonic()
            worker.given += part
            with suppress(OSError):  # it has died: _gather sees that
                send(worker.channel, [item for _, item in part])
            gave = True
        return gave

    def _draw(self, turn: int) -> list[tuple[int, Any]]:
        part: list[tuple[int, Any]] = []
        while self.again and len(part) < CHUNK:
            part.append(self.again.popleft())
        room = min(CHUNK - len(part), turn + self.ahead - self.drawn)
        new = list(itertools.islice(self.fresh, max(room, 0)))
        self.drawn += len(new)
        return part + new

    def _start(self) -> _Worker:
        worker = start_worker(self.function)
        self.workers.append(worker)
        self.selector.register(worker.channel, selectors.EVENT_READ, worker)
        return worker

    def _gather(self) -> None:
        """Wait for results; deal with workers that died or are late."""
        busy = [worker for worker in self.workers if worker.given]
        oldest = min(worker.since for worker in busy)
        patience = max(0.0, oldest + self.timeout_s - time.monotonic())
        heard = {key.data for key, _ in self.selector.select(patience)}
        for worker in heard:
            try:
                self._receive(worker, receive(worker.channel))
            except (EOFError, OSError):
                self._replace(worker, late=False)
        now = time.monotonic()
        for worker in busy:
            if worker not in heard and worker.since + self.timeout_s <= now:
                self._replace(worker, late=True)

    def _receive(self, worker: _Worker, message: Any) -> None:
        worker.since = time.monotonic()
        if not worker.ready:
            worker.ready = True
            if message is not None:
                raise PlusxError(f"a worker process cannot start: {message}")
            return
        number, _ = worker.given.popleft()
        self.done[number] = message

    def _replace(self, worker: _Worker, *, late: bool) -> None:
        self.selector.unregister(worker.channel)
        self.workers.remove(worker)
        status = worker.end()
        if not worker.ready and not late:
            raise PlusxError(f"a worker process cannot start: it {_died(status)}")
        if worker.given:
            number, item = worker.given.popleft()
            self.again.extend(worker.given)
            reason = (
                f"took longer than {self.timeout_s:g} s" if late else f"its process {_died(status)}"
            )
            self.done[number] = Crashed(item, reason)


def start_worker(function: bytes) -> _Worker:
    """A fresh interpreter that serves a pickled function; its first message says whether it can."""
    ours, theirs = socket.socketpair()
    with theirs:
        code = _START.format(path=sys.path, fd=theirs.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # native decoders write there
            pass_fds=(theirs.fileno(),),
        )
    with suppress(OSError):
        send(ours, function)
    return _Worker(process, ours)


def _died(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    if -status == signal.SIGKILL:
        return "was killed (memory short?)"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"crashed ({name})"
