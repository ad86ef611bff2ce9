from __future__ import annotations

import pytest
import torch
from torch import nn

from plusx.errors import SpecError
from plusx.model import ResNet, ResNetSpec, cifar, variant
from plusx.model.shortcut import Projection, ZeroPad
from plusx.model.stem import stem_size
from plusx.model.surgery import blocks


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(variant(name)).parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [  # pytorch.org/vision/stable/models.html
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet50_v1", 25_557_032),
    ],
)
def test_parameters_of_the_imagenet_nets(name, published):
    assert parameters(name) == published


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameters_of_the_cifar_nets(depth, millions):
    """He et al. 2015, table 6."""
    assert parameters(f"resnet{depth}_cifar_a") / 1e6 == pytest.approx(millions, abs=0.04)


def test_parameters_of_resnet1202():
    assert parameters("resnet1202_cifar_a") / 1e6 == pytest.approx(19.4, abs=0.05)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20_cifar_a", "resnet20_cifar_c"])
def test_plain_twins(name):
    with torch.device("meta"):
        net, twin = ResNet(variant(name)), ResNet(variant(f"plain_{name}"))
    branch = {k for k in net.state_dict() if ".shortcut." not in k}
    assert set(twin.state_dict()) == branch
    assert all(block.shortcut is None for block in blocks(twin))
    assert parameters(f"plain_{name}") == sum(
        p.numel() for k, p in net.named_parameters() if ".shortcut." not in k
    )


def test_a_plain_block_adds_nothing(randomise):
    block = blocks(randomise(ResNet(variant("plain_resnet8_cifar"))))[0]
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(block(x), block.residual(x).relu())


def test_a_residual_block_adds_its_input(randomise):
    block = blocks(randomise(ResNet(variant("resnet8_cifar"))))[0]
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(block(x.clone()), (x + block.residual(x)).relu())


@pytest.mark.parametrize(
    ("option", "kinds"),
    [
        ("a", [nn.Identity, nn.Identity, ZeroPad, nn.Identity, ZeroPad, nn.Identity]),
        ("b", [nn.Identity, nn.Identity, Projection, nn.Identity, Projection, nn.Identity]),
        ("c", [Projection] * 6),
    ],
)
def test_shortcut_options(option, kinds):
    assert [type(block.shortcut) for block in blocks(ResNet(cifar(14, option)))] == kinds


def test_zero_padding_takes_every_second_pixel_between_zeros():
    x = torch.randn(1, 16, 8, 8)
    out = ZeroPad(16, 32, 2)(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].abs().sum() == out[:, 24:].abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", (64, 128, 256, 512)), ("resnet50_v1", (256, 512, 1024, 2048))],
)
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_pyramid_strides_4_to_32(name, channels, size):
    with torch.device("meta"):
        maps = ResNet(variant(name)).pyramid(torch.zeros(2, 3, *size))
    assert list(maps) == ["C2", "C3", "C4", "C5"]
    for out, width, stride in zip(maps.values(), channels, (4, 8, 16, 32), strict=True):
        assert out.shape == (2, width, *(-(-side // stride) for side in size))


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_features_are_the_pooled_maps_of_the_last_stages(stages):
    spec = variant("resnet18").replace(feature_stages=stages, classes=3)
    model = ResNet(spec).eval()
    x = torch.randn(2, 3, 64, 64)
    pooled = [m.mean(dim=(2, 3)) for m in model.pyramid(x).values()][-stages:]
    assert torch.equal(model.features(x), torch.cat(pooled, dim=1))
    assert model.features(x).shape == (2, spec.feature_channels)
    assert torch.equal(model(x), model.head.fc(model.features(x)))


@pytest.mark.parametrize(("name", "sites"), [("resnet50", [1, 2]), ("resnet50_v1", [2, 1])])
def test_where_a_bottleneck_strides(name, sites):
    with torch.device("meta"):
        residual = ResNet(variant(name)).stages[1][0].residual
    assert [residual.conv1.stride[0], residual.conv2.stride[0]] == sites


@pytest.mark.parametrize("size", [32, 64, 97, 224])
def test_max_ceil_is_caffes_pool(size):
    """Same size as padding gives on even maps, other values at the border."""
    spec = variant("resnet18")
    x = torch.randn(1, 3, size, size)
    model = ResNet(spec.replace(stem_pool="max-ceil", image_size=size)).eval()
    half = -(-size // 2)
    assert model.stem(x).shape[-1] == -(-(half - 3) // 2) + 1
    conv = model.stem.act(model.stem.norm(model.stem.conv(x)))
    assert torch.equal(model.stem(x)[..., 0, 0], conv[..., :3, :3].amax(dim=(2, 3)))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_input_channels(channels):
    model = ResNet(cifar(8).replace(in_channels=channels))
    assert model(torch.randn(2, channels, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("changes", "place", "shapes"),
    [
        # 16 -> 32 channels at half the resolution cannot be added to 16 at full
        ({"shortcut": "identity"}, "stage 1, block 0", ["(32, 16, 16)", "(16, 32, 32)"]),
        # a stem of other width
        (
            {"shortcut": "identity", "stem_width": 8},
            "stage 0, block 0",
            ["(16, 32, 32)", "(8, 32, 32)"],
        ),
        # padding can add channels but not take any away
        (
            {"shortcut": "zero-pad", "widths": (16, 8, 64)},
            "stage 1, block 0",
            ["(8, 16, 16)", "(16, 16, 16)"],
        ),
    ],
)
def test_a_shortcut_that_cannot_be_added_is_refused_when_built(changes, place, shapes):
    with pytest.raises(SpecError) as caught:
        ResNet(cifar(8).replace(**changes))
    text = str(caught.value)
    for part in [place, *shapes, "projection", "shortcut='conv'"]:
        assert part in text


def test_identity_shortcuts_are_legal_where_no_shape_changes():
    spec = ResNetSpec("one", "basic", (3,), (8,), stem="3x3", stem_width=8, shortcut="identity")
    assert ResNet(spec)(torch.randn(1, 3, 32, 32)).shape == (1, 1000)


@pytest.mark.parametrize("image_size", [3, 7, 31, 32, 33, 224])
@pytest.mark.parametrize("pool", ["max", "max-ceil", "none"])
def test_shapes_foreseen_are_the_shapes_that_come(image_size, pool):
    """Whatever is built can run: the check at build time has the arithmetic of the layers."""
    spec = ResNetSpec("x", "basic", (1,), (4,), stem_width=4, stem_pool=pool, image_size=image_size)
    with torch.device("meta"):
        stem = ResNet(spec).stem.eval()
        assert stem(torch.zeros(1, 3, image_size, image_size)).shape[-1] == stem_size(spec)


def test_the_first_weights_are_he_normal():
    torch.manual_seed(0)
    conv = ResNet(variant("resnet18")).stages[2][1].residual.conv2.weight
    assert float(conv.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
