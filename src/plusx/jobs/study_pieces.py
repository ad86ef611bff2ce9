"""The pieces of a long study, worked off by one process or several, with progress and time left.

Each finished piece is kept (see :class:`plusx.science.ledger.Ledger`): a study that was stopped
goes on when it is asked for again, and a second machine on the same folder shares the work.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.errors import UsageError
from plusx.jobs import wording
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count
from plusx.science.ledger import Key, Ledger

Do = Callable[[Key, Callable[[int], None]], Any]
"""(key, tick) -> JSON value; ``tick`` gets the cost done. Picklable where there are processes."""

POLL_S = 0.5


@dataclass(frozen=True)
class Pieces:
    """What there is to do.

    Attributes:
        study: what all pieces have in common (see ``Ledger``).
        keys: of every piece, in the order in which they are done.
        costs: of every piece, in one unit: what its time goes with.
        label: key -> a few words, such as ``plain-56, seed 0``.
        do: does one.
    """

    study: Key
    keys: Sequence[Key]
    costs: Sequence[int]
    label: Callable[[Key], str]
    do: Do


@dataclass(frozen=True)
class Crew:
    """Who works.

    Attributes:
        processes: how many share the pieces.
        threads: of each; None divides the cores.

    Raises:
        UsageError: fewer than one of either.
    """

    processes: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("processes", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name} {value} must be at least 1")

    def threads_each(self) -> int:
        """Threads of each process."""
        return self.threads or max(1, cpu_count() // self.processes)


def work_off(pieces: Pieces, folder: Path, crew: Crew, talk: Talk) -> list[Any]:
    """The value of every piece, in order; what is finished below ``folder`` is not done again.

    Raises:
        Whatever a piece raises; what other pieces gave is kept.
    """
    import torch

    ledger = Ledger(folder, pieces.study)
    course = _Course(pieces, ledger, talk)
    if course.finished:
        talk.say(f"{course.finished} of {len(pieces.keys)} pieces were finished before: {folder}")
    left = sum(course.costs.values())
    with talk.phase("working", left) as bar:
        course.bar = bar
        if crew.processes > 1 and len(course.costs) > 1:
            _together(pieces, folder, crew, course)
        torch.set_num_threads(crew.threads_each())
        return ledger.work(pieces.keys, course.do, tick=lambda _: course.look())


class _Course:
    """How far it is: said line by line, shown as a bar."""

    def __init__(self, pieces: Pieces, ledger: Ledger, talk: Talk) -> None:
        self._pieces, self._ledger, self._talk = pieces, ledger, talk
        pairs = zip(pieces.keys, pieces.costs, strict=True)
        left = [(i, c) for i, (key, c) in enumerate(pairs) if ledger.get(key) is None]
        self.costs = dict(left)
        self.finished = len(pieces.keys) - len(left)
        self.bar: Callable[[int, str], None] = lambda n, text: None
        self._total, self._began = sum(self.costs.values()), time.perf_counter()

    def do(self, key: Key) -> Any:
        """One piece, in this process."""
        self.look()
        self.bar(0, self._pieces.label(key))
        return self._pieces.do(key, lambda n: self.bar(n, self._pieces.label(key)))

    def look(self, *, advance: bool = False) -> None:
        """Say what was finished since the last look, here or elsewhere."""
        for index in list(self.costs):
            key = self._pieces.keys[index]
            if self._ledger.get(key) is None:
                continue
            cost = self.costs.pop(index)
            self.finished += 1
            if advance:
                self.bar(cost, self._pieces.label(key))
            left, spent = sum(self.costs.values()), time.perf_counter() - self._began
            rest = spent * left / max(1, self._total - left)
            self._talk.say(
                f"{self._pieces.label(key)}: {self.finished} of {len(self._pieces.keys)} done"
                + (f", about {wording.duration(rest)} left" if self.costs else "")
            )


def _together(pieces: Pieces, folder: Path, crew: Crew, course: _Course) -> None:
    """Several processes on one ledger; what they leave, for whatever reason, is left."""
    spawn = multiprocessing.get_context("spawn")
    arguments = (folder, pieces.study, pieces.keys, pieces.do, crew.threads_each())
    several = [spawn.Process(target=_work, args=arguments, daemon=True)
               for _ in range(min(crew.processes, len(course.costs)))]  # fmt: skip
    try:
        for one in several:
            one.start()
        while any(one.is_alive() for one in several):
            time.sleep(POLL_S)
            course.look(advance=True)
    finally:
        for one in several:
            one.terminate()
            one.join()


def _work(folder: Path, study: Key, keys: Sequence[Key], do: Do, threads: int) -> None:
    """One process of several: all pieces that nobody else is at work on."""
    import torch

    from plusx.errors import PlusxError

    torch.set_num_threads(threads)
    ledger, parent = Ledger(folder, study), multiprocessing.parent_process()

    def tick(_: int) -> None:
        if parent is not None and not parent.is_alive():
            sys.exit(1)  # nobody waits for it any more

    def once(key: Mapping[str, Any]) -> Any:
        return do(key, tick)

    try:
        ledger.work(keys, once, tick=lambda _: None)
    except (PlusxError, OSError, KeyboardInterrupt):
        sys.exit(1)  # the parent meets the same piece, and says it
