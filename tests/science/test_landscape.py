"""Landscapes: surfaces that are known exactly, and the fast plane against plain evaluation."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from plusx.data import Preprocessing
from plusx.errors import UsageError
from plusx.model.classifier import Classifier, Head
from plusx.science import landscape
from plusx.science.directions import moving, path_directions, random_direction
from plusx.science.landscape import Grid, Surface, basin, width_interval
from plusx.science.landscape_plane import Plane, moved, plain_loss
from plusx.science.landscape_plot import draw
from plusx.science.landscape_summary import summary
from plusx.science.sharpness import curvature
from plusx.science.subject import Subject


class Spec:
    """What a subject asks of one."""

    name, classes, blocks, stages, feature_stages = "linear", 3, 1, 1, 1


class Linear(Classifier):
    """Pooled pixels times one matrix, or times two: a linear net."""

    def __init__(self, *, two: bool = False) -> None:
        super().__init__()
        self.spec, self.stem, self.norm = Spec(), nn.Identity(), nn.Identity()
        first = nn.Conv2d(3, 4, 1, bias=False) if two else nn.Identity()
        self.stages = nn.ModuleList([nn.Sequential(first)])
        self.head = Head(4 if two else 3, 3)


def linear(*, two: bool = False) -> Subject:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Linear(two=two).eval().requires_grad_(False)
    return Subject("linear", net, Preprocessing.for_size(8), None, "random", None)


def surface_of(loss, xs, spread=0.0):
    ys = xs if loss.shape[0] > 1 else np.zeros(1)
    subject = linear()
    return Surface(subject, None, xs, ys, loss, np.full(loss.shape, spread), np.zeros(loss.shape))


def cross_entropy(logits, targets):
    top = logits.max(1, keepdims=True)
    logsum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return (logsum - logits[np.arange(len(logits)), targets]).mean()


def test_a_linear_nets_surface_is_exact(noise, monkeypatch):
    monkeypatch.setattr(landscape, "fast_dtype", lambda device: torch.float32)
    subject, images, grid = linear(), noise(30), Grid(points=7, extent=2.0)
    found = landscape.landscape(subject, images, grid=grid)
    d1, d2 = (random_direction(subject.model, seed)["head.fc.weight"].double().numpy()
              for seed in (0, 1))  # fmt: skip
    weight = subject.model.head.fc.weight.double().numpy()
    bias = subject.model.head.fc.bias.double().numpy()
    x = images.images.double().mean((2, 3)).numpy()
    targets = images.targets.numpy()
    exact = [[cross_entropy(x @ (weight + a * d1 + b * d2).T + bias, targets)
              for a in grid.centre] for b in grid.centre]  # fmt: skip
    np.testing.assert_allclose(found.loss, exact, rtol=1e-5)


def test_two_linear_layers_make_the_logits_quadratic(noise):
    subject, images = linear(two=True), noise(10)
    plane = Plane(subject.model, [random_direction(subject.model, 0)], dtype=torch.float32)
    at = [plane.go(a)(images.images).double() for a in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    second = [at[i] - 2 * at[i + 1] + at[i + 2] for i in range(3)]
    torch.testing.assert_close(second[0], second[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(second[1], second[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("points", [11, 51])
def test_a_quadratics_basin_is_exact(points):
    xs = Grid(points=points).centre
    x, y = np.meshgrid(xs, xs)
    found = surface_of(4 * x**2 + 4 * y**2 + 0.3, xs)
    radius, rim = basin(found, rise=1.0)
    assert radius == pytest.approx(0.5, abs=0.02)
    assert not rim
    ellipse, _ = basin(surface_of(4 * x**2 + 16 * y**2, xs), rise=1.0)
    assert ellipse == pytest.approx(math.sqrt(0.5 * 0.25), abs=0.025)
    line, rim = basin(surface_of(4 * xs[None] ** 2, xs), rise=1.0)
    assert line == pytest.approx(0.5, abs=0.02)
    assert basin(surface_of(0.1 * xs[None] ** 2, xs), rise=1.0)[1]


def test_another_valley_is_not_the_basin():
    xs = Grid(points=41).centre
    wave = 4 * np.sin(2 * np.pi * xs[None]) ** 2  # 0 again at every half
    assert basin(surface_of(wave, xs), rise=1.0)[0] == pytest.approx(1 / 12, abs=0.01)


def test_a_rim_that_is_not_finite_is_kept_and_drawn():
    xs = Grid(points=21).centre
    x, y = np.meshgrid(xs, xs)
    loss = x**2 + y**2
    loss[0, :], loss[:, -1] = np.nan, np.inf
    found = surface_of(loss, xs)
    radius, rim = basin(found, rise=0.25)
    assert radius == pytest.approx(0.5, abs=0.02)
    assert not rim
    low, high = width_interval(found, 0.25)
    assert low == pytest.approx(high)

    class Two:
        def __len__(self) -> int:
            return 2

        def settings(self) -> dict[str, object]:
            return {}

    result = summary([replace(found, images=Two())], grid=Grid(points=21))
    assert "41 of 441 points are not finite" in result.finding
    assert np.isnan(result.arrays["loss_0"]).sum() == 20
    for figure in draw(result).values():
        figure.savefig(io.BytesIO(), format="png", dpi=40)


def test_a_direction_is_as_long_as_each_filter_and_leaves_norms_alone(small):
    model = small(shortcut="conv").model
    direction = random_direction(model, 5)
    assert direction.keys() == moving(model).keys()
    assert not any("norm" in name or "bias" in name for name in direction)
    for name, weight in moving(model).items():
        torch.testing.assert_close(direction[name].flatten(1).norm(dim=1),
                                   weight.flatten(1).norm(dim=1))  # fmt: skip
    assert not torch.equal(
        direction["head.fc.weight"], random_direction(model, 6)["head.fc.weight"]
    )


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}, {"shortcut": "none"}])
def test_the_plane_agrees_with_nets_moved_one_by_one(small, noise, fields):
    subject, images = small(**fields), noise(20)
    directions = [random_direction(subject.model, seed) for seed in (0, 1)]
    exact, fast = (Plane(subject.model, directions, dtype=dtype)
                   for dtype in (torch.float32, torch.bfloat16))  # fmt: skip
    for at in ((0.0, 0.0), (0.5, -1.0), (-1.0, 1.0), (0.0, 0.0)):
        there = moved(subject.model, directions, at)
        plain = plain_loss(there, images.images, images.targets, batch=7)
        found = exact.loss(at, images.images, images.targets)
        torch.testing.assert_close(found[:, 0], plain, rtol=1e-4, atol=1e-5)
        wrong = there(images.images).argmax(1) != images.targets
        assert found[:, 1].bool().tolist() == wrong.tolist()
        half = fast.loss(at, images.images.bfloat16(), images.targets)[:, 0].mean()
        assert float(half) == pytest.approx(float(plain.mean()), rel=0.03)


def test_a_path_in_a_plane_is_found_there():
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(40, 2)))
    at = np.array([[3.0, 0.5], [2.0, -0.4], [1.0, 0.2], [0.0, 0.0]])
    end = random.normal(size=40)
    states = [{"w": torch.from_numpy(end + basis @ point).reshape(8, 5)} for point in at]
    path = path_directions(states)
    assert sum(path.explained) == pytest.approx(1)
    assert path.explained[0] > path.explained[1]
    d1, d2 = (direction["w"].flatten().numpy() for direction in path.directions)
    assert d1 @ d1 == pytest.approx(1)
    assert d1 @ d2 == pytest.approx(0, abs=1e-9)
    for state, (a, b) in zip(states, path.at, strict=True):
        np.testing.assert_allclose(end + a * d1 + b * d2, state["w"].flatten(), atol=1e-9)


def test_a_landscape_on_a_path_passes_through_its_checkpoints(small, noise):
    subject, images = small(), noise(16)
    ways = [random_direction(subject.model, seed) for seed in (3, 4)]
    points = [(0.6, 0.1), (0.3, -0.1)]
    checkpoints = [replace(subject, model=moved(subject.model, ways, at)) for at in points]
    grid = Grid(points=3)
    found = landscape.landscape(subject, images, grid=grid, checkpoints=checkpoints)
    assert found.path is not None
    plane = Plane(subject.model, found.path.directions, dtype=torch.float32)
    for checkpoint, (a, b) in zip(checkpoints, found.path.at, strict=False):
        there = plain_loss(checkpoint.model, images.images, images.targets)
        found_there = plane.loss((float(a), float(b)), images.images, images.targets)[:, 0]
        torch.testing.assert_close(found_there, there, rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="at least 3 checkpoints, got 2"):
        landscape.path_of(subject, checkpoints[:1])


def test_eigenvalues_of_a_linear_nets_hessian(noise):
    pytest.importorskip("curvlinops", reason="extra 'science' absent")
    subject, images = linear(), noise(12)
    net = subject.model

    def loss(weight, bias):
        logits = functional.linear(images.images.mean((2, 3)), weight, bias)
        return functional.cross_entropy(logits, images.targets)

    parameters = (net.head.fc.weight, net.head.fc.bias)
    blocks = torch.autograd.functional.hessian(loss, parameters)
    sizes = [p.numel() for p in parameters]
    rows = [torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in (0, 1)], dim=1)
            for i in (0, 1)]  # fmt: skip
    exact = torch.linalg.eigvalsh(torch.cat(rows).double())
    found = curvature(net, images, largest=2, tolerance=1e-6)
    assert found.largest == pytest.approx(exact[[-1, -2]].tolist(), rel=1e-3)
    assert found.smallest == pytest.approx(float(exact[0]), abs=1e-5)
    assert found.ratio == pytest.approx(0, abs=1e-4)  # convex


def test_grids_that_cannot_be_are_refused():
    for fields in ({"points": 2}, {"extent": 0.0}, {"extent": math.nan}):
        with pytest.raises(UsageError):
            Grid(**fields)
    assert Grid().centre[25] == 0.0
