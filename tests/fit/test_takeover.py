from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plusx.fit.line import Line
from plusx.fit.loop import Hardware
from plusx.fit.takeover import Equations, Watch, last_layer, take_over, write_back
from plusx.model import ResNet, variant
from plusx.model.surgery import drop_blocks

CPU = Hardware(torch.device("cpu"), torch.float32)

KINDS = ("resnet50", "resnet18", "resnetv2_50", "resnext50_32x4d")
"""1x1 and 3x3 convolutions that end a branch, norms before and after, groups."""


def small(kind: str, randomise: Callable[..., nn.Module], **changes: Any) -> Any:
    if kind.startswith("resnext"):
        changes |= {"cardinality": 2, "base_width": 32}
    spec = variant(kind).replace(
        depths=[3, 2, 2, 3], widths=[8, 16, 24, 32], stem_width=8, classes=3, image_size=64,
        **changes,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomise(ResNet(spec)).eval()


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def features(line: Line, x: Tensor) -> Tensor:
    return line.features(line.through(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_comes_nearer_to_the_parent_on_other_images(
    kind: str, randomise: Callable[..., nn.Module], tmp_path: Path
) -> None:
    net = small(kind, randomise)
    gone = [1, 2, 9]
    child = drop_blocks(net, gone)
    parent, line = Line(net, CPU), Line(child, CPU)
    other = images(16, seed=1)
    wanted = features(parent, other)
    before = (features(line, other) - wanted).square().mean()
    with torch.inference_mode():
        seen = images(64, seed=0)
        found = take_over(parent, line, gone, seen.split(16), count=64, folder=tmp_path)
    assert sorted(found) == list(range(7))  # from block 0, in front of the first that is gone
    after = (features(line, other) - wanted).square().mean()
    assert after < 0.5 * before
    assert not list(tmp_path.iterdir())

    write_back(child, found)
    folded = line.logits(line.through(other))
    torch.testing.assert_close(child.eval()(other), folded, atol=1e-3, rtol=1e-3)


def test_norms_get_the_statistics_of_what_enters_them(
    randomise: Callable[..., nn.Module], tmp_path: Path
) -> None:
    for kind in ("resnet50", "resnet18"):
        net = small(kind, randomise)
        child = drop_blocks(net, [1])
        line, seen = Line(child, CPU), images(64, seed=0)
        with torch.inference_mode():
            folder = tmp_path / kind
            found = take_over(Line(net, CPU), line, [1], [seen], count=64, folder=folder)
        write_back(child, found)
        residual = child.stages[3][2].residual  # maps of 2 x 2: every position was seen
        norm = getattr(residual, residual.folds[-1][1])
        entered: list[Tensor] = []
        norm.register_forward_pre_hook(lambda _, given, kept=entered: kept.append(given[0]))
        with torch.inference_mode():
            child.eval()(seen)
        variance, mean = torch.var_mean(entered[0], dim=(0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize(("kind", "place"), [("resnet50", 1), ("resnet18", 1)])
@torch.inference_mode()
def test_a_linear_wish_is_granted(
    kind: str, place: int, randomise: Callable[..., nn.Module]
) -> None:
    line, x = Line(small(kind, randomise), CPU), images(32, seed=0)
    block = line.blocks[place]
    with Watch({0: block}) as seen:
        line.through(x)
    entering, total = seen.entering[0], seen.total[0]
    wish = 0.1 * torch.randn(entering.shape[1], total.shape[1])
    wanted = total + entering @ wish + 3
    equations = Equations(block)
    equations._rectified = False  # every row counts
    equations.add(entering, total, wanted)
    equations.solve().write(equations.conv)
    with Watch({0: block}) as now:
        line.through(x)
    assert (now.total[0] - wanted).square().mean() < 1e-3 * (total - wanted).square().mean()


def test_what_need_only_be_below_zero_is_left_there(randomise: Callable[..., nn.Module]) -> None:
    block = Line(small("resnet50", randomise), CPU).blocks[1]
    conv = last_layer(block)
    assert conv is not None
    entering = torch.rand(500, conv.in_channels)
    total = -torch.ones(500, conv.out_channels)
    equations = Equations(block)
    equations.add(entering, total, total - 5)
    refit = equations.solve()
    torch.testing.assert_close(refit.weight, conv.weight.double(), atol=1e-9, rtol=0)


def test_a_block_with_channel_attention_is_left_as_it_is(
    randomise: Callable[..., nn.Module], tmp_path: Path
) -> None:
    net = small("resnet50", randomise, channel_attention="se")
    child = drop_blocks(net, [1])
    line = Line(child, CPU)
    with torch.inference_mode():
        found = take_over(Line(net, CPU), line, [1], [images(8, 0)], count=8, folder=tmp_path)
    assert found == {}
    assert last_layer(Line(net, CPU).blocks[0]) is None
