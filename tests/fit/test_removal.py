from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import plusx
from plusx.fit.distil import Lessons, distil
from plusx.fit.line import Line, Trace
from plusx.fit.loop import Hardware
from plusx.fit.recipe import Recipe
from plusx.fit.removal import (
    Removal,
    Score,
    _greedy,
    rank_blocks,
    removable,
    score_without,
)
from plusx.fit.trunk import ActivationShape, ScratchActivations
from plusx.model.surgery import drop_blocks, split_trunk, unfreeze_last_blocks

CPU = Hardware(torch.device("cpu"), torch.float32)


@pytest.fixture
def net(randomise: Callable[..., nn.Module]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(plusx.create("resnet20_cifar_a", classes=4, weights="none"))


def bare(net: Any) -> Callable[[Any], Line]:
    """What is left without blocks, nothing taken over."""
    return lambda gone: Line(drop_blocks(net, gone), CPU)


@pytest.mark.parametrize("gone", [(), (1,), (4, 2), (8, 1, 5)])
@torch.inference_mode()
def test_a_way_without_blocks_equals_a_network_without(net: Any, gone: tuple[int, ...]) -> None:
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    line, trace = Line(net, CPU), Trace()
    line.walk(line.stem(images), 0, len(line.blocks), gone=gone, trace=trace)
    wanted = drop_blocks(net, gone).eval()(images)
    torch.testing.assert_close(line.logits(trace), wanted, atol=1e-4, rtol=1e-4)


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
    ranking = rank_blocks(line, batches, removable(net), bare(net))
    alone = {number: ranking.alone[number] for number in idle}
    assert all(abs(left.score.nll - ranking.whole.nll) < 1e-5 for left in alone.values())
    assert all(left.far < 1e-6 for left in alone.values())
    assert ranking.gone(2) == sorted(idle)
    assert ranking.whole.top1 == 1
    for step, count in zip(ranking.steps, range(1, 99), strict=False):
        found = score_without(line, batches, ranking.gone(count))
        assert found.nll == pytest.approx(step.score.nll, abs=1e-4)
    assert len(ranking.steps) == 6  # of 3 stages with 3 blocks each, one stays in each


def test_a_lazy_ranking_is_the_greedy_one_with_fewer_judgements() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        cost = dict(enumerate(random.uniform(0.1, 1, 9)))
        beside = random.uniform(0, 0.5, (9, 9))  # two together cost more than each alone
        ms = dict(enumerate(random.uniform(1, 2, 9)))
        stage_of = [0, 0, 0, 1, 1, 1, 2, 2, 2]
        asked: list[tuple[int, ...]] = []

        def judged(
            gone: Sequence[int], cost: Any = cost, beside: Any = beside, asked: Any = asked
        ) -> Removal:
            asked.append(tuple(gone))
            pairs = sum(beside[a, b] for a in gone for b in gone if a < b)
            return Removal(gone[-1], Score(0, 0), sum(cost[n] for n in gone) + pairs)

        alone = {n: judged([n]) for n in cost}
        steps = _greedy(alone, judged, ms, stage_of, None, lambda n: None)
        assert len(asked) < 9 + 8 + 7 + 6 + 5 + 4
        gone: list[int] = []
        for step in steps:
            far = judged(gone).far if gone else 0
            options = [n for n in cost if n not in gone
                       and sum(stage_of[m] == stage_of[n] for m in gone) < 2]  # fmt: skip
            best = min(options, key=lambda n: (judged([*gone, n]).far - far) / ms[n])
            assert step.block == best
            gone.append(best)
        assert len(gone) == 6


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
