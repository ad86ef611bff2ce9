from __future__ import annotations

import numpy as np
import pytest
import torch

from plusx.errors import DataError
from plusx.evaluate import Predictions
from plusx.fit.choice import Choice, State


def images(n: int = 8, groups: tuple[str, ...] | None = None) -> Predictions:
    return Predictions(
        logits=np.zeros((n, 2), np.float32),
        targets=np.arange(n) % 2,
        paths=tuple(f"{i}.png" for i in range(n)),
        classes=("a", "b"),
        groups=groups,
    )


def answers(right: list[int], n: int = 8, sure: float = 4.0) -> np.ndarray:
    """Logits that are right on the given images and wrong on the others."""
    targets = np.arange(n) % 2
    chosen = np.where(np.isin(np.arange(n), right), targets, 1 - targets)
    return (np.eye(2)[chosen] * sure).astype(np.float32)


def named(value: float) -> State:
    return {"w": torch.tensor(value)}


def test_the_best_on_all_images_wins_and_ties_go_to_the_earlier() -> None:
    choice = Choice(images(), seed=0)
    choice.offer("start", 0, answers([0, 1, 2, 3]), lambda: named(0))
    choice.offer("epoch 1", 1, answers([4, 5, 6, 7]), lambda: named(1))
    assert choice.best.name == "start"
    choice.offer("epoch 2", 2, answers([0, 1, 2, 3, 4]), lambda: named(2))
    choice.offer("epoch 3", 3, answers([0, 1, 2, 3, 5]), lambda: named(3))
    assert (choice.best.name, choice.best.epoch) == ("epoch 2", 2)
    assert choice.best.state == named(2)
    assert choice.best.score[0] == 5 / 8


def test_of_equally_many_right_the_surer_epoch_wins_but_never_over_the_probe() -> None:
    choice = Choice(images(), seed=0)
    choice.offer("start", 0, answers(list(range(6)), sure=1.0), lambda: named(0))
    choice.offer("epoch 1", 1, answers(list(range(6)), sure=3.0), lambda: named(1))
    assert [winner.epoch for winner in choice.winners] == [0, 0, 0]
    choice.offer("epoch 2", 2, answers(list(range(8)), sure=1.0), lambda: named(2))
    choice.offer("epoch 3", 3, answers(list(range(8)), sure=3.0), lambda: named(3))
    assert choice.best.epoch == 3


def test_each_half_chooses_on_its_own_images_alone() -> None:
    choice = Choice(images(), seed=3)
    _, one, two = choice.winners
    assert sorted([*one.rows, *two.rows]) == list(range(8))
    assert [np.bincount(half.rows % 2).tolist() for half in (one, two)] == [[2, 2], [2, 2]]
    choice.offer("start", 0, answers([]), lambda: named(0))
    choice.offer("epoch 1", 1, answers(one.rows.tolist()), lambda: named(1))
    choice.offer("epoch 2", 2, answers([*two.rows, one.rows[0]]), lambda: named(2))
    assert [winner.epoch for winner in choice.winners] == [2, 1, 2]
    assert choice.last_gain == 2


def test_a_state_is_copied_only_when_it_wins() -> None:
    choice = Choice(images(), seed=0)
    copies: list[int] = []

    def copy(number: int) -> State:
        copies.append(number)
        return named(number)

    choice.offer("start", 0, answers(list(range(8))), lambda: copy(0))
    choice.offer("epoch 1", 1, answers([0]), lambda: copy(1))
    assert copies == [0]


def test_where_no_halves_can_be_made_the_reason_is_kept() -> None:
    choice = Choice(images(3), seed=0)
    assert len(choice.winners) == 1
    assert "'b' has 1 image" in choice.why_not_halves
    grouped = Choice(images(4, ("g",) * 4), seed=0)
    assert "1 groups" in grouped.why_not_halves


def test_winners_survive_a_checkpoint_and_belong_to_their_images() -> None:
    choice = Choice(images(), seed=0)
    choice.offer("start", 0, answers([1, 2]), lambda: named(0))
    choice.offer("epoch 1", 1, answers([1, 2, 3]), lambda: named(1))
    other = Choice(images(), seed=0)
    other.load_state_dict(choice.state_dict())
    assert [(w.epoch, w.score) for w in other.winners] == [
        (w.epoch, w.score) for w in choice.winners
    ]
    with pytest.raises(DataError, match="without --resume"):
        Choice(images(10), seed=0).load_state_dict(choice.state_dict())
