from __future__ import annotations

import pytest
import torch

from plusx.errors import WeightsMismatch
from plusx.model import ResNet, variant
from plusx.weights.families import tongue_of
from plusx.weights.load import adapt_channels, disk_state, load_weights
from plusx.weights.names import disk_name
from plusx.weights.recognise import looks_like


def fresh(model: ResNet, **changes) -> ResNet:
    return ResNet(model.spec.replace(**changes))


def equal(one: ResNet, other: ResNet) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.model."])
@pytest.mark.parametrize("tongue", ["disk", "internal", "cifar"])
def test_every_tongue_in_every_wrapper(small, prefix, tongue):
    state = small.state_dict() if tongue == "internal" else disk_state(small)
    if tongue == "cifar":
        state = {k.replace("fc.", "linear.").replace("downsample", "shortcut"): v
                 for k, v in state.items()}  # fmt: skip
    model = fresh(small)
    state = {prefix + key: value for key, value in state.items()}
    assert load_weights(model, state, origin="x") == ()
    assert equal(model, small)


def test_the_counter_of_batches_is_optional(small):
    state = {k: v for k, v in disk_state(small).items() if "num_batches" not in k}
    model = fresh(small)
    assert load_weights(model, state, origin="x") == ()
    assert equal(model, small)


def test_another_number_of_classes(small):
    model = fresh(small, classes=2)
    before = model.head.fc.weight.clone()
    notes = load_weights(model, disk_state(small), origin="x")
    assert notes == ("head for 4 classes replaced by a fresh one for 2",)
    assert torch.equal(model.head.fc.weight, before)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval().features(x), small.features(x))


@pytest.mark.parametrize(("channels", "how"), [(1, "summed"), (2, "repeated"), (5, "repeated")])
def test_another_number_of_channels(small, channels, how):
    model = fresh(small, in_channels=channels)
    (note,) = load_weights(model, disk_state(small), origin="x")
    assert note.startswith(f"first convolution for 3 channels {how}")
    assert model(torch.randn(1, channels, 32, 32)).shape == (1, 4)


def test_a_grey_image_gives_what_three_equal_channels_gave(small):
    model = fresh(small, in_channels=1).eval()
    load_weights(model, disk_state(small), origin="x")
    grey = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(model(grey), small(grey.expand(-1, 3, -1, -1)))


def test_six_channels_that_repeat_the_image_give_the_same(small):
    model = fresh(small, in_channels=6).eval()
    load_weights(model, disk_state(small), origin="x")
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(torch.cat([x, x], dim=1)), small(x))


def test_channels_as_timm_adapts_them():
    from timm.models._manipulate import adapt_input_conv

    weight = torch.randn(4, 3, 3, 3)
    for channels in (1, 2, 4, 7):
        torch.testing.assert_close(
            adapt_channels(weight, channels), adapt_input_conv(channels, weight)
        )


def test_without_adapting_a_changed_head_is_refused(small):
    with pytest.raises(WeightsMismatch, match=r"fc.weight \(4, 64\) instead of \(2, 64\)"):
        load_weights(fresh(small, classes=2), disk_state(small), origin="x", adapt=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("bn1.bias"), "1 missing: bn1.bias"),
        (lambda s: s.pop("fc.bias"), "1 missing: fc.bias"),
        (lambda s: s.update({"extra.weight": torch.ones(1)}), "1 unexpected: extra.weight"),
        (
            lambda s: s.update({"layer1.0.conv1.weight": torch.ones(16, 16, 5, 5)}),
            r"1 of another shape: layer1.0.conv1.weight (16, 16, 5, 5) instead of (16, 16, 3, 3)",
        ),
    ],
)
def test_anything_else_is_an_error_that_lists_it(small, change, said):
    state = disk_state(small)
    change(state)
    model = fresh(small)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        load_weights(model, state, origin="file x")
    assert said in str(caught.value)
    assert str(caught.value).startswith("file x does not fit resnet8_cifar_b:")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())  # nor in part


def test_a_missing_head_is_an_error_even_for_other_classes(small):
    state = {k: v for k, v in disk_state(small).items() if not k.startswith("fc.")}
    with pytest.raises(WeightsMismatch, match=r"2 missing: fc.weight, fc.bias"):
        load_weights(fresh(small, classes=2), state, origin="x")


def test_half_a_head_is_an_error_even_for_other_classes(small):
    state = disk_state(small)
    del state["fc.bias"]
    with pytest.raises(WeightsMismatch, match=r"1 missing: fc.bias"):
        load_weights(fresh(small, classes=2), state, origin="x")


def test_long_lists_are_cut_and_counted(small):
    with pytest.raises(WeightsMismatch, match=r"30 missing: .*, \.\.\.") as caught:
        load_weights(ResNet(variant("resnet14_cifar_b")), disk_state(small), origin="x")
    assert str(caught.value).count("num_batches") == 0
    assert "these look like resnet8_cifar_b weights" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("resnet18", ("resnet18",)),
        # cannot be told apart: where it strides, and by what, has no parameters
        ("resnet50", ("resnet50", "resnetblur50", "resnet50_v1")),
        ("resnet50c", ("resnet50c",)),
        ("resnet50d", ("resnet50d",)),
        ("resnet50_gn", ("resnet50_gn",)),
        ("seresnext50_32x4d", ("seresnext50_32x4d",)),
        ("wide_resnet50_2", ("wide_resnet50_2",)),
        ("resnetv2_50", ("resnetv2_50",)),
        ("resnet50v2_keras", ("resnet50v2_keras",)),
        ("botnet50", ("botnet50",)),
        ("resnet20_cifar_a", ("resnet20_cifar_a", "plain_resnet20_cifar_a")),
        ("resnet20_cifar_b", ("resnet20_cifar_b",)),
        ("resnet20_cifar_c", ("resnet20_cifar_c",)),
        ("resnet20_cifar_preact", ("resnet20_cifar_preact", "plain_resnet20_cifar_preact")),
        ("resnet164_cifar_preact", ("resnet164_cifar_preact",)),
        ("wrn16_4", ("wrn16_4",)),
        ("plain_resnet34", ("plain_resnet34",)),
        ("plain_resnetv2_50", ("plain_resnetv2_50",)),
    ],
)
def test_weights_are_recognised_by_their_shapes(name, like):
    with torch.device("meta"):
        model = ResNet(variant(name).replace(classes=3, in_channels=4))
    tongue = tongue_of(model.spec)
    state = {f"module.{disk_name(k, tongue)}": v for k, v in model.state_dict().items()}
    assert looks_like(state) == like
    assert set(like) <= set(looks_like(model.state_dict()))


def test_nothing_is_said_of_shapes_nobody_knows():
    with torch.device("meta"):
        state = ResNet(variant("resnet18").replace(widths=(8, 16, 32, 64))).state_dict()
    assert looks_like(state) == ()
    assert looks_like({"x": torch.ones(1)}) == ()
    assert looks_like({"fc.bias": torch.ones(1), "linear.bias": torch.ones(1)}) == ()


@pytest.mark.parametrize(
    ("given", "wanted", "said"),
    [
        # same parts under other names: averaged shortcuts, or not
        ("resnet50d", "resnet50c", r"unexpected: layer1.0.downsample.2.weight"),
        ("resnet50c", "resnet50d", r"missing: layer1.0.downsample.2.weight"),
        ("resnetv2_50", "resnet50", r"missing: conv1.weight|missing: bn1.weight"),
        ("resnet50", "resnetv2_50", r"missing: stem.conv.weight|missing: .*preact"),
        ("seresnet50", "resnet50", r"unexpected: layer1.0.se.fc1.weight"),
        ("resnext50_32x4d", "wide_resnet50_2", r"of another shape: layer1.0.conv2.weight"),
        ("resnet50_gn", "resnet50", r"missing: bn1.running_mean"),
    ],
)
def test_weights_of_another_variant_are_refused_by_name(given, wanted, said):
    with torch.device("meta"):
        state = ResNet(variant(given)).state_dict()
        model = ResNet(variant(wanted))
    tongue = tongue_of(variant(given))
    with pytest.raises(WeightsMismatch, match=said) as caught:
        load_weights(model, {disk_name(k, tongue): v for k, v in state.items()}, origin="x")
    assert f"these look like {given}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet50d", "resnetv2_50", "wrn10_1", "botnet50"])
@pytest.mark.parametrize("tongue", ["disk", "internal"])
def test_another_head_and_other_channels_for_every_tongue(name, tongue):
    spec = variant(name)
    spec = spec.replace(depths=(1,) * spec.stages, classes=4)
    model = ResNet(spec)
    state = model.state_dict() if tongue == "internal" else disk_state(model)
    other = ResNet(spec.replace(classes=2, in_channels=1))
    notes = load_weights(other, state, origin="x")
    assert len(notes) == 2
    assert load_weights(ResNet(spec), state, origin="x") == ()


def test_the_head_of_a_pre_activation_net_is_a_convolution_on_disk():
    model = ResNet(variant("wrn10_1"))
    assert disk_state(model)["head.fc.weight"].shape == (10, 64, 1, 1)
    again = ResNet(model.spec)
    load_weights(again, disk_state(model), origin="x")
    assert equal(again, model)
