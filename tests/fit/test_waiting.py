"""How long the network waits for its images: counted, kept over a stop, said where it is long."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from plusx.fit.distributed import Processes
from plusx.fit.history import Epoch
from plusx.fit.state import Position
from plusx.jobs.fitting import waiting


def slowly(count: int, seconds: float) -> Iterator[int]:
    for number in range(count):
        time.sleep(seconds)
        yield number


def position() -> Position:
    return Position(Processes(), torch.device("cpu"), 0.1)


def test_only_what_passes_before_a_step_is_there_counts() -> None:
    here = position()
    found = []
    for number in here.awaiting(slowly(3, 0.02)):
        time.sleep(0.05)
        found.append(number)
    assert found == [0, 1, 2]
    assert 0.06 <= here.waited <= here.seconds - 0.15


def test_it_goes_on_counting_after_a_stop_and_begins_anew_with_an_epoch() -> None:
    here, later = position(), position()
    list(here.awaiting(slowly(1, 0.01)))
    later.load_state_dict(here.state_dict())
    assert later.waited == here.waited > 0
    later.next_epoch()
    assert later.waited == 0


def row(epoch: int, waited: float | None, seconds: float = 10.0) -> Epoch:
    rate = None if waited is None else 100.0
    return Epoch(epoch, 0.5, 0.9, 0.3, 0.1, seconds, rate, waited=waited)


@pytest.mark.parametrize(
    ("history", "said"),
    [
        ([row(0, None), row(1, 0.6), row(2, 0.4)], "50% of the training time"),
        ([row(0, None), row(1, 0.6, seconds=30.0), row(2, 0.2)], "50% of the training time"),
        ([row(0, None), row(1, 0.1)], ""),
        ([row(0, None), row(1, 0.9, seconds=0.5)], ""),
        ([row(0, None)], ""),
    ],
)
def test_a_long_wait_is_said(history: list[Epoch], said: str) -> None:
    text = waiting(history)
    assert said in text
    assert bool(said) == bool(text)
