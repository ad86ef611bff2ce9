"""Preprocessing: equal to torchvision's on floats, near timm's on bytes, traceable."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plusx.data import Preprocessing
from plusx.errors import UsageError

SIZES = [(360, 480), (481, 333), (100, 100), (224, 224), (256, 300), (31, 17), (225, 1000), (7, 7)]


@pytest.fixture(autouse=True, scope="module")
def _one_core() -> Iterator[None]:
    """Small resizes are faster on one core, much so where others use the second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """(H, W, C) uint8: smooth, with edges and a little noise."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (5 + c)) * np.cos(y / (7 - c % 5)) for c in range(channels)]
    image = np.stack(waves, axis=2) + rng.normal(0, 8, (height, width, channels))
    image[height // 3 : height // 2, width // 4 : width // 2] = 250
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def by_torchvision(p: Preprocessing, image: torch.Tensor) -> torch.Tensor:
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import InterpolationMode

    x = image.permute(2, 0, 1).float()
    size = p.resize if p.mode == "short" else [p.resize, p.resize]
    x = v2.Resize(size, interpolation=InterpolationMode(p.interpolation), antialias=True)(x)
    x = v2.CenterCrop(p.size)(x)
    out = v2.Normalize(p.mean, p.std)(x / 255)
    assert isinstance(out, torch.Tensor)
    return out


@pytest.mark.parametrize("mode", ["short", "squish"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (224, 235), (64, 64), (61, 64)])
def test_equals_torchvision(mode: str, interpolation: str, size: int, resize: int) -> None:
    p = Preprocessing(size, resize, interpolation, mode=mode)  # type: ignore[arg-type]
    for height, width in SIZES:
        image = photo(height, width)
        got = p(image)
        assert (got.shape, got.dtype) == ((3, size, size), torch.float32)
        torch.testing.assert_close(got, by_torchvision(p, image), rtol=0, atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 600))
def test_resized_size_is_torchvisions(height: int, width: int, resize: int) -> None:
    short, long = sorted((height, width))
    expected = {short: resize, long: int(resize * long / short)}
    if height == width:
        expected = {height: resize}
    got = Preprocessing(1, resize).resized_hw(height, width)
    assert got == (expected[height], expected[width])
    assert all(type(side) is int for side in got)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_resize_left_out_changes_nothing(interpolation: str) -> None:
    for height, width in [(256, 300), (64, 64), (90, 64)]:
        resize = min(height, width)
        p = Preprocessing(resize, resize, interpolation)  # type: ignore[arg-type]
        x = photo(height, width).permute(2, 0, 1)
        resized = torch.nn.functional.interpolate(
            x[None].float(), size=(height, width), mode=interpolation, antialias=True
        )[0]
        assert torch.equal(p.resample(x, (height, width)), resized)


def test_the_resize_is_not_rounded_to_bytes() -> None:
    p = Preprocessing(16, 16, mean=(0, 0, 0), std=(1, 1, 1))
    levels = p(photo(50, 50)) * 255
    assert (levels - levels.round()).abs().max() > 0.1


@pytest.mark.parametrize(("height", "width"), [(3, 4001), (4001, 3), (1, 1), (1, 60_000)])
def test_thin_images(height: int, width: int) -> None:
    got = Preprocessing.for_size(224)(photo(height, width))
    assert got.shape == (3, 224, 224)
    assert torch.isfinite(got).all()


def test_a_long_image_shows_its_middle() -> None:
    image = torch.zeros(10, 1000, 3, dtype=torch.uint8)
    image[:, 490:510] = 255
    p = Preprocessing(20, 20, mean=(0, 0, 0), std=(1, 1, 1))
    assert (p(image) == 1).all()


def test_against_timm_on_bytes() -> None:
    from timm.data import create_transform  # type: ignore[attr-defined]

    for cfg in (
        {"input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.95},
        {"input_size": (3, 224, 224), "interpolation": "bilinear", "crop_pct": 0.875},
        {"input_size": (3, 96, 96), "interpolation": "bilinear", "crop_mode": "squash"},
        {"input_size": (3, 96, 96), "interpolation": "bilinear", "crop_pct": 1.0,
         "crop_mode": "border"},
    ):  # fmt: skip
        cfg |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        p = Preprocessing.from_timm(cfg)
        for height, width in [(360, 480), (300, 300), (500, 333)]:
            image = photo(height, width)
            theirs = create_transform(**cfg, is_training=False)(Image.fromarray(image.numpy()))
            difference = (p(image) - theirs).abs() * 255 * 0.225
            assert difference.mean() < 0.6  # grey levels: timm rounds to bytes twice
            assert difference.quantile(0.99) < 3


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 512), st.integers(0, 300))
def test_timm_and_back(size: int, more: int) -> None:
    p = Preprocessing(size, size + more, "bicubic")
    cfg = p.to_timm()
    assert math.floor(size / cfg["crop_pct"]) == size + more  # timm's own formula
    assert Preprocessing.from_timm(json.loads(json.dumps(cfg))) == p


@pytest.mark.parametrize(("mode", "theirs"), [("squish", "squash"), ("pad", "border")])
def test_other_modes_to_timm_and_back(mode: str, theirs: str) -> None:
    p = Preprocessing(64, 64, mode=mode, mean=(0.5,), std=(0.25,), channels=1)  # type: ignore[arg-type]
    assert p.to_timm()["crop_mode"] == theirs
    assert Preprocessing.from_timm(p.to_timm()) == p
    assert Preprocessing.from_dict(p.to_dict()) == p


@pytest.mark.parametrize("resize", [32, 40])
@pytest.mark.parametrize("hw", [(60, 100), (101, 33), (50, 50), (7, 2000), (5, 3)])
def test_pad_shows_the_whole_image_in_a_frame_of_the_mean(hw: tuple[int, int], resize: int) -> None:
    p = Preprocessing(32, resize, mode="pad")
    image = photo(*hw)
    seen = p(image)
    assert seen.shape == (3, 32, 32)
    inner = p.resized_hw(*hw)
    assert max(inner) == resize
    assert min(inner) >= 1
    x = p.normalise(p.resample(image.permute(2, 0, 1), inner) / 255)
    whole = torch.zeros(3, 400, 400)  # far larger than both
    top, left = (200 - side // 2 for side in inner)
    whole[:, top : top + inner[0], left : left + inner[1]] = x
    spare = [side - 32 for side in inner]
    top, left = (at + round(s / 2) for at, s in zip((top, left), spare, strict=True))
    assert torch.equal(seen, whole[:, top : top + 32, left : left + 32])


def test_what_timm_leaves_out() -> None:
    p = Preprocessing.from_timm({"input_size": [3, 224, 224]})
    assert (p.resize, p.interpolation, p.mode) == (256, "bicubic", "short")


@pytest.mark.parametrize(
    ("cfg", "word"),
    [
        ({}, "input_size None"),
        ({"input_size": [224, 224]}, "input_size"),
        ({"input_size": [3, 224, 256]}, "not square"),
        ({"input_size": [3, 224, 224], "crop_mode": "tile"}, "'tile'"),
        ({"input_size": [3, 224, 224], "interpolation": "lanczos"}, "'lanczos'"),
        ({"input_size": [3, 224, 224], "crop_pct": 1.2}, "below size"),
        ({"input_size": [1, 224, 224]}, "3 values for 1 channels"),
    ],
)
def test_what_timm_has_and_plusx_has_not(cfg: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Preprocessing.from_timm(cfg)


def test_for_size() -> None:
    assert Preprocessing.for_size(224).resize == 256
    assert Preprocessing.for_size(160).resize == 182
    assert Preprocessing.for_size(159).resize == 159
    assert Preprocessing.for_size(64).resize == 64
    assert Preprocessing.for_size(224).mean == (0.485, 0.456, 0.406)
    five = Preprocessing.for_size(64, channels=5)
    assert five.mean == pytest.approx((0.449,) * 5)
    assert five.std == pytest.approx((0.226,) * 5)
    assert five(photo(70, 80, channels=5)).shape == (5, 64, 64)


def test_dict_and_back_is_strict() -> None:
    p = Preprocessing.for_size(224)
    values = json.loads(json.dumps(p.to_dict()))
    assert Preprocessing.from_dict(values) == p
    with pytest.raises(UsageError, match="unknown keys \\['crop'\\]"):
        Preprocessing.from_dict(values | {"crop": 1})
    del values["std"]
    with pytest.raises(UsageError, match="missing keys \\['std'\\]"):
        Preprocessing.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"resize": 9},
        {"interpolation": "nearest"},
        {"mode": "fit"},
        {"channels": 0},
        {"channels": 1},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (0.5,)},
    ],
)
def test_values_that_do_not_fit(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="preprocessing"):
        Preprocessing(**({"size": 10, "resize": 10} | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 8, 8, dtype=torch.uint8),
        torch.zeros(8, 8, 3),
        torch.zeros(8, 8, dtype=torch.uint8),
        torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 8, 3, dtype=torch.uint8),
    ],
)
def test_other_tensors_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="expected"):
        Preprocessing.for_size(8)(image)


class AsModule(torch.nn.Module):
    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.preprocessing(image)


@pytest.mark.filterwarnings("default")  # torch's exporter warns about its own parts
@pytest.mark.parametrize("mode", ["short", "squish", "pad"])
def test_exports_for_any_height_and_width(mode: str) -> None:
    p = Preprocessing(32, 36, "bilinear", mode=mode)  # type: ignore[arg-type]
    side = torch.export.Dim("height", min=8, max=4000), torch.export.Dim("width", min=8, max=4000)
    program = torch.export.export(
        AsModule(p), (photo(50, 70),), dynamic_shapes={"image": {0: side[0], 1: side[1]}}
    )
    for height, width in [(50, 70), (71, 53), (36, 36), (40, 40), (37, 36), (300, 20)]:
        image = photo(height, width)
        torch.testing.assert_close(program.module()(image), p(image), rtol=0, atol=1e-5)


def test_a_result_one_pixel_wide_is_resized_too() -> None:
    """torch fills it with its first row; one pixel high, it is right."""
    p = Preprocessing(32, 32, "bilinear", mode="pad")
    image = photo(900, 30)
    wide = p(image.transpose(0, 1).contiguous())
    torch.testing.assert_close(p(image), wide.transpose(1, 2), rtol=0, atol=1e-5)
    column = p(image)[0, :, 16]
    assert column.std() > 0
