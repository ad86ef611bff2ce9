from __future__ import annotations

import numpy as np
import pytest
import torch

from plusx.data import Preprocessing
from plusx.errors import UsageError
from plusx.explain import deletion_curves, grad_cam, on_image, overlay, sharpest_stage, smaller
from plusx.model import ResNet, ResNetSpec, variant
from plusx.weights import build
from plusx.weights.timm_spec import timm_spec

SPEC = ResNetSpec("small", "basic", (1, 1, 1), (8, 16, 32), stem="3x3", stem_width=8,
                  stem_stride=1, stem_pool="none", classes=3, image_size=32)  # fmt: skip


def spots(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with a bright spot in one of nine places; its colour is the class."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 32, 32, generator=g) * 0.3
    classes = torch.arange(n) % 3
    places = torch.randint(0, 3, (n, 2), generator=g) * 10 + 2
    for i, (top, left) in enumerate(places.tolist()):
        images[i, classes[i], top : top + 8, left : left + 8] += 3
    return images, classes, places


@pytest.fixture(scope="module")
def trained() -> ResNet:
    torch.manual_seed(0)
    net = ResNet(SPEC)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for step in range(40):
        images, classes, _ = spots(48, seed=step)
        loss = torch.nn.functional.cross_entropy(net(images), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return net.eval().requires_grad_(False)


def test_the_map_is_hot_where_the_class_is(trained: ResNet) -> None:
    images, classes, places = spots(60, seed=100)
    assert (trained(images).argmax(1) == classes).float().mean() > 0.95
    heat = grad_cam(trained, images, classes)
    assert heat.shape == (60, 32, 32)
    assert heat.min() >= 0
    assert heat.max() <= 1 + 1e-6
    hottest = heat.flatten(1).argmax(1)
    rows, columns = hottest // 32, hottest % 32
    inside = ((rows - places[:, 0] - 4).abs() <= 6) & ((columns - places[:, 1] - 4).abs() <= 6)
    assert inside.float().mean() > 0.9


def test_random_weights_give_another_map(trained: ResNet) -> None:
    """The sanity check of Adebayo et al. 2018 (arXiv 1810.03292): a map that ignores the weights
    explains nothing."""
    images, classes, _ = spots(30, seed=7)
    heat = grad_cam(trained, images, classes)
    torch.manual_seed(5)
    other = grad_cam(ResNet(SPEC).eval(), images, classes)
    alike = [np.corrcoef(a.flatten(), b.flatten())[0, 1] for a, b in zip(heat, other, strict=True)
             if a.std() > 0 and b.std() > 0]  # fmt: skip
    assert np.mean(alike) < 0.4


def test_blurring_what_is_hot_hurts_most(trained: ResNet) -> None:
    images, classes, _ = spots(60, seed=9)
    g = torch.Generator().manual_seed(0)
    hot = deletion_curves(trained, images, classes, grad_cam(trained, images, classes), patch=4)
    random = deletion_curves(trained, images, classes, torch.rand(60, 32, 32, generator=g), patch=4)
    assert hot.shape == (60, 65)
    assert torch.equal(hot[:, 0], random[:, 0])
    assert torch.allclose(hot[:, -1], random[:, -1], atol=1e-5)
    assert (hot.mean(1) < random.mean(1)).float().mean() > 0.85


def test_the_model_is_left_as_it_was(trained: ResNet) -> None:
    images, classes, _ = spots(2)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained.train()
    grad_cam(trained, images, classes)
    assert trained.training
    trained.eval()
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in trained.parameters())


def test_the_stage_suits_the_image() -> None:
    net = ResNet(variant("resnet18").replace(widths=(8, 8, 8, 8), stem_width=8))
    assert sharpest_stage(net, 224) == 3
    assert sharpest_stage(net, 64) == 1
    assert sharpest_stage(net, 8) == 0


def test_misuse_is_refused(trained: ResNet) -> None:
    images, classes, _ = spots(2)
    with pytest.raises(UsageError, match="do not fit"):
        grad_cam(trained, images, classes[:1])
    with pytest.raises(UsageError, match=r"must lie in 0\.\.2"):
        grad_cam(trained, images, classes + 3)
    with pytest.raises(UsageError, match="stage 3"):
        grad_cam(trained, images, classes, stage=3)
    with pytest.raises(UsageError, match="patch 5 does not divide"):
        deletion_curves(trained, images, classes, torch.rand(2, 32, 32), patch=5)


@pytest.mark.parametrize("hw", [(100, 200), (200, 100), (64, 64), (10, 900)])
def test_the_box_on_the_photograph_is_what_the_network_saw(hw: tuple[int, int]) -> None:
    """A bright line just inside the box shows in the crop; one just outside does not."""
    preprocessing = Preprocessing(32, 40, mean=(0.0,) * 3, std=(1.0,) * 3)
    top, left, height, width = preprocessing.crop_box(hw)
    assert 0 <= top < top + height <= hw[0]
    assert 0 <= left < left + width <= hw[1]
    assert abs(height - width) <= 2
    image = torch.zeros(*hw, 3, dtype=torch.uint8)
    slack = 2 * max(1, -(-min(hw) // 40))
    image[: max(0, top - slack)] = 255
    image[top + height + slack :] = 255
    image[:, : max(0, left - slack)] = 255
    image[:, left + width + slack :] = 255
    assert preprocessing(image).max() < 0.02
    image[top + height // 2, left + 1 : left + 1 + slack] = 255
    assert preprocessing(image)[:, :, :3].max() > 0.02


def test_an_overlay_keeps_the_photograph_where_nothing_speaks() -> None:
    preprocessing = Preprocessing(32, 32)
    photograph = np.full((60, 90, 3), 200, np.uint8)
    heat = torch.zeros(32, 32)
    heat[:16] = 1
    whole = on_image(heat, (60, 90), preprocessing)
    painted = overlay(photograph, whole.numpy())
    assert painted.shape == photograph.shape
    assert painted.dtype == np.uint8
    assert (painted[50, 45] == 200).all()  # seen, cold
    assert not (painted[5, 45] == 200).all()  # seen, hot
    assert torch.isnan(whole[:, :10]).all()  # cut off by the crop
    assert len(set(painted[30, 2].tolist())) == 1
    grey = overlay(photograph[:, :, :1], whole.numpy())
    assert (grey == painted).all()


def test_a_network_of_one_block_has_no_maps_to_read():
    pytest.importorskip("timm", reason="extra 'timm' absent")
    net = build(timm_spec("timm:test_resnet.r160_in1k"))
    with pytest.raises(UsageError, match="its maps have one pixel"):
        sharpest_stage(net, 64)


@pytest.mark.parametrize("hw", [(60, 90), (90, 60), (31, 32), (20, 100)])
def test_a_map_of_a_padded_image_covers_all_of_it_in_its_place(hw: tuple[int, int]) -> None:
    preprocessing = Preprocessing(32, 32, mode="pad")
    image = torch.zeros(*hw, 3, dtype=torch.uint8)
    top, left = hw[0] // 2, hw[1] // 2
    image[:top, :left] = 255  # a quarter, as the network sees it, is where the map is hot
    heat = (preprocessing(image)[0] > 1).float()
    whole = on_image(heat, hw, preprocessing)
    assert whole.shape == hw
    assert not whole.isnan().any()
    assert ((whole > 0.5) == (image[:, :, 0] > 0)).float().mean() > 0.9


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_picture_keeps_its_map_in_place(channels: int) -> None:
    image = np.zeros((200, 400, channels), np.uint8)
    heat = np.full((200, 400), np.nan, np.float32)
    image[100:150, 200:300] = 255
    heat[:, 100:300] = 0.0
    heat[100:150, 200:300] = 1.0
    picture, small = smaller(image, heat, 50)
    assert picture.shape == (50, 100, channels)
    assert small.shape == (50, 100)
    assert np.isnan(small[:, :25]).all()
    assert (small[25:37, 50:75] == 1).all()
    assert picture[27:35, 52:73].min() > 250
    same, _ = smaller(image, heat, 1000)
    assert same.shape == image.shape
