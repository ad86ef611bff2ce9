"""Images from many requests, gathered into one forward: threads of their own run the network."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Waiting(Generic[T]):
    """One image, and who waits for it."""

    image: Image
    answer: Future[T]


class Batcher(Generic[T]):
    """Runs ``work`` on batches of what is submitted, in the order it came.

    The first image of a batch waits at most ``max_wait_ms`` for others; while the network works,
    the next batch gathers by itself, so that under load nobody waits in vain.

    Args:
        work: (N, C, S, S) float32 -> N answers; runs in the batcher's threads.
        lanes: how many of them, each with a batch of its own.
        max_batch: N at most.
        max_wait_ms: see above.
        started: called once in each thread before any work.
        seen: told of each batch: its size and the seconds that it took.
    """

    def __init__(
        self,
        work: Callable[[npt.NDArray[np.float32]], Sequence[T]],
        *,
        lanes: int = 1,
        max_batch: int,
        max_wait_ms: float,
        started: Callable[[], None] = lambda: None,
        seen: Callable[[int, float], None] = lambda n, s: None,
    ) -> None:
        self._work, self._max_batch, self._max_wait = work, max_batch, max_wait_ms / 1000
        self._started, self._seen = started, seen
        self._queue: queue.SimpleQueue[Waiting[T] | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"plusx-network-{lane}", daemon=True)
            for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, image: Image) -> Future[T]:
        """Queue one image (C, S, S). A future that is cancelled before its batch begins is left
        out."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        waiting = Waiting(image, Future[T]())
        self._queue.put(waiting)
        return waiting.answer

    def close(self) -> None:
        """Finish what is queued, then end the threads."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        self._started()
        ended = False
        while not ended:
            batch, ended = self._gather()
            batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if batch:
                self._answer(batch)

    def _gather(self) -> tuple[list[Waiting[T]], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        batch = [first]
        until = time.monotonic() + self._max_wait
        while len(batch) < self._max_batch:
            try:
                left = until - time.monotonic()
                one = self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if one is None:
                return batch, True
            batch.append(one)
        return batch, False

    def _answer(self, batch: list[Waiting[T]]) -> None:
        began = time.perf_counter()
        try:
            answers = self._work(np.stack([one.image for one in batch]))
        except Exception as error:  # those who wait are told; the next batch has its own chance
            for one in batch:
                one.answer.set_exception(error)
            return
        self._seen(len(batch), time.perf_counter() - began)
        for one, answer in zip(batch, answers, strict=True):
            one.answer.set_result(answer)
