"""A map over many items in threads: results in order, a bounded number under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

from plusx.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 1024
"""More than these only use up what the system has of them."""


def map_ordered(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int, chunk: int = 4
) -> Iterator[R]:
    """``map(function, items)`` in threads, lazily, with at most ``ahead`` results in hand.

    Items are drawn in the consumer's thread, and only as they are needed. Inside the threads
    torch works on one core each: with more, every thread would start its own team and the teams
    would fight for the cores (measured on 2 busy cores: a resize of 1.5 ms takes 50 ms). When
    the consumer stops early, fails or closes the iterator, what is under way ends with its
    current item.

    Args:
        function: called in the threads; what it raises is raised here, in its turn.
        items: any iterable, endless ones included.
        threads: how many work at once.
        ahead: how many items may be under way or waiting for the consumer.
        chunk: how many items are handed over at a time.

    Raises:
        UsageError: fewer than one thread, or more than ``MOST_THREADS``.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads {threads!r} must lie between 1 and {MOST_THREADS}")
    return _map(function, iter(items), threads, max(1, ahead // chunk), chunk)


def _map(
    function: Callable[[T], R], items: Iterator[T], threads: int, depth: int, chunk: int
) -> Iterator[R]:
    stop = threading.Event()

    def work(part: list[T]) -> tuple[list[R], Exception | None]:
        done: list[R] = []
        for item in part:
            if stop.is_set():
                break
            try:
                done.append(function(item))
            except Exception as error:  # raised below, after the results before it
                return done, error
        return done, None

    pool = ThreadPoolExecutor(threads, thread_name_prefix="plusx-data")
    under_way: deque[Future[tuple[list[R], Exception | None]]] = deque()
    try:
        _one_core_each(pool, threads)
        while True:
            while len(under_way) < depth and (part := list(islice(items, chunk))):
                under_way.append(pool.submit(work, part))
            if not under_way:
                return
            results, error = under_way.popleft().result()
            yield from results
            if error is not None:
                raise error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _one_core_each(pool: ThreadPoolExecutor, threads: int) -> None:
    """Let torch use one core in each of the pool's threads and as many as before elsewhere.

    ``torch.set_num_threads`` sets the calling thread's number, and also the one that every other
    thread takes when it first asks: so each thread of the pool asks, then sets its own, and at
    last the common number is set back here.
    """
    before = torch.get_num_threads()
    started = threading.Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    try:
        for _ in range(threads):
            pool.submit(start)
        started.wait()
    except BaseException:  # an interrupt, or no more threads to be had: let the others go
        started.abort()
        raise
    torch.set_num_threads(before)
