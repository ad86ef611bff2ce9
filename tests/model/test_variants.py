"""Every variant: published sizes, half precision, channels last, compiled and exported."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from plusx.errors import SpecError
from plusx.model import VARIANTS, ResNet, ResNetSpec, variant
from plusx.model.blocks import DropPath
from plusx.model.blur import BlurPool
from plusx.model.self_attention import SelfAttention
from plusx.model.surgery import blocks

PATTERNS = ("resnet14_cifar_c", "wrn10_1", "resnet20_cifar_preact", "resnet164_cifar_preact")


def shrunk(spec: ResNetSpec) -> ResNetSpec:
    """Two stages of one block and a quarter of the width, for images of 32 pixels."""
    narrow = spec.norm == "batch" and spec.base_width >= 64 and min(spec.widths) >= 64
    widths = tuple(width // 4 if narrow else width for width in spec.widths[:2])
    small = {"image_size": 32, "classes": 5, "feature_stages": min(2, spec.feature_stages)}
    return spec.replace(name="", depths=(1, 1), widths=widths, **small)


STRUCTURES = {shrunk(variant(name)): name for name in (*PATTERNS, *VARIANTS)}
"""What the variants come to when shrunk: ResNet-50 and -101 differ in nothing but depth."""
each_structure = pytest.mark.parametrize(
    "spec", STRUCTURES, ids=[STRUCTURES[spec] for spec in STRUCTURES]
)


def image(n: int = 2, size: int = 32) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(3))


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(variant(name)).parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet164_cifar_preact", 1.7),  # He et al. 2016, table 4
        ("resnet1001_cifar_preact", 10.3),  # the same (10.2 in its text)
        ("resnet110_cifar_preact", 1.7),
        ("wrn28_10", 36.5),  # Zagoruyko and Komodakis 2016, table 4
        ("wrn40_4", 8.9),
        ("wrn16_8", 11.0),
        ("botnet50", 20.8),  # Srinivas et al. 2021, table 1
    ],
)
def test_parameters_of_nets_that_no_library_has(name, millions):
    assert parameters(name) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("name", "trainable"),
    [  # keras.applications, model.summary()
        ("resnet50v2_keras", 25_568_360),
        ("resnet101v2_keras", 44_577_896),
        ("resnet152v2_keras", 60_236_904),
    ],
)
def test_parameters_of_keras_nets(name, trainable):
    assert parameters(name) == trainable


@each_structure
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_forward_and_backward(spec, dtype):
    torch.manual_seed(0)
    model = ResNet(spec).to(dtype).train()
    logits = model(image().to(dtype))
    assert logits.dtype == dtype
    logits.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@each_structure
def test_compiled_exported_and_channels_last(spec):
    torch.manual_seed(0)
    model = ResNet(spec).eval()
    with torch.no_grad():
        expected = model(image())
        last = ResNet(spec).eval().to(memory_format=torch.channels_last)
        last.load_state_dict(model.state_dict())
        given = image().contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(last(given), expected, rtol=1e-4, atol=1e-5)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(image()), expected)
        batch = torch.export.Dim("batch", min=1, max=64)
        program = torch.export.export(model, (image(),), dynamic_shapes=({0: batch},))
        torch.testing.assert_close(program.module()(image()[:1]), expected[:1])
    torch.compiler.reset()


def test_compiled_in_training():
    """aot_eager: forward and backward traced, as inductor gets them."""
    torch.manual_seed(0)
    spec = shrunk(variant("botnet50")).replace(
        order="pre", depths=(1,), widths=(16,), drop_path=0.1, dropout=0.1
    )
    model = ResNet(spec).eval()
    expected = model(image())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image()), expected)
    compiled.train()(image()).square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    torch.compiler.reset()


def test_stochastic_depth_leaves_out_images_by_a_rate_that_grows():
    spec = variant("resnet18").replace(drop_path=0.4)
    rates = [block.drop_path.rate for block in blocks(ResNet(spec))]
    assert rates == pytest.approx([0.4 * number / 8 for number in range(1, 9)])
    torch.manual_seed(0)
    path = DropPath(0.25).train()
    out = path(torch.ones(4000, 2, 3, 3))
    kept = out[:, 0, 0, 0] > 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    assert torch.equal(out[kept], torch.full_like(out[kept], 1 / 0.75))
    assert out[~kept].abs().sum() == 0
    x = image()
    assert path.eval()(x) is x


@pytest.mark.parametrize("name", ["resnet18", "seresnet50", "resnetv2_50", "wrn10_1"])
def test_a_branch_that_starts_as_zero_leaves_the_bypass(name):
    spec = shrunk(variant(name)).replace(zero_init_last=True, depths=(2, 2))
    model = ResNet(spec).eval()
    second = model.stages[0][1]
    x = torch.rand(1, spec.stage_channels[0], 8, 8)
    assert torch.equal(second(x), x)


@pytest.mark.parametrize("order", ["post", "pre"])
def test_dropout_stands_before_the_last_convolution(order):
    spec = variant("wrn10_1").replace(order=order, dropout=0.5)
    residual = blocks(ResNet(spec))[0].residual
    order_of_parts = [name for name, _ in residual.named_children()]
    assert order_of_parts.index("dropout") < order_of_parts.index("conv2")
    assert residual.dropout.p == 0.5


def test_self_attention_by_the_formula():
    """Equation of figure 4, pixel by pixel: softmax(q.k + q.r) v with q scaled by d^-1/2."""
    torch.manual_seed(0)
    module = SelfAttention(8, 3, 1)
    nn.init.normal_(module.height)
    nn.init.normal_(module.width)
    x = torch.randn(1, 8, 3, 3)
    q, k, v = module.qkv(x)[0].reshape(3, 4, 2, 3, 3)
    out = module(x)[0].reshape(4, 2, 3, 3)
    for head, row, column in [(0, 0, 0), (3, 2, 1), (1, 1, 2)]:
        query = q[head, :, row, column] / math.sqrt(2)
        logits, values = [], []
        for u in range(3):
            for w in range(3):
                relative = module.height[u - row + 2] + module.width[w - column + 2]
                logits.append(query @ (k[head, :, u, w] + relative))
                values.append(v[head, :, u, w])
        expected = torch.stack(logits).softmax(0) @ torch.stack(values)
        torch.testing.assert_close(out[head, :, row, column], expected)


@pytest.mark.parametrize("size", [32, 48, 97])
def test_self_attention_takes_images_of_any_size(size):
    model = ResNet(shrunk(variant("botnet50")).replace(image_size=64)).eval()
    assert model.stages[1][0].residual.conv2.height.shape[0] == 2 * 16 - 1
    assert model(image(size=size)).shape == (2, 5)


def test_stretched_positions_keep_their_ends():
    module = SelfAttention(8, 4, 1)
    nn.init.normal_(module.height)
    from plusx.model.self_attention import _relative

    wide = _relative(module.height, 6)
    torch.testing.assert_close(wide[0, 5], module.height[-1])
    torch.testing.assert_close(wide[5, 0], module.height[0])
    torch.testing.assert_close(wide[2, 2], module.height[3])  # nothing moved: the middle


def test_a_blur_keeps_what_is_even():
    flat = torch.full((1, 4, 7, 6), 3.0)
    out = BlurPool(4)(flat)
    assert out.shape == (1, 4, 4, 3)
    torch.testing.assert_close(out, torch.full_like(out, 3.0))


@pytest.mark.parametrize(("size", "said"), [(2, "the stem's blur"), (8, "stage 2, block 0")])
def test_images_too_small_to_blur_are_refused_when_built(size, said):
    with pytest.raises(SpecError, match=said):
        ResNet(variant("resnetblur50").replace(image_size=size))


def test_where_keras_v2_strides():
    with torch.device("meta"):
        maps = ResNet(variant("resnet50v2_keras")).pyramid(torch.zeros(1, 3, 224, 224))
    assert [m.shape[-1] for m in maps.values()] == [28, 14, 7, 7]


def test_inner_widths():
    assert variant("resnext101_32x8d").inner_width(0) == 256
    assert variant("wide_resnet50_2").inner_width(3) == 1024
