"""What a job says while it works: lines, progress bars, and the run's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Tick = Callable[[int, str], None]
"""(items done since the last call, text to show beside the bar)."""


class Talk:
    """Lines and bars on stderr, lines also in the log of the run.

    Args:
        quiet: say nothing on stderr; the log is still written.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.notes: list[str] = []
        self.seconds: dict[str, float] = {}
        self._log: Path | None = None
        self._pending: list[str] = []

    def log_to(self, path: Path) -> None:
        """Write the log to ``path`` from now on, what was said before included."""
        self._log = path
        self._write(f"log of {path.parent.name}")

    def say(self, text: str) -> None:
        """One line of information."""
        self._write(text)
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Something the user should know about the result; it also stands in the report. The same
        text is said once."""
        if text not in self.notes:
            self.notes.append(text)
            self.say(f"note: {text}")

    @contextmanager
    def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
        """Time a phase; with a bar (rate, time left) where stderr is a terminal."""
        started = time.perf_counter()
        if total and not self.quiet and sys.stderr.isatty():
            with _bar(label, total) as tick:
                yield tick
        else:
            yield lambda n, text: None
        seconds = time.perf_counter() - started
        self.seconds[label] = round(self.seconds.get(label, 0.0) + seconds, 3)
        self._write(f"{label}: {seconds:.1f} s")

    @contextmanager
    def counting(self, label: str, *, shown: bool = True) -> Iterator[Tick]:
        """Like ``phase`` for an unknown number of items: a count and a rate."""
        if not shown or self.quiet or not sys.stderr.isatty():
            yield lambda n, text: None
            return
        with _bar(label, None) as tick:
            yield tick

    def _write(self, text: str) -> None:
        self._pending.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        if self._log is None:
            return
        # backslashreplace: file names are bytes, and some are no UTF-8
        with self._log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(self._pending)
        self._pending.clear()


@contextmanager
def _bar(label: str, total: int | None) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft
    from rich.table import Column

    def whole() -> Column:  # on a narrow terminal the bar shrinks, not the words
        return Column(no_wrap=True)

    columns = (
        TextColumn("{task.description}", table_column=whole()),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=whole()),
        TextColumn("{task.fields[rate]}", table_column=whole()),
        TimeLeft(compact=True, table_column=whole()),
        TextColumn("left", table_column=whole()),
        TextColumn("{task.fields[text]}", table_column=whole()),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(label, total=total, rate="", text="")
        started, done = time.perf_counter(), 0

        def tick(n: int, text: str = "") -> None:
            nonlocal done
            done += n
            rate = done / max(1e-9, time.perf_counter() - started)
            progress.update(task, advance=n, rate=f"{rate:.0f}/s", text=text)

        yield tick
