"""Pieces of a study are done once, whoever does them, and survive a kill."""

from __future__ import annotations

import math
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
