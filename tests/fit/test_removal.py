from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import plusx
from plusx.fit.distil import distilling_loss
from plusx.fit.loop import Hardware
from plusx.fit.removal import Line, rank_blocks, removable, score_without
from plusx.model.surgery import drop_blocks

CPU = Hardware(torch.device("cpu"), torch.float32)


@pytest.fixture
def net(randomise: Callable[..., nn.Module]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(plusx.create("resnet20_cifar_a", classes=4, weights="none"))


@pytest.mark.parametrize(("gone", "number"), [((), 1), ((4,), 2), ((1, 8), 5), ((2,), 8)])
@torch.inference_mode()
def test_running_what_is_behind_equals_a_network_without(
    net: Any, gone: tuple[int, ...], number: int
) -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    line = Line(net, CPU)
    _, trace = line.through(images, gone=gone)
    wanted = drop_blocks(net, {*gone, number}).eval()(images)
    torch.testing.assert_close(line.without(trace, number, gone), wanted, atol=1e-4, rtol=1e-4)


def test_blocks_that_do_nothing_go_first(net: Any) -> None:
    idle = {2, 7}
    blocks = [block for stage in net.stages for block in stage]
    for number in idle:
        nn.init.zeros_(blocks[number].residual.norm2.weight)
        nn.init.zeros_(blocks[number].residual.norm2.bias)
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        targets = net(images).argmax(1)
    line, batches = Line(net, CPU), [(images, targets)]
    ranking = rank_blocks(line, batches, removable(net))
    alone = {number: ranking.alone[number].nll - ranking.whole.nll for number in idle}
    assert all(abs(rise) < 1e-5 for rise in alone.values())
    assert ranking.whole.top1 == 1
    for step, count in zip(ranking.steps, range(1, 99), strict=False):
        found = score_without(line, batches, ranking.gone(count))
        assert found.nll == pytest.approx(step.score.nll, abs=1e-4)
    assert len(ranking.steps) == 6  # of 3 stages with 3 blocks each, one stays in each


def test_the_loss_is_least_where_the_pupil_agrees() -> None:
    taught = torch.tensor([[2.0, -1.0, 0.0]])
    labels = torch.tensor([0])
    same = distilling_loss(taught, labels, taught)
    shifted = distilling_loss(taught + 5.0, labels, taught)
    other = distilling_loss(taught.flip(1), labels, taught)
    assert shifted == pytest.approx(float(same), abs=1e-5)
    assert other > same
