from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import plusx
from plusx.fit.distil import Lessons, distil
from plusx.fit.loop import Hardware
from plusx.fit.recipe import Recipe
from plusx.fit.removal import Line, rank_blocks, removable, score_without
from plusx.fit.trunk import ActivationShape, ScratchActivations
from plusx.model.surgery import drop_blocks, split_trunk, unfreeze_last_blocks

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


def test_tuning_brings_features_and_answers_to_the_parent_s(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parent = plusx.create("resnet8_cifar_a", classes=3, weights="none").eval()
    child = copy.deepcopy(parent)
    for parameter in child.stages[-1].parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    unfreeze_last_blocks(child, 1)
    (trunk, top), whole = split_trunk(child, 1), split_trunk(parent, 1)[1]
    images = torch.randn(24, 3, 32, 32)
    with torch.no_grad():
        activation, pooled = trunk(images)
        hints = whole.features(activation, pooled)
        taught = whole.head(hints)
    shape = ActivationShape(tuple(activation.shape[1:]), 0, torch.float32)
    store = ScratchActivations(tmp_path, 24, shape)
    store.write(np.arange(24), activation, pooled)
    labels = taught.argmax(1)
    lessons = Lessons(store, labels[:16], taught[None, :16], hints[None, :16], labels[16:])

    def far() -> float:
        with torch.no_grad():
            return float((top.features(activation, pooled) - hints)[16:].square().mean())

    before = far()
    recipe = Recipe(
        epochs=20, batch_size=8, optimizer="adamw", lr=3e-3, weight_decay=0.0, warmup=0.0,
        label_smoothing=0.0, patience=0, norm="eval", clip=1.0, seed=0,
    )  # fmt: skip
    scores = distil(top, lessons, recipe=recipe, hardware=CPU)
    assert far() < 0.5 * before
    assert max(scores) > scores[0]
