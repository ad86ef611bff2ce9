"""Probes after every block, branches against gradients, and leaving early, on small known cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from plusx.errors import UsageError
from plusx.fit.probe import cross_validate
from plusx.model.baselines import VGGSpec
from plusx.science.refinement import (
    Probing,
    Stop,
    labels,
    pool_all,
    probe,
    probe_all,
    stops_of,
    walk,
)
from plusx.science.refinement_exit import (
    NEVER,
    choose,
    costs,
    cross_fitted,
    full_cost,
    leave,
    settled,
    share_right,
)
from plusx.science.refinement_plot import draw
from plusx.science.refinement_steps import steps
from plusx.science.refinement_summary import Refined, summary
from plusx.science.subject import Images
from plusx.weights.families import build


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}, {"block": "bottleneck"}])
def test_the_last_stop_is_the_nets_own_features(small, noise, fields):
    subject, images = small(**fields), noise(5)
    with torch.no_grad():
        found = list(walk(subject.model, images.images))
        torch.testing.assert_close(found[-1], subject.model.features(images.images))
        torch.testing.assert_close(
            found[2], subject.model.stages[0](subject.model.stem(images.images)).mean((2, 3))
        )
    stops = stops_of(subject.model, (8, 8))
    assert [stop.name for stop in stops] == ["stem", "block 0", "block 1", "block 2", "block 3"]
    assert [stop.features for stop in stops] == [one.shape[1] for one in found]
    assert [(s.stage, s.position) for s in stops[1:]] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_multiply_adds_up_to_a_stop_are_those_of_its_convolutions(small):
    stops = stops_of(small().model, (8, 8))
    stem, block = 64 * 3 * 9 * 4, 64 * 4 * 9 * 4 * 2
    assert [stop.macs for stop in stops[:3]] == [stem, stem + block, stem + 2 * block]


def test_the_probe_after_the_last_block_is_the_probe_on_features(small, noise, tmp_path):
    subject, images = small(), noise(60)
    probing = Probing(seed=3)
    files = pool_all(subject, images, tmp_path)
    assert len(files) == 5
    last = np.load(files[-1])
    with torch.no_grad():
        features = subject.model.features(images.images).numpy()
    np.testing.assert_allclose(last, features, atol=0.02 * np.abs(features).max())
    want = cross_validate(last, images.targets.numpy(), classes=3, repeats=1, seed=3)
    found = probe_all(files, images, probing)
    np.testing.assert_array_equal(found[-1], want.logits[0])
    assert found.shape == (5, 60, 3)


def test_every_image_is_answered_by_a_probe_that_never_saw_it(noise):
    images = noise(60)
    own = np.eye(60, dtype=np.float32)  # a feature of each image alone: all that can be learnt
    right = probe(own, images, Probing()).argmax(1) == labels(images)
    assert right.mean() < 0.6


def test_groups_stay_together(noise):
    images = noise(60)
    twins = Images(
        torch.cat([images.images] * 2), torch.cat([images.targets] * 2), "noise", "all",
        groups=tuple(str(n) for n in range(60)) * 2,
    )  # fmt: skip
    own = np.concatenate([np.eye(60, dtype=np.float32)] * 2)
    apart = probe(own, twins, Probing()).argmax(1) == labels(twins)
    leaking = Images(twins.images, twins.targets, "noise", "all")
    assert apart.mean() < 0.6
    assert (probe(own, leaking, Probing()).argmax(1) == labels(leaking)).mean() > 0.7


def test_labels_are_numbered_without_gaps(noise):
    images = noise(3)
    sparse = Images(images.images, torch.tensor([7, 900, 7]), "noise", "all")
    assert labels(sparse).tolist() == [0, 1, 0]


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}])
def test_steps_are_those_of_a_block_taken_apart(small, noise, fields):
    subject, images = small(**fields), noise(11)
    found = steps(subject.model, images.images, images.targets)
    assert sorted(found) == [0, 1, 3]
    net = subject.model
    with torch.enable_grad():
        x = net.stages[0](net.stem(images.images))
        x = net.stages[1][0](x).detach().requires_grad_(True)
        block = net.stages[1][1]
        branch = block.residual(block.preact(x) if fields else x)
        out = x + branch if fields else functional.relu(x + branch)
        loss = functional.cross_entropy(net.head(net.norm(out).mean((2, 3))), images.targets,
                                        reduction="sum")  # fmt: skip
        (grad,) = torch.autograd.grad(loss, x)
    ratio, cosine = found[3]
    want = branch.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    np.testing.assert_allclose(ratio, want.detach().numpy(), rtol=1e-4)
    turn = functional.cosine_similarity(branch.flatten(1), grad.flatten(1))
    np.testing.assert_allclose(cosine, turn.detach().numpy(), atol=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_without_classes_of_its_own_there_is_no_cosine(small, noise):
    found = steps(small().model, noise(3).images, None)
    assert all(cosine is None and len(ratio) == 3 for ratio, cosine in found.values())


def test_settled_is_where_the_answer_stays_right():
    right = np.array([
        [True, False, True, False],
        [True, True, False, True],
        [True, True, True, False],
    ])  # fmt: skip
    assert settled(right).tolist() == [0, 1, 2, 3]


def stops() -> list[Stop]:
    return [Stop(-1, -1, -1, 2, 100), Stop(0, 0, 0, 4, 300), Stop(1, 0, 1, 8, 1000)]


def test_an_image_pays_for_the_net_and_the_probes_it_met():
    assert costs(stops(), 10).tolist() == [100 + 20, 300 + 20 + 40, 1000 + 20 + 40 + 80]
    assert full_cost(stops(), 10) == 1000 + 80


def test_leaving_is_accounted_for_exactly():
    sure = np.array([[0.9, 0.4, 0.2, 0.6], [0.1, 0.8, 0.3, 0.9], [0.5, 0.5, 0.5, 0.5]])
    right = np.array([[True, False, False, False], [True, True, False, True], [True] * 4])
    assert leave(sure, 0.8).tolist() == [0, 1, 2, 1]
    assert share_right(right, leave(sure, 0.8)) == 1
    cost = costs(stops(), 10)
    assert cost[leave(sure, 0.8)].tolist() == [120, 360, 1140, 360]
    # below .8 the last image leaves at once, and wrongly
    assert leave(sure, 0.6).tolist() == [0, 1, 2, 0]
    assert share_right(right, leave(sure, 0.6)) == 0.75
    assert 0.6 < choose(sure, right, cost) <= 0.8
    assert leave(sure, NEVER).tolist() == [2, 2, 2, 2]


def test_no_threshold_is_chosen_that_costs_answers():
    sure = np.full((3, 5), 0.9)
    right = np.array([[False] * 5, [False] * 5, [True] * 5])
    assert choose(sure, right, costs(stops(), 2)) == NEVER


def test_a_half_is_judged_by_the_other_halfs_threshold():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    sign = np.stack([1 - 2 * targets, 2 * targets - 1], axis=1)
    easy = rng.random(400) < 0.5
    early = np.where(easy[:, None], 4.0 * sign, rng.normal(size=(400, 2)))
    logits = np.stack([early, 4.0 * sign]).astype(np.float32)
    cost = np.array([10.0, 100.0])
    first, second = cross_fitted(logits, targets, cost, seed=1)
    assert sorted([*first.held, *second.held]) == list(range(400))
    for number, half in enumerate((first, second)):
        assert (half.exits[easy[half.held]] == 0).mean() > 0.95
        assert (half.exits[~easy[half.held]] == 1).mean() > 0.8
        other = logits.copy()
        other[:, half.held] *= -1  # what a half answers says nothing of its own threshold
        assert cross_fitted(other, targets, cost, seed=1)[number].threshold == half.threshold
        other = logits.copy()
        other[0, np.setdiff1d(np.arange(400), half.held)] = 0
        assert cross_fitted(other, targets, cost, seed=1)[number].threshold == NEVER
    groups = np.repeat(np.arange(100), 4)
    halves = cross_fitted(logits, targets, cost, groups=groups, seed=1)
    assert not set(groups[halves[0].held]) & set(groups[halves[1].held])


def test_the_summary_and_its_figure(small, noise, tmp_path):
    subject, images = small(), noise(60)
    logits = probe_all(pool_all(subject, images, tmp_path), images, Probing())
    stepped = steps(subject.model, images.images[:9], images.targets[:9])
    places = stops_of(subject.model, (8, 8))
    with torch.no_grad():
        right = (subject.model(images.images).argmax(1) == images.targets).numpy()
    one = Refined(subject, images, places, logits, stepped, right)
    result = summary([one])
    table = result.tables["blocks"]
    assert [row["place"] for row in table] == [stop.name for stop in places]
    assert table[-1]["share_of_macs"] == 1
    assert table[-1]["agrees_with_last"] == 1
    assert (table[-1]["behind_last"], table[-1]["behind_high"]) == (0, 0)
    assert sum(row["settled_here"] for row in table) == round(60 * table[-1]["top1"])
    assert table[1]["step_over_input"] == pytest.approx(stepped[0][0].mean(), abs=1e-6)
    assert table[3]["step_over_input"] is None
    both = result.tables["exits"][-1]
    assert both["images"] == 60
    assert both["gain"] == pytest.approx(both["top1"] - both["top1_last"], abs=1e-5)
    assert f"the net's own head: {right.mean():.1%}" in result.finding
    assert set(draw(result)) == {"refinement"}
    alone = summary([Refined(subject, images, places, logits, {})])
    assert any("other classes" in note for note in alone.notes)
    draw(alone)


def test_a_net_of_one_block_is_refused():
    pytest.importorskip("timm", reason="extra 'timm' absent")
    from plusx.weights.timm_spec import timm_spec

    with pytest.raises(UsageError, match="one block to plusx"):
        stops_of(build(timm_spec("timm:test_vit", classes=3)), (160, 160))


def test_a_vgg_is_probed_without_a_stem(noise):
    spec = VGGSpec("v", (1, 2), widths=(4, 4), norm="batch", hidden=4, classes=3, image_size=8)
    net = build(spec).eval()
    found = stops_of(net, (8, 8))
    assert isinstance(net.stem, nn.Identity)
    assert found[0].name == "block 0"
    assert steps(net, noise(2).images, noise(2).targets) == {}
