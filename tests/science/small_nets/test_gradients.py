"""Growth against its theory, verdicts from numbers, what a trained net's blocks change."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from plusx.data import Preprocessing
from plusx.errors import UsageError
from plusx.jobs.gradients import noise, study_gradients
from plusx.jobs.study_pieces import Crew
from plusx.model import ResNet, ResNetSpec, variant
from plusx.science.cifar import SmallImages
from plusx.science.gradients import (
    GradientPlan,
    Norms,
    keys,
    leave_out_norms,
    make_net,
    measure,
    measure_one,
    over_seeds,
    stage_depths,
    trend,
    verdict,
)
from plusx.science.gradients_responses import BlockResponse, median_ratio, responses
from plusx.science.gradients_result import Measured, Trained, result
from plusx.science.gradients_shattering import autocorrelation, derivative
from plusx.science.over_seeds import spread
from plusx.weights import save_artifact

ONE_STAGE = ResNetSpec("one", "basic", (10,), (64,), stem="3x3", stem_width=64, stem_stride=1,
                       stem_pool="none", shortcut="identity", classes=4, image_size=8)  # fmt: skip


def linear(spec: ResNetSpec, seed: int, *, framework: bool) -> ResNet:
    """Without norms, activations or borders: the signal's growth is then known exactly."""
    torch.manual_seed(seed)
    net = ResNet(spec)
    leave_out_norms(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.Conv2d):
                child.padding_mode = "circular"
                if framework:
                    child.reset_parameters()
    return net.double()


@pytest.mark.parametrize(
    ("plain", "framework", "expected"),
    [
        (True, False, 2.0),  # two layers of variance 2 / fan: a factor sqrt(2) each
        (True, True, 1 / 3),  # two layers of variance 1 / (3 fan)
        (False, False, math.sqrt(5)),  # x + F(x): 1 + 2 * 2 in variance
        (False, True, math.sqrt(10 / 9)),
    ],
)
def test_growth_of_a_linear_net_is_the_analytic_one(
    plain: bool, framework: bool, expected: float
) -> None:
    spec = ONE_STAGE.plain_twin() if plain else ONE_STAGE
    rng = torch.Generator().manual_seed(0)
    forward, backward = [], []
    for seed in range(3):
        net = linear(spec, seed, framework=framework)
        images = torch.randn(4, 3, 8, 8, generator=rng, dtype=torch.float64)
        found = measure(net, images, torch.tensor([0, 1, 2, 3]))
        forward.append(trend(found.activation, (10,), toward_input=False).per_block)
        backward.append(trend(found.gradient, (10,), toward_input=True).per_block)
    assert sum(forward) / 3 == pytest.approx(expected, rel=0.06)
    assert sum(backward) / 3 == pytest.approx(expected, rel=0.06)


def test_a_gradient_is_that_of_each_image_alone() -> None:
    net = ResNet(ONE_STAGE).double().eval()  # in evaluation mode images do not meet
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2])
    single = [measure(net, images[i : i + 1], targets[i : i + 1]) for i in range(3)]
    together = measure(net, images, targets)
    for block in range(10):
        mean = sum(one.gradient[block] for one in single) / 3
        assert together.gradient[block] == pytest.approx(mean, rel=1e-9)
    assert all(p.grad is None for p in net.parameters())


def test_a_trend_is_fitted_within_stages() -> None:
    values = [1.0, 2.0, 4.0, 100.0, 200.0, 400.0]
    up = trend(values, (3, 3), toward_input=False)
    assert up.per_block == pytest.approx(2)
    assert up.whole == pytest.approx(400)
    down = trend(values, (3, 3), toward_input=True)
    assert down.per_block == pytest.approx(0.5)
    assert down.whole == pytest.approx(1 / 400)
    assert math.isnan(trend([1.0, 0.0], (2,), toward_input=True).whole)
    assert math.isnan(trend([1.0, math.inf], (2,), toward_input=True).per_block)


def test_verdicts_need_their_whole_interval() -> None:
    assert verdict(spread([-20.0, -21.0, -20.5])) == "vanishes"
    assert verdict(spread([3.0, 3.1, 3.2])) == "explodes"
    assert verdict(spread([0.5, -0.5, 0.1])) == "stays level"
    assert verdict(spread([1.9, 2.1, 2.0])) == "unclear"
    assert verdict(spread([])) == "no number"


def test_the_table_holds_opposite_outcomes_and_repeats_itself() -> None:
    plan = GradientPlan(depths=(56,), seeds=(0,), images=4, steps=0)
    data = noise(4)
    rates = {}
    for key in keys(plan):
        (row,) = measure_one(plan, data, key, tick=lambda n: None)
        found = trend(row["gradient"], stage_depths(56), toward_input=True)
        rates[key["shortcut"], key["norm"], key["init"]] = found
        if key["norm"] == "none" and key["shortcut"] == "plain":
            (again,) = measure_one(plan, data, key, tick=lambda n: None)
            assert again == row
    assert len(rates) == 8
    assert rates["residual", "none", "he"].whole > 100
    assert rates["plain", "none", "framework"].whole < 1e-12
    assert rates["plain", "none", "framework"].per_block == pytest.approx(1 / 6, rel=0.15)
    assert rates["residual", "none", "he"].per_block == pytest.approx(math.sqrt(2), rel=0.1)
    assert rates["plain", "batch", "he"].whole > 100  # with BatchNorm it does not vanish
    assert over_seeds([rates["plain", "batch", "he"]])[1].mean > 2


def test_norms_are_followed_along_training(few_images: SmallImages) -> None:
    plan = GradientPlan(depths=(8, 14), seeds=(0,), images=8, steps=4, points=2)
    key = {"depth": 8, "shortcut": "residual", "norm": "batch", "init": "he", "seed": 0}
    rows = measure_one(plan, few_images, key, tick=lambda n: None)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert rows[0]["gradient"] != rows[2]["gradient"]
    assert len(measure_one(plan, few_images, key | {"depth": 14}, tick=lambda n: None)) == 1
    net = make_net(key | {"norm": "none"}, 2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    with pytest.raises(UsageError, match="at least 2 and 0"):
        GradientPlan(images=1)


def test_a_block_whose_branch_is_known_has_its_ratio() -> None:
    net = ResNet(ONE_STAGE).eval()
    for block in net.stages[0]:  # type: ignore[union-attr]
        conv1, conv2 = block.residual.conv1, block.residual.conv2
        nn.init.dirac_(conv1.weight)
        nn.init.dirac_(conv2.weight)
        conv2.weight.data.mul_(0.25)
        for norm in (block.residual.norm1, block.residual.norm2):
            norm.running_var.fill_(1 - norm.eps)
    found = responses(net, torch.randn(5, 3, 8, 8))
    assert [one.ratio for one in found] == pytest.approx([0.25] * 10, rel=1e-4)
    assert median_ratio(found) == pytest.approx(0.25, rel=1e-4)
    for one in found:  # the first layer gives x, the second a quarter of it
        assert one.deviations[1] == pytest.approx(one.deviations[0] / 4, rel=1e-4)
    plain = responses(ResNet(ONE_STAGE.plain_twin()), torch.randn(2, 3, 8, 8))
    assert [one.ratio for one in plain] == [None] * 10
    assert math.isnan(median_ratio(plain))


def test_deep_plain_gradients_are_noise_and_residual_ones_are_not() -> None:
    assert autocorrelation(torch.arange(64.0))[1] > 0.9
    white = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert abs(autocorrelation(white)[1]) < 0.05
    assert autocorrelation(torch.ones(8)) == [1.0] * 17
    plain, residual = (
        sum(autocorrelation(derivative(kind, 50, seed))[1] for seed in range(3)) / 3
        for kind in ("feedforward", "residual")
    )
    assert plain < 0.25
    assert residual > 0.6


def subject(name: str, blocks: int, ratio: float) -> Trained:
    found = [BlockResponse(i, (1.0, 1.0), ratio, True) for i in range(blocks)]
    return Trained(name, found, Norms([1.0] * blocks, [1.0] * blocks, [1.0] * blocks))


def test_the_sentence_about_change_goes_with_the_numbers() -> None:
    plan = GradientPlan()
    less = result(plan, Measured(trained=[subject("deep", 9, 0.2), subject("shallow", 3, 0.6)]))
    assert "0.60 in shallow (3 blocks), 0.20 in deep (9 blocks)" in less.finding
    assert "The deepest changes less per block" in less.finding
    more = result(plan, Measured(trained=[subject("deep", 9, 0.7), subject("shallow", 3, 0.6)]))
    assert "The deepest changes no less per block" in more.finding


def test_the_study_of_noise_says_what_it_found(tmp_path: Path) -> None:
    plan, alone = GradientPlan(depths=(14,), seeds=(0, 1), images=4, steps=9), Crew(1, 1)
    found = study_gradients([], [], tmp_path, plan=plan, crew=alone)
    assert found.settings["steps"] == 0  # nothing to train on
    assert len(found.tables["combinations"]) == 8
    assert {row["verdict"] for row in found.tables["combinations"]} <= {
        "vanishes", "stays level", "explodes", "unclear"}  # fmt: skip
    assert "plain without BatchNorm, framework init (x0.1" in found.finding
    assert any("noise" in note for note in found.notes)
    assert study_gradients([], [], tmp_path, plan=plan, crew=alone).tables == found.tables
    with pytest.raises(UsageError, match="nothing to measure"):
        study_gradients([], [], tmp_path, table=False)


def test_the_command_looks_at_a_run(
    command: Callable[..., Any], photos: Path, tmp_path: Path
) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    net = ResNet(variant("resnet8_cifar_a").replace(classes=2))
    save_artifact(model, net, classes=("across", "upright"), provenance={}, card="",
                  preprocessing=Preprocessing.for_size(32))  # fmt: skip
    said = command("study", "gradients", model, "--data", photos, "--no-table",
                   "--out", out)  # fmt: skip
    assert said.code == 0, said.err
    assert "|F(x)|/|x|" in said.out
    kept = json.loads((out / "gradients.json").read_text())
    assert len(kept["tables"]["blocks"]) == 3
    assert (out / "responses.svg").exists()
    other = ResNet(variant("resnet8_cifar_a"))
    save_artifact(model, other, classes="abcdefghij", provenance={}, card="",
                  preprocessing=Preprocessing.for_size(32))  # fmt: skip
    lost = command("study", "gradients", model, "--no-table")
    assert "does not say where its images are; give --data" in lost.error
    wrong = command("study", "gradients", model, "--data", photos, "--no-table")
    assert "has no class 'across', which --data shows" in wrong.error
