"""Shapes, multiply-adds and receptive fields, against measurement and published values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from plusx.model import ResNet, ResNetSpec, cifar, variant
from plusx.model.describe import describe_network
from plusx.model.reach import Reach, Tracer


def build(spec: ResNetSpec) -> ResNet:
    with torch.device("meta"):
        return ResNet(spec)


TINY = ResNetSpec("tiny", "bottleneck", (2, 1), (4, 8), stem_width=4, classes=5, image_size=64)
MEASURED = [
    TINY,
    TINY.replace(name="v1", bottleneck_stride="1x1"),
    TINY.replace(name="ceil", stem_pool="max-ceil"),
    TINY.replace(name="c", shortcut="conv-all"),
    TINY.replace(name="plain", shortcut="none"),
    ResNetSpec("basic", "basic", (1, 2, 1), (4, 8, 8), stem_width=4, image_size=64),
    cifar(14, "a"),
    cifar(8, "b"),
]


def positive(model: nn.Module) -> nn.Module:
    """Every unit answers to every pixel it can see: weights above zero, averages for maxima."""
    model = copy.deepcopy(model).double().eval()
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding,
                                    ceil_mode=child.ceil_mode)  # fmt: skip
                setattr(module, name, pool)
    return model


@pytest.mark.parametrize("spec", MEASURED, ids=lambda spec: spec.name)
def test_receptive_field_is_where_the_gradient_reaches(spec):
    found = describe_network(build(spec))
    model = positive(ResNet(spec))
    for level, row in enumerate(row for row in found.rows if row.name.startswith("stage")):
        size = 2 * row.receptive_field + 8 * row.stride
        image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        maps = model.pyramid(image)[f"C{level + 2}"]
        middle = maps.shape[2] // 2
        maps[0, 0, middle, middle].backward()
        seen = image.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        assert len(seen) == int(seen[-1] - seen[0]) + 1 or spec.bottleneck_stride == "1x1"
        assert int(seen[-1] - seen[0]) + 1 == row.receptive_field, row.name
        other = torch.ones_like(image, requires_grad=True)
        model.pyramid(other)[f"C{level + 2}"][0, 0, middle + 1, middle].backward()
        moved = other.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
        assert int(moved[0] - seen[0]) == row.stride


@pytest.mark.parametrize(
    ("name", "pixels"), [("resnet50_v1", 483), ("resnet101_v1", 1027), ("resnet152_v1", 1507)]
)
def test_receptive_fields_of_the_literature(name, pixels):
    """Araujo et al. 2019, https://distill.pub/2019/computing-receptive-fields, table 1."""
    stages = [row for row in describe_network(build(variant(name))).rows if "stage" in row.name]
    assert stages[-1].receptive_field == pixels
    assert stages[-1].stride == 32


@pytest.mark.parametrize(
    ("name", "giga"),
    [("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089), ("resnet101", 7.801),
     ("resnet152", 11.514)],
)  # fmt: skip
def test_multiply_adds_are_torchvisions(name, giga):
    """``_ops`` of torchvision's weights, in units of 1e9."""
    assert describe_network(build(variant(name))).macs / 1e9 == pytest.approx(giga, abs=5e-4)


def test_rows_are_what_a_forward_gives():
    spec = variant("resnet18").replace(classes=7, in_channels=1, image_size=96)
    model = ResNet(spec).eval()
    found = describe_network(model)
    with torch.inference_mode():
        maps = model.pyramid(torch.zeros(1, 1, 96, 96))
    shapes = [tuple(one.shape[1:]) for one in maps.values()]
    assert [row.shape for row in found.rows if "stage" in row.name] == shapes
    assert [row.name for row in found.rows] == [
        "stem",
        *(f"stage {i}" for i in range(1, 5)),
        "head",
    ]
    assert found.params == sum(p.numel() for p in model.parameters())
    assert [len(row.blocks) for row in found.rows] == [1, 2, 2, 2, 2, 1]
    assert found.rows[-1].shape == (7,)
    assert found.image == (1, 96, 96)
    assert next(model.parameters()).device.type == "cpu"  # the model given stays as it was
    assert describe_network(model, image_size=64).rows[-2].shape == (512, 2, 2)


def test_groups_are_counted_exactly():
    class Line(nn.Sequential):
        pass

    conv = nn.Conv2d(8, 16, 3, padding=1, groups=4, bias=False)
    model = build(TINY)
    model.stem = Line(nn.Conv2d(3, 8, 1, bias=False), conv, nn.Conv2d(16, 4, 1, bias=False))
    model.to("meta")
    row = describe_network(model).rows[0]
    assert row.macs == 64 * 64 * (3 * 8 + 8 // 4 * 16 * 9 + 16 * 4)
    assert "3x3 16, 4 groups" in row.blocks[0].layers


def test_blocks_say_what_is_added():
    bypass = {
        kind: [
            block.bypass
            for block in describe_network(build(cifar(14, kind))).rows[2].blocks
        ]
        for kind in "abc"
    }  # fmt: skip
    assert bypass["a"] == ["zero pad of x", "x"]
    assert bypass["b"] == ["1x1 32 /2 of x", "x"]
    assert bypass["c"] == ["1x1 32 /2 of x", "1x1 32 of x"]
    plain = describe_network(build(cifar(14).plain_twin())).rows[2].blocks
    assert [block.bypass for block in plain] == ["", ""]
    assert plain[0].layers == ("3x3 32 /2", "3x3 32")


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


class Attention(nn.Module):
    def forward(self, x):
        n, c, h, w = x.shape
        flat = x.reshape(n, 1, c, h * w).transpose(2, 3)
        out = functional.scaled_dot_product_attention(flat, flat, flat)
        return out.transpose(2, 3).reshape(n, c, h, w)


class Blur(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.ones(4, 1, 3, 3) / 9)

    def forward(self, x):
        x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(x, self.kernel, stride=2, groups=4)


@pytest.mark.parametrize(
    ("module", "reach"),
    [
        (Gate(), Reach(1, 0, 0, whole=True)),
        (Attention(), Reach(1, 0, 0, whole=True)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)),
         Reach(1, -1, 1, whole=True)),
        (Blur(), Reach(2, -1, 1)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, dilation=2), nn.AvgPool2d(2)),
         Reach(4, 0, 6)),
        (nn.Sequential(nn.ZeroPad2d(3), nn.Conv2d(4, 4, 7)), Reach(1, -3, 3)),
    ],
    ids=["gate", "attention", "pool", "blur", "dilation", "padding"],
)  # fmt: skip
def test_what_a_module_looks_at(module, reach):
    x = torch.empty(1, 4, 16, 16, device="meta")
    with torch.no_grad(), Tracer() as tracer:
        tracer.start(x)
        assert tracer.reach(module.to("meta").eval()(x)) == reach
