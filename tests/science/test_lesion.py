"""Lesions: plans run as one tree answer as nets that were cut one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plusx.errors import UsageError
from plusx.model.baselines import VGGSpec
from plusx.model.surgery import drop_blocks
from plusx.science.lesion import Lesions, lesions, summary
from plusx.science.lesion_plans import (
    GONE,
    Line,
    kendall_tau,
    shuffled,
    steps,
    walk,
    without,
)
from plusx.science.subject import Subject
from plusx.weights.families import build


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}, {"block": "bottleneck"}])
def test_a_lesion_answers_as_the_net_without_the_block(small, noise, fields):
    subject, images = small(depths=[3, 2], **fields), noise(4)
    line = Line(subject.model)
    movable = [place.number for place in line.places if place.movable]
    plans = [line.whole, *(without(line, [n]) for n in movable), without(line, movable)]
    logits = dict(walk(line, plans, images.images))
    with torch.no_grad():
        torch.testing.assert_close(logits[0], subject.model(images.images))
        for at, number in enumerate(movable, start=1):
            if len(movable) > 1 and number in (1, 2, 4):
                slim = drop_blocks(subject.model, [number])
                torch.testing.assert_close(logits[at], slim(images.images))


def test_a_block_that_changes_the_shape_leaves_its_shortcut(small, noise):
    subject, images = small(), noise(4)
    line = Line(subject.model)
    assert [place.common for place in line.places] == [True, True, False, True]
    (_, found), = walk(line, [without(line, [2])], images.images)  # fmt: skip
    block = subject.model.stages[1][0]
    for parameter in block.residual.norm2.parameters():
        parameter.zero_()
    with torch.no_grad():
        torch.testing.assert_close(found, subject.model(images.images))


def test_swapped_blocks_answer_as_a_net_built_so(small, noise):
    subject, images = small(depths=[3, 3]), noise(4)
    line = Line(subject.model)
    (_, found), = walk(line, [(0, 2, 1, 3, 4, 5)], images.images)  # fmt: skip
    stage = subject.model.stages[0]
    stage[1], stage[2] = stage[2], stage[1]
    with torch.no_grad():
        torch.testing.assert_close(found, subject.model(images.images))


def test_nothing_runs_twice(small):
    line = Line(small(depths=[3, 3]).model)
    one = [without(line, [n]) for n in range(6)]
    # the whole net, and of each lesion the block and what comes after it
    assert steps([line.whole, *one]) == 6 + (6 + 5 + 4 + 3 + 2 + 1)
    assert steps([line.whole] * 3) == 6


def test_shuffled_keeps_stages_apart(small):
    line = Line(small(depths=[4, 4]).model)
    order = shuffled(line, 50, np.random.default_rng(0))
    assert sorted(order) == list(range(8))
    assert set(order[:4]) == {0, 1, 2, 3}
    assert order[4] == 4


def test_kendall_tau():
    from scipy.stats import kendalltau

    assert kendall_tau((0, 1, 2, 3)) == 1
    assert kendall_tau((3, 2, 1, 0)) == -1
    order = (2, 0, 1, 4, 3)
    assert kendall_tau(order) == pytest.approx(kendalltau(range(5), order).statistic)


def test_the_summary_counts_errors_right(small, noise):
    subject, images = small(), noise(40)
    found = lesions(subject, images, which=Lesions(most=3, swaps=2, draws=2))
    result = summary([found])
    rows = result.tables["blocks"]
    assert [row["changes_shape"] for row in rows] == [False, False, True, False]
    whole = 1 - found.right["whole"].mean()
    for row, right in zip(rows, found.right["one"], strict=True):
        assert row["cost"] == pytest.approx(1 - right.mean() - whole, abs=1e-6)
        assert row["cost_low"] <= row["cost"] <= row["cost_high"]
    assert {row["removed"] for row in result.tables["several"]} == {2, 3}
    middle = np.median([row["cost"] for row in rows if not row["changes_shape"]])
    assert f"costs {100 * middle:.1f} points in the median" in result.finding


def test_random_lesions_are_run_on_the_first_images_alone(small, noise, monkeypatch):
    monkeypatch.setattr("plusx.science.lesion.PIECE", 10)
    subject, images = small(), noise(25)
    which = Lesions(most=3, swaps=2, draws=2, draw_images=10)
    found = lesions(subject, images, which=which)
    assert found.right["one"].shape == (4, 25)
    assert found.right["several"].shape == (4, 10)
    monkeypatch.setattr("plusx.science.lesion.PIECE", 100)
    again = lesions(subject, images, which=which)
    np.testing.assert_array_equal(found.right["one"], again.right["one"])
    np.testing.assert_array_equal(found.right["several"], again.right["several"][:, :10])


def test_a_vgg_layer_is_removed_and_its_pool_kept(noise):
    spec = VGGSpec("v", (1, 2), widths=(4, 4), norm="batch", hidden=4, classes=3, image_size=8)
    model = build(spec).eval().requires_grad_(False)
    subject = Subject("v", model, None, None, "random", None)
    line = Line(model)
    assert [place.removable for place in line.places] == [False, True, True, False, False]
    images = noise(3)
    plan = without(line, [2])
    assert plan == (0, 1, GONE, 3, 4)
    (_, found), = walk(line, [plan], images.images)  # fmt: skip
    with torch.no_grad():
        x = model.stages[1][0](model.stages[0](images.images))
        x = model.stages[2](torch.max_pool2d(x, 2))
        torch.testing.assert_close(found, model.head(x.mean((2, 3))))
    assert "leaves" in summary([lesions(subject, images, which=Lesions(1, 0, 1))]).finding


def test_a_net_without_removable_blocks_is_refused():
    spec = VGGSpec("v", (1, 1), widths=(4, 8), hidden=4, classes=3, image_size=8)
    with pytest.raises(UsageError, match="no block with a shortcut and no layer that keeps"):
        Line(build(spec))
