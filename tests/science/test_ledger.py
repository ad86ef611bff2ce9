"""Pieces of a study are done once, whoever does them, and survive a kill."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

import pytest

from plusx.errors import ArtifactError
from plusx.science.ledger import Ledger


def test_a_piece_is_done_once(tmp_path: Path) -> None:
    done: list[int] = []

    def square(key: dict[str, int]) -> int:
        done.append(key["x"])
        return key["x"] ** 2

    keys = [{"x": 1}, {"x": 2}]
    ticks: list[int] = []
    assert Ledger(tmp_path, {"s": 1}).work(keys, square, tick=ticks.append) == [1, 4]  # type: ignore[arg-type]
    assert Ledger(tmp_path, {"s": 1}).work([*keys, {"x": 3}], square, tick=ticks.append) == [
        1,
        4,
        9,
    ]  # type: ignore[arg-type]
    assert done == [1, 2, 3]
    assert ticks == [1] * 5
    assert not list(tmp_path.glob("*.lock"))


def test_a_piece_of_another_study_is_not_taken(tmp_path: Path) -> None:
    Ledger(tmp_path, {"seed": 0}).put({"x": 1}, 5)
    assert Ledger(tmp_path, {"seed": 1}).get({"x": 1}) is None
    assert Ledger(tmp_path, {"seed": 0}).get({"x": 1}) == 5


def test_infinities_come_back_and_damage_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, {})
    ledger.put({"x": 1}, [math.nan, math.inf])
    nan, inf = ledger.get({"x": 1})
    assert math.isnan(nan)
    assert inf == math.inf
    next(tmp_path.glob("*.json")).write_text("{")
    with pytest.raises(ArtifactError, match="is damaged"):
        ledger.get({"x": 1})


def test_a_piece_in_other_hands_is_left_until_the_end(tmp_path: Path) -> None:
    held, other = Ledger(tmp_path, {}), Ledger(tmp_path, {})
    done: list[int] = []
    with held._locked({"x": 1}) as mine:
        assert mine
        for _ in range(2):  # looking at the lock does not take it away
            with other._locked({"x": 1}) as theirs:
                assert not theirs
    with held._locked({"x": 1}) as mine:
        thread = threading.Thread(
            target=other.work,
            args=([{"x": 1}, {"x": 2}], lambda key: done.append(key["x"]) or 0),
            kwargs={"tick": lambda n: None},
        )
        thread.start()
        while other.get({"x": 2}) is None:
            time.sleep(0.01)
        assert done == [2]
        held.put({"x": 1}, 5)
    thread.join(10)
    assert not thread.is_alive()
    assert done == [2]
    assert held.get({"x": 1}) == 5
    with held._locked({"x": 3}):
        waiter = threading.Thread(
            target=other.work,
            args=([{"x": 3}], lambda key: done.append(key["x"]) or 0),
            kwargs={"tick": lambda n: None},
        )
        waiter.start()
    waiter.join(10)  # the first died without a result: the second does it
    assert done == [2, 3]
    assert not list(tmp_path.glob("*.lock"))
