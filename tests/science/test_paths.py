"""Paths: exact counts, gradients against autograd and full enumeration."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model.surgery import drop_blocks
from plusx.science import paths
from plusx.science.paths import Sampling
from plusx.science.paths_gradient import Tape
from plusx.science.paths_training import Training, run_some, train_effective

NETS = [{}, {"order": "pre"}, {"shortcut": "conv"}, {"order": "pre", "shortcut": "conv"}]


def whole_gradient(subject, images):
    x = images.images.clone().requires_grad_(True)
    loss = functional.cross_entropy(subject.model(x), images.targets, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("fields", NETS)
def test_all_paths_together_bring_the_whole_gradient(small, noise, fields):
    subject, images = small(**fields), noise(6)
    sums = Tape(subject.model, images.images, images.targets).sums()
    assert sums.shape == (5, 6, 3, 8, 8)
    torch.testing.assert_close(sums.sum(0), whole_gradient(subject, images), rtol=1e-4, atol=1e-6)


def test_the_shortest_and_the_longest_path_are_exact(small, noise):
    subject, images = small(), noise(5)
    tape = Tape(subject.model, images.images, images.targets)
    ends = tape.norms([(False,) * 4, (True,) * 4])
    sums = tape.sums().flatten(2).norm(dim=2)
    torch.testing.assert_close(ends, sums[[0, 4]])


def test_sampled_norms_against_full_enumeration_on_ten_blocks(small, noise):
    subject, images = small(depths=[5, 5]), noise(3)
    tape = Tape(subject.model, images.images, images.targets)
    every = list(itertools.product((False, True), repeat=10))
    norms = tape.norms(every).double().numpy().mean(axis=1)
    lengths = np.array([sum(path) for path in every])
    found = paths.gradients(subject, images, sampling=Sampling(draws=60, images=3))
    for k, sampled in enumerate(found.sampled):
        exact, n = norms[lengths == k], len(sampled)
        assert n == min(60, math.comb(10, k))
        error = exact.std() / math.sqrt(n)
        assert abs(sampled.mean() - exact.mean()) <= 4 * error + 1e-9 * exact.mean()
    parts = np.array([norms[lengths == k].sum() for k in range(11)])
    np.testing.assert_allclose(paths.shares(found), parts / parts.sum(), atol=0.03)


def test_drawn_lengths_are_binomial():
    blocks, n = 54, 20_000
    lengths = paths.draw_lengths(blocks, n, seed=3)
    exact = np.array(paths.count(blocks)) / 2**blocks
    assert exact.sum() == 1
    seen = np.bincount(lengths, minlength=blocks + 1) / n
    # Dvoretzky-Kiefer-Wolfowitz: exceeded once in 10,000 times
    bound = math.sqrt(math.log(2 / 1e-4) / (2 * n))
    assert np.abs(np.cumsum(seen) - np.cumsum(exact)).max() < bound
    assert not np.array_equal(lengths, paths.draw_lengths(blocks, n, seed=4))


def test_most_paths_of_54_blocks_are_19_to_35_long():
    """Veit et al. 2016, section 5.1."""
    exact = np.array(paths.count(54)) / 2**54
    assert paths.effective(exact, 0.95) == (20, 34)
    assert exact[19:36].sum() > 0.95


def test_effective_lengths_are_the_shortest_range():
    assert paths.effective(np.array([0.05, 0.5, 0.4, 0.05])) == (1, 2)
    assert paths.effective(np.array([1.0, 0.0, 0.0])) == (0, 0)


def test_the_finding_has_the_tables_numbers(small, noise):
    found = paths.gradients(small(), noise(8), sampling=Sampling(draws=3, images=8))
    result = paths.summary(found)
    rows = result.tables["lengths"]
    assert sum(row["share_of_gradient"] for row in rows) == pytest.approx(1)
    low, high = paths.effective(np.array([row["share_of_gradient"] for row in rows]))
    assert f"comes through {low} to {high} " in result.finding
    assert sum(row["paths"] for row in rows) == 16


def test_a_plain_net_has_no_choice_of_paths(small, noise):
    images = noise(2)
    with pytest.raises(UsageError, match=r"4 of its 4 blocks have no shortcut"):
        Tape(small(shortcut="none").model, images.images, images.targets)


def test_training_effective_paths_moves_what_was_run_alone(small, noise):
    subject, images = small(), noise(40)
    shade = images.targets[:, None, None, None] - 1.0  # something to learn
    images = replace(images, images=images.images + shade)
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    how = Training(steps=60, lr=0.1, batch=40)
    found = train_effective(subject, images, images, lengths=(1, 2), how=how)
    assert found == train_effective(subject, images, images, lengths=(1, 2), how=how)
    with torch.no_grad():
        wrong = subject.model(images.images).argmax(1) != images.targets
    assert found.before == pytest.approx(float(wrong.float().mean()))
    assert found.everything < found.before  # it learns to tell bright from dark
    for name, value in subject.model.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(UsageError, match="lengths 3 to 9 are not within 0 to 4"):
        train_effective(subject, images, images, lengths=(3, 9))


def test_blocks_left_out_are_their_shortcuts(small, noise):
    subject, images = small(depths=[3, 2]), noise(3)
    with torch.no_grad():
        found = run_some(subject.model, images.images, {0, 2, 3, 4})
        slim = drop_blocks(subject.model, [1])(images.images)
    torch.testing.assert_close(found, slim)
