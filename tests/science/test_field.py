"""Receptive fields against the exact ones; shuffled and hidden images against hand-made ones."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from plusx.errors import UsageError
from plusx.model.classifier import Classifier, Head
from plusx.science.field import Looking, energies, kinds, look, maps_of, places_of
from plusx.science.field_context import Change, answers, changed, changes, rows
from plusx.science.field_plot import draw
from plusx.science.field_summary import Looked, summary
from plusx.science.field_width import magnitude, resampled, widths
from plusx.science.subject import Images
from plusx.weights.families import build
from plusx.weights.timm_spec import timm_spec

DEPTH, SIDE = 10, 41


class Uniform(Classifier):
    """Ten 3x3 convolutions whose weights are all alike, without anything between them."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SimpleNamespace(name="uniform", in_channels=1, classes=2, feature_stages=1)
        self.stem = nn.Identity()
        layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(DEPTH)]
        for layer in layers:
            nn.init.constant_(layer.weight, 1 / 9)
        self.stages = nn.ModuleList([nn.Sequential(*layers)])
        self.norm = nn.Identity()
        self.head = Head(1, 2)


def exact() -> np.ndarray:
    """What the pixels count: the convolution of ten boxes, along both sides."""
    line = np.array([1.0])
    for _ in range(DEPTH):
        line = np.convolve(line, np.ones(3) / 3)
    full = np.zeros(SIDE)
    middle = SIDE // 2
    full[middle - DEPTH : middle + DEPTH + 1] = line
    return np.outer(full, full)


def test_a_stack_of_uniform_convolutions_has_the_exact_field():
    net = Uniform().eval().requires_grad_(False)
    noise = torch.randn(3, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    images = Images(noise, torch.zeros(3, dtype=torch.long), "noise", "all")
    found = energies(net, images, draws=2)["stage 1"]
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
    want = exact() / np.linalg.norm(exact())
    np.testing.assert_allclose(magnitude(found), want, atol=1e-5)
    (place,) = places_of(net, (SIDE, SIDE))
    assert place.theoretical == 2 * DEPTH + 1
    assert place.centre == (SIDE // 2, SIDE // 2)
    width = widths(magnitude(found)[None], place.centre)
    # the sum of ten uniform steps of variance 2/3
    assert width.sigma[0] == pytest.approx(math.sqrt(DEPTH * 2 / 3), rel=0.03)
    assert width.fit[0] > 0.999
    counted = (want > 0.0455 * want.max()).sum()
    assert width.size[0] == pytest.approx(math.sqrt(counted))
    assert width.size[0] < place.theoretical


def test_widths_of_a_known_gaussian_and_of_a_flat_map():
    rows, columns = np.indices((64, 64)) - np.array([31.5, 31.5])[:, None, None]
    shape = np.exp(-(rows**2 + columns**2) / (2 * 6.0**2)).astype(np.float32)
    found = widths(np.stack([shape, np.ones_like(shape)]), (31.5, 31.5))
    assert found.sigma[0] == pytest.approx(6, rel=0.01)
    assert found.fit[0] > 0.999
    # pixels within radius 6 sqrt(2 ln(1 / .0455)) count
    radius = 6 * math.sqrt(-2 * math.log(0.0455))
    assert found.size[0] == pytest.approx(math.sqrt(math.pi) * radius, rel=0.02)
    # the square that holds half: erf(a / sigma / sqrt 2) squared is a half
    assert found.half[0] == pytest.approx(2 * 1.0518 * 6, abs=1.5)
    assert found.size[1] == 64
    assert found.sigma[1] > 64


def test_resampling_one_image_changes_nothing_and_several_vary():
    energy = np.random.default_rng(0).random((4, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(resampled(energy[:1])[7], magnitude(energy[:1]), rtol=1e-6)
    assert resampled(energy).std(axis=0).max() > 0.01


def test_maps_of_a_residual_net_and_their_places(small):
    subject = small()
    maps = maps_of(subject.model, torch.zeros(1, 3, 8, 8))
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(4, 8, 8), (4, 8, 8), (8, 4, 4)]
    places = places_of(subject.model, (8, 8))
    assert [place.theoretical for place in places] == [3, 11, 11 + 2 + 4 * 3]
    gated = small(channel_attention="se")
    assert places_of(gated.model, (8, 8))[-1].theoretical is None


@pytest.mark.parametrize("fields", [{}, {"order": "pre"}])
def test_no_gradient_comes_from_beyond_the_theoretical_field(small, fields):
    subject = small(depths=[1, 1], image_size=32, **fields)
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = Images(noise, torch.zeros(2, dtype=torch.long), "noise", "all")
    found = energies(subject.model, images, draws=2)
    for place in places_of(subject.model, (32, 32)):
        seen = np.argwhere(found[place.name].any(axis=0))
        ends = [place.centre[0] - (place.theoretical - 1) / 2,
                place.centre[0] + (place.theoretical - 1) / 2]  # fmt: skip
        assert [seen.min(), seen.max()] == ends, place


def test_random_weights_are_measured_as_fresh_nets_only(small, noise):
    subject, images = small(), noise(5)
    assert kinds(subject, Looking(inits=0)) == [("initialised", 0)]
    found = look(subject, images, looking=Looking(images=4, inits=3))
    assert found["initialised"]["stem"].shape == (12, 8, 8)
    first, second = found["initialised"]["stage 2"][:4], found["initialised"]["stage 2"][4:8]
    assert np.abs(first - second).max() > 1e-3


def test_a_fresh_net_normalises_its_images(small, noise):
    from plusx.science.field import fresh

    subject, images = small(zero_init_last=True), noise(16)
    net = fresh(subject, images, seed=3)
    assert net.stages[0][0].residual.norm2.weight.abs().min() > 0
    assert net.stem.norm.running_var.std() > 0
    again = fresh(subject, images, seed=3)
    torch.testing.assert_close(net.stem.conv.weight, again.stem.conv.weight)


def test_one_tile_is_the_image_and_many_keep_every_pixel():
    images = torch.arange(2 * 3 * 8 * 8.0).reshape(2, 3, 8, 8)
    torch.testing.assert_close(changed(images, Change("shuffled", 1)), images)
    for g in (2, 4, 8):
        cut = changed(images, Change("shuffled", g), seed=1)
        assert not torch.equal(cut, images)
        assert torch.equal(cut.flatten(1).sort().values, images.flatten(1).sort().values)
        tile = 8 // g
        whole = {tuple(t.flatten().tolist())
                 for t in images[0].unfold(1, tile, tile).unfold(2, tile, tile)
                 .permute(1, 2, 0, 3, 4).reshape(-1, 3, tile, tile)}  # fmt: skip
        cuts = {tuple(t.flatten().tolist())
                for t in cut[0].unfold(1, tile, tile).unfold(2, tile, tile)
                .permute(1, 2, 0, 3, 4).reshape(-1, 3, tile, tile)}  # fmt: skip
        assert cuts == whole


def test_an_image_is_shuffled_the_same_in_any_batch():
    images = torch.randn(5, 3, 8, 8)
    whole = changed(images, Change("shuffled", 4), seed=2)
    torch.testing.assert_close(
        changed(images[3:], Change("shuffled", 4), seed=2, first=3), whole[3:]
    )


def test_hidden_middle_and_rim_share_the_image():
    images = torch.ones(1, 1, 16, 16)
    middle = changed(images, Change("centre hidden", 0.25))
    assert middle.mean() == 0.75
    assert not middle[0, 0, 4:12, 4:12].any()
    rim = changed(images, Change("rim hidden", 0.75))
    assert rim.mean() == 0.25
    assert rim[0, 0, 4:12, 4:12].all()
    assert images.all()


def test_grids_that_do_not_fit_are_refused():
    assert [c.level for c in changes((32, 32)) if c.kind == "shuffled"] == [1, 2, 4, 8]
    with pytest.raises(UsageError, match=r"--grids 3 does not cut 32 x 32 .* 1, 2, 4, 8, 16, 32"):
        changes((32, 32), [3])


def test_changed_answers_are_counted_and_paired():
    right = [np.array([True] * 8 + [False] * 2), np.array([True] * 3 + [False] * 7)]
    given = [Change("shuffled", 1), Change("shuffled", 2)]
    first, second = rows("net", given, right, groups=None, seed=0)
    assert (first["top1"], first["cost"], first["cost_low"], first["cost_high"]) == (0.8, 0, 0, 0)
    assert (second["top1"], second["cost"]) == (0.3, 0.5)
    assert 0 < second["cost_low"] < 0.5 < second["cost_high"]


def test_the_whole_image_is_answered_as_the_net_does(small, noise):
    subject, images = small(), noise(40)
    with torch.no_grad():
        logits = subject.model(images.images)
    right = answers(subject, images, Change("shuffled", 1))
    two = logits.topk(2).values
    sure = (two[:, 0] - two[:, 1] > 0.05 * logits.abs().max()).numpy()
    assert sure.sum() > 10
    np.testing.assert_array_equal(right[sure], (logits.argmax(1) == images.targets).numpy()[sure])


def test_the_summary_and_its_figures(small, noise):
    subject, images = small(), noise(12)
    found = look(subject, images, looking=Looking(images=4, inits=1))
    given = changes((8, 8), [1, 2])
    right = [answers(subject, images, change) for change in given]
    energy = {"trained": found["initialised"], **found}
    places = places_of(subject.model, (8, 8))
    result = summary([Looked(subject, images, places, energy, given, right)])
    assert len(result.tables["fields"]) == 6
    last = result.tables["fields"][2]
    assert last["effective_low"] <= last["effective_high"] <= 8
    assert last["share_of_theoretical"] == pytest.approx(last["effective"] / 25, abs=1e-5)
    assert f"sees {last['effective']:.0f} (95% interval" in result.finding
    assert "2 x 2 tiles" in result.finding
    assert set(draw(result)) == {"field", "field_maps"}
    alone = summary([Looked(subject, images, places, found)])
    assert any("would say nothing" in note for note in alone.notes)
    assert not alone.tables["context"]
    draw(alone)
    twice = summary([Looked(subject, images, places, found)] * 2)
    assert {row["net"] for row in twice.tables["fields"]} == {"small", "small (2)"}
    assert len(twice.arrays) == 6
    draw(twice)


def test_a_transformer_looks_at_the_whole_image():
    pytest.importorskip("timm", reason="extra 'timm' absent")
    net = build(timm_spec("timm:test_vit", classes=3)).eval().requires_grad_(False)
    size = net.spec.image_size
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = Images(noise, torch.zeros(1, dtype=torch.long), "noise", "all")
    places = places_of(net, (size, size))
    assert [place.theoretical for place in places] == [None] * len(places)
    found = energies(net, images, draws=1)
    assert (found[places[-1].name] > 0).mean() > 0.99
