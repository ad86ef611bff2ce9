"""Mixed pairs: of what is cached and of images alike."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from plusx.fit.criterion import make_criterion
from plusx.fit.inputs import Step
from plusx.fit.mix import Mixed, mixup


class Numbers:
    """Image i is a map and a feature that hold i; its class is i modulo 3."""

    def __init__(self, n: int, *, several: bool = False) -> None:
        self.images = n
        marks = torch.arange(n) % 3
        self.targets = marks[:, None] == torch.arange(3) if several else marks

    steps = 2

    def shuffled(self, epoch: int, start: int = 0) -> Iterator[Step]:
        order = np.random.default_rng(epoch).permutation(self.images)
        for index in np.array_split(order, 2)[start:]:
            value = torch.from_numpy(index).float()
            maps = value[:, None, None, None].expand(-1, 2, 2, 2).clone()
            yield (maps, value[:, None]), self.targets[index], index

    def ordered(self) -> Iterator[Step]:
        index = np.arange(self.images)
        yield (torch.zeros(self.images, 1),), self.targets, index


def test_shares_and_labels_belong_together() -> None:
    for alpha in (0.2, 1.0, 8.0):
        x = torch.eye(6)
        (mixed,), targets = mixup((x,), x.bool(), alpha=alpha, rng=np.random.default_rng(0))
        torch.testing.assert_close(mixed, targets)  # what is mixed in is what is said
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        assert not torch.equal(targets, x)


def test_a_large_alpha_mixes_evenly_and_a_small_one_hardly() -> None:
    def least(alpha: float) -> float:
        x = torch.eye(50)
        shares = [
            mixup((x,), x.bool(), alpha=alpha, rng=np.random.default_rng(seed))[1].amax(1).mean()
            for seed in range(50)
        ]
        return float(torch.stack(shares).mean())

    assert least(100.0) < 0.6
    assert least(0.05) > 0.9


@pytest.mark.parametrize("several", [False, True])
def test_a_step_is_mixed_alike_whatever_came_before(several: bool) -> None:
    source = Mixed(Numbers(8, several=several), 3, alpha=1.0, seed=4)
    assert source.images == 8
    first, second = list(source.shuffled(1)), list(source.shuffled(1))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one[1], two[1])
        assert one[1].dtype == torch.float32
        assert one[1].shape == (4, 3)
        (maps, feature), _, _ = one
        torch.testing.assert_close(maps[:, 0, 0, 0], feature[:, 0])  # one share for all inputs
    (last,) = source.shuffled(1, 1)  # as on resume: the second step is the same by itself
    assert torch.equal(last[0][0], first[1][0][0])
    other = list(Mixed(Numbers(8, several=several), 3, alpha=1.0, seed=5).shuffled(1))
    assert not torch.equal(other[0][1], first[0][1])
    plain = next(iter(source.ordered()))
    assert torch.equal(plain[1], source._source.targets)  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_the_losses_take_shares(weights: torch.Tensor | None) -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    marks = torch.arange(5) % 3
    hard = torch.nn.functional.one_hot(marks, 3)
    single = make_criterion("single", class_weights=weights)
    share = None if weights is None else weights[marks].mean()
    expected = single(logits, marks) * (1.0 if share is None else share)
    torch.testing.assert_close(single(logits, hard.float()), expected)
    multi = make_criterion("multi", class_weights=weights)
    torch.testing.assert_close(multi(logits, hard.float()), multi(logits, hard.bool()))
