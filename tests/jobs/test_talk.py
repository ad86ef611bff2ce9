"""What is said, where, and how often."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from plusx.jobs.talk import Talk


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """stderr is a terminal; what was shown there is in the list afterwards."""
    if not hasattr(os, "openpty"):
        pytest.fail("tested where there are terminals")
    shown: list[str] = []
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "200")
        yield shown
        screen.flush()
        text = b""
        while select.select([master], [], [], 0.5)[0]:  # a read gives what has come so far
            text += os.read(master, 100_000)
        shown.append(text.decode())
    os.close(master)


def test_a_note_is_said_once_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    talk = Talk()
    for _ in range(2):
        talk.note("something")
        talk.say("a line")
    assert capsys.readouterr().err == "note: something\na line\na line\n"
    assert talk.notes == ["something"]


def test_the_log_has_what_was_said_before_it_was_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Talk(quiet=True)
    talk.say("first")
    talk.log_to(tmp_path / "train.log")
    talk.note("second \udcff")
    with talk.phase("work"):
        pass
    lines = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "first", f"log of {tmp_path.name}", "note: second \\udcff", "work: 0.0 s",
    ]  # fmt: skip
    assert capsys.readouterr().err == ""


def test_phases_of_one_name_add_up() -> None:
    talk = Talk(quiet=True)
    for _ in range(2):
        with talk.phase("work"):
            sum(range(300_000))
        once = talk.seconds["work"]
    assert talk.seconds["work"] >= once > 0
    assert list(talk.seconds) == ["work"]


def test_a_terminal_shows_a_bar_with_rate_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal(monkeypatch) as shown, Talk().phase("learning", 10) as tick:
        tick(10, "epoch 1/3 loss 0.500 val 0.900")
    for part in ("learning", "10/10", "/s", "left", "epoch 1/3 loss 0.500 val 0.900"):
        assert part in shown[0]


def test_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with Talk().phase("learning", 10) as tick:
        tick(10, "epoch 1/3")
    with Talk().counting("predicting") as tick:
        tick(1, "")
    assert capsys.readouterr().err == ""
