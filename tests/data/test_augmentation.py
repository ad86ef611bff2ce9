"""Augmentation: seeded views, torchvision's arithmetic, within their bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.data import Augmentation, Preprocessing, view_rng
from plusx.errors import UsageError

STILL = Augmentation(scale=(1, 1), ratio=(1, 1), hflip=0)
PLAIN = Preprocessing(32, 32, mean=(0, 0, 0), std=(1, 1, 1))


def noise(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    size = (height, width, channels)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def test_one_view_depends_on_its_three_numbers_alone() -> None:
    image, light = noise(50, 60), Augmentation.light(100, size=32)
    views = {}
    for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0)]:
        torch.manual_seed(len(views))
        views[key] = light(image, PLAIN, rng=view_rng(*key))
        torch.manual_seed(99)
        np.random.seed(3)  # noqa: NPY002
        assert torch.equal(light(image, PLAIN, rng=view_rng(*key)), views[key])
    several = list(views.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(several) for b in several[:i])


def test_global_state_is_left_alone() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()  # noqa: NPY002
    Augmentation.light(100)(noise(9, 9), PLAIN, rng=view_rng(0, 0, 0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_without_change_it_is_the_preprocessing() -> None:
    p = Preprocessing.for_size(32)
    for side in (20, 32, 77):
        image = noise(side, side)
        torch.testing.assert_close(STILL(image, p, rng=view_rng(0, 0, 0)), p(image))


def test_each_call_draws_the_same_number_of_values() -> None:
    rng = view_rng(1, 2, 3)
    Augmentation(hflip=0)(noise(8, 8), PLAIN, rng=rng)
    other = view_rng(1, 2, 3)
    Augmentation.light(10)(noise(90, 10), PLAIN, rng=other)
    assert rng.random() == other.random()


def test_flips() -> None:
    image = noise(32, 32)
    still = STILL(image, PLAIN, rng=view_rng(0, 0, 0))
    for values, axes in [
        ({"hflip": 1}, [2]),
        ({"vflip": 1}, [1]),
        ({"hflip": 1, "vflip": 1}, [1, 2]),
    ]:
        values = {"hflip": 0} | values
        flipped = Augmentation(scale=(1, 1), ratio=(1, 1), **values)  # type: ignore[arg-type]
        assert torch.equal(flipped(image, PLAIN, rng=view_rng(0, 0, 0)), still.flip(axes))


def test_flip_probability() -> None:
    image = noise(32, 32)
    still = STILL(image, PLAIN, rng=view_rng(0, 0, 0))
    quarter = Augmentation(scale=(1, 1), ratio=(1, 1), hflip=0.25)
    same = sum(
        torch.equal(quarter(image, PLAIN, rng=view_rng(0, 0, i)), still) for i in range(1000)
    )
    assert 700 < same < 800


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 10**6))
def test_crops_stay_inside(height: int, width: int, seed: int) -> None:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([y, x, y * 0], dim=2).to(torch.uint8)
    rough = Augmentation(scale=(0.05, 1.0), ratio=(0.3, 3.0), hflip=0)
    view = rough(
        image, Preprocessing(16, 16, mean=(0, 0, 0), std=(1, 1, 1)), rng=view_rng(seed, 0, 0)
    )
    assert view.shape == (3, 16, 16)
    assert view[0].max() * 255 <= height - 1 + 1e-3
    assert view[1].max() * 255 <= width - 1 + 1e-3


def test_crop_area_and_shape_are_as_stated() -> None:
    y, x = torch.meshgrid(torch.arange(200), torch.arange(200), indexing="ij")
    image = torch.stack([y, x, y * 0], dim=2).to(torch.uint8)
    rough = Augmentation(scale=(0.2, 0.4), ratio=(0.5, 2.0), hflip=0)
    p = Preprocessing(64, 64, mean=(0, 0, 0), std=(1, 1, 1))
    areas, shapes, tops = [], [], []
    for i in range(300):
        view = rough(image, p, rng=view_rng(0, 0, i)) * 255
        # the ramp's step between output rows is crop height / 64 (away from the border)
        h = float(view[0, 40, 30] - view[0, 20, 30]) / 20 * 64
        w = float(view[1, 30, 40] - view[1, 30, 20]) / 20 * 64
        areas.append(h * w / 200**2)
        shapes.append(w / h)
        tops.append(float(view[0, 0, 0]))
    assert 0.19 < min(areas) < 0.215
    assert 0.385 < max(areas) < 0.41
    assert 0.48 < min(shapes) < 0.55
    assert 1.8 < max(shapes) < 2.1
    assert abs(np.mean(np.log(shapes))) < 0.08
    assert min(tops) < 5
    assert max(tops) > 80


def test_light_is_torchvisions() -> None:
    from torchvision.transforms.v2 import functional as tv

    x = noise(20, 30).permute(2, 0, 1) / 255
    change = np.array([0.5, -0.8, 0.9])
    strong = Augmentation(brightness=0.4, contrast=0.5, saturation=0.6)
    theirs = tv.adjust_brightness(x, 1 + 0.4 * 0.5)
    theirs = tv.adjust_contrast(theirs, 1 - 0.5 * 0.8)
    theirs = tv.adjust_saturation(theirs, 1 + 0.6 * 0.9)
    torch.testing.assert_close(strong._light(x, change), theirs, rtol=0, atol=1e-5)
    grey = x[:1]
    theirs = tv.adjust_contrast(tv.adjust_brightness(grey, 1.2), 0.6)
    got = Augmentation(brightness=0.4, contrast=0.5)._light(grey, change)
    torch.testing.assert_close(got, theirs, rtol=0, atol=1e-5)


def test_any_number_of_channels_but_saturation() -> None:
    p = Preprocessing.for_size(16, channels=5)
    image = noise(20, 20, 5)
    light = Augmentation.light(100, size=16, channels=5)
    assert light(image, p, rng=view_rng(0, 0, 0)).shape == (5, 16, 16)
    with pytest.raises(UsageError, match="saturation"):
        Augmentation(saturation=0.2)(image, p, rng=view_rng(0, 0, 0))


def test_the_default_grows_with_the_data_and_spares_tiny_pictures() -> None:
    least = [Augmentation.light(n).scale[0] for n in (1, 100, 1000, 10_000, 100_000, 10**7)]
    assert least == pytest.approx([0.5, 0.5, 0.5, 0.375, 0.25, 0.25])
    assert Augmentation.light(10**6, size=64).scale[0] == 0.6
    assert Augmentation.light(100).vflip == 0


@pytest.mark.parametrize(
    "values",
    [
        {"scale": (0, 1)},
        {"scale": (0.9, 0.5)},
        {"scale": (0.5, 1.1)},
        {"ratio": (0, 1)},
        {"ratio": (2, 1)},
        {"hflip": 1.5},
        {"vflip": -0.1},
        {"brightness": 2},
    ],
)
def test_values_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="augmentation"):
        Augmentation(**values)  # type: ignore[arg-type]


def test_other_tensors_are_refused() -> None:
    with pytest.raises(UsageError, match="expected"):
        STILL(torch.zeros(3, 8, 8), PLAIN, rng=view_rng(0, 0, 0))
