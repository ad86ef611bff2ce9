"""Strong augmentation: torchvision's operations, drawn from each view's own generator."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torchvision.transforms import v2

from plusx.data import Augmentation, Preprocessing, StrongAugmentation, view_rng
from plusx.data.policies import _IMAGENET, Policy, apply
from plusx.errors import UsageError

SEEN = Preprocessing.for_size(32)
PLAIN = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0.0)


def picture(channels: int = 3, seed: int = 0) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (40, 48, channels), dtype=torch.uint8, generator=made)


TORCHVISION = {
    "identity": "Identity", "shear-x": "ShearX", "shear-y": "ShearY", "rotate": "Rotate",
    "translate-x-pixels": "TranslateX", "translate-y-pixels": "TranslateY",
    "brightness": "Brightness", "colour": "Color", "contrast": "Contrast",
    "sharpness": "Sharpness", "autocontrast": "AutoContrast", "equalize": "Equalize",
}  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("strength", [-0.4, 0.7])
def test_operations_are_those_of_torchvision(name: str, strength: float) -> None:
    image = picture().permute(2, 0, 1)
    strength = strength * 10 if name == "rotate" or "pixels" in name else strength
    theirs = v2.RandAugment()._apply_image_or_video_transform(
        image, TORCHVISION[name], strength, "nearest", {torch.Tensor: [128.0] * 3}
    )
    ours = apply(image / 255, name, strength, fill=[128 / 255] * 3)
    assert float((ours * 255 - theirs.float()).abs().mean()) < 1.0  # they work on bytes
    assert float((ours * 255 - theirs.float()).abs().max()) <= 2.0


def test_posterize_solarize_and_invert_count_grey_levels() -> None:
    image = picture().permute(2, 0, 1)
    ours = (apply(image / 255, "posterize", 4.0, fill=[0.0] * 3) * 255).round().byte()
    assert torch.equal(ours, image & 0b11110000)
    turned = apply(image / 255, "solarize", 0.5, fill=[0.0] * 3)
    expected = torch.where(image / 255 >= 0.5, 1 - image / 255, image / 255)
    torch.testing.assert_close(turned, expected)
    torch.testing.assert_close(apply(image / 255, "invert", 0.0, fill=[0.0] * 3), 1 - image / 255)


def test_autoaugment_has_torchvision_s_pairs() -> None:
    names = {"colour": "Color"} | {
        name: "".join(part.capitalize() for part in name.split("-"))
        for name in ("posterize", "rotate", "solarize", "equalize", "contrast", "sharpness",
                     "shear-x", "invert")
    } | {"autocontrast": "AutoContrast"}  # fmt: skip
    theirs = v2.AutoAugment()._policies
    for ours, pair in zip(_IMAGENET, theirs, strict=True):
        for text, (name, chance, level) in zip(ours, pair, strict=True):
            mine, probability, strength = text.split()
            assert names[mine] == name
            assert float(probability) == chance
            assert int(strength) == (level or 0)


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment", "autoaugment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_a_function_of_its_generator_alone(name: str, channels: int) -> None:
    seen = Preprocessing.for_size(32, channels)
    augment = StrongAugmentation(PLAIN, policy=Policy(name), erase=0.5)  # type: ignore[arg-type]
    before = torch.get_rng_state()

    def view(index: int) -> torch.Tensor:
        return augment(picture(channels), seen, rng=view_rng(3, 1, index))

    one = [view(i) for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        other = list(pool.map(view, reversed(range(16))))[::-1]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before)  # threads share nothing
    assert len({tuple(x.flatten()[:50].tolist()) for x in one}) > 8
    assert all(x.shape == (channels, 32, 32) and bool(x.isfinite().all()) for x in one)
    assert not torch.equal(
        view(1), augment(picture(channels), seen, rng=view_rng(3, 1, 1, 1))
    )  # repeated


def test_no_policy_is_the_light_view() -> None:
    light = Augmentation.light(100)
    strong = StrongAugmentation(light, policy=Policy("none"))
    for index in range(4):
        a = light(picture(), SEEN, rng=view_rng(0, 1, index))
        b = strong(picture(), SEEN, rng=view_rng(0, 1, index))
        torch.testing.assert_close(a, b)


def test_padding_moves_by_at_most_its_pixels_and_shows_the_mean() -> None:
    augment = StrongAugmentation(PLAIN, pad=4)
    image = picture()
    whole = SEEN(image)
    wide = torch.nn.functional.pad(whole, (4, 4, 4, 4))
    parts = wide.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).reshape(81, 3, 32, 32)
    places = set()
    for index in range(200):
        view = augment(image, SEEN, rng=view_rng(0, 1, index))
        near = (parts - view).abs().flatten(1).amax(1)
        assert float(near.min()) < 1e-5
        places.add(int(near.argmin()))
    assert len(places) > 60


def test_erasing_hits_as_often_and_as_much_as_it_says() -> None:
    augment = StrongAugmentation(PLAIN, erase=0.25)
    views = [augment(picture(), SEEN, rng=view_rng(0, 1, i)) for i in range(200)]
    shares = torch.stack([(v == 0).all(0).float().mean() for v in views])
    hit = shares[shares > 0.005]
    assert 30 < len(hit) < 72
    assert float(hit.min()) > 0.01
    assert float(hit.max()) < 0.37


def test_what_cannot_be_is_said() -> None:
    bands = Preprocessing.for_size(32, 5)
    with pytest.raises(UsageError, match=r"--policy randaugment .* have 5"):
        StrongAugmentation(PLAIN, policy=Policy("randaugment"))(
            picture(5), bands, rng=view_rng(0, 1, 0)
        )
    for wrong in ({"magnitude": 11.0}, {"spread": -1.0}, {"operations": 0}):
        with pytest.raises(UsageError, match="--"):
            Policy("randaugment", **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--policy 'augmix'"):
        Policy("augmix")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--erase"):
        StrongAugmentation(PLAIN, erase=1.5)
    with pytest.raises(UsageError, match="--pad"):
        StrongAugmentation(PLAIN, pad=-1)


def test_a_smaller_size_crops_the_same_share() -> None:
    assert Preprocessing.for_size(224).at_size(160).resize == round(256 * 160 / 224)
    assert SEEN.at_size(32) is SEEN
