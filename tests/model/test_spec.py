from __future__ import annotations

import pytest

from plusx.errors import SpecError, UsageError
from plusx.model import VARIANTS, ResNetSpec, cifar, cifar_preact, variant, wrn


def test_defaults_may_be_left_out():
    spec = ResNetSpec.from_dict({"block": "basic", "depths": [1], "widths": [4]})
    assert spec == ResNetSpec("custom", "basic", (1,), (4,))


def test_a_spec_of_the_first_release_means_the_same_network():
    written = {  # all fields there were then, as an artifact's config.json holds them
        "name": "resnet50_v1",
        "block": "bottleneck",
        "depths": [3, 4, 6, 3],
        "widths": [64, 128, 256, 512],
        "stem": "7x7",
        "stem_width": 64,
        "stem_stride": 2,
        "stem_pool": "max-ceil",
        "shortcut": "conv",
        "bottleneck_stride": "1x1",
        "feature_stages": 1,
        "in_channels": 3,
        "classes": 1000,
        "image_size": 224,
    }
    assert ResNetSpec.from_dict(written) == variant("resnet50_v1").replace(stem_pool="max-ceil")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": "cube"}, "block='cube' is not one of basic, bottleneck"),
        ({"stem": "5x5"}, "stem='5x5' is not one of 7x7, 3x3, deep"),
        ({"stem_pool": True}, "stem_pool=True is not one of max, max-ceil, max-zero"),
        ({"shortcut": None}, "shortcut=None is not one of conv, conv-all, avg-conv, conv-channels"),
        ({"bottleneck_stride": 1}, "bottleneck_stride=1 is not one of 3x3, 1x1"),
        ({"depths": []}, "depths=[] must be a list of whole numbers"),
        ({"depths": "12"}, "depths='12' must be a list of whole numbers"),
        ({"depths": [1, True]}, "depths=[1, True] must hold whole numbers"),
        ({"depths": [1, -1]}, "depths=[1, -1] must hold whole numbers from 1 to"),
        ({"widths": [4, 8.0]}, "widths=[4, 8.0] must hold whole numbers"),
        ({"widths": [4]}, "depths=[1, 2] and widths=[4] differ in length"),
        ({"classes": 0}, "classes=0 must be a whole number from 1 to"),
        ({"in_channels": "3"}, "in_channels='3' must be a whole number"),
        ({"image_size": None}, "image_size=None must be a whole number"),
        ({"stem_width": 1.5}, "stem_width=1.5 must be a whole number"),
        ({"image_size": 10**9}, "image_size=1000000000 must be a whole number from 1 to"),
        ({"widths": [4, 10**12]}, "widths=[4, 1000000000000] must hold whole numbers from 1 to"),
        ({"depths": [1, 10**5]}, "depths=[1, 100000] are more than 10000 blocks"),
        ({"name": ["x"]}, "name=['x'] must be text"),
        ({"feature_stages": 3}, "feature_stages=3 must lie between 1 and the number of stages, 2"),
        ({"feature_stages": 0}, "feature_stages=0 must lie between 1"),
        ({"order": "both"}, "order='both' is not one of post, pre"),
        ({"norm": 32}, "norm=32 is not one of batch, group"),
        ({"stride_block": "middle"}, "stride_block='middle' is not one of first, last"),
        ({"channel_attention": "se "}, "channel_attention='se ' is not one of none, se"),
        ({"cardinality": 0}, "cardinality=0 must be a whole number from 1 to"),
        ({"base_width": 64.0}, "base_width=64.0 must be a whole number from 1 to"),
        ({"self_attention": -1}, "self_attention=-1 must lie between 0 and the number of stages"),
        ({"self_attention": True}, "self_attention=True must lie between 0 and"),
        ({"drop_path": 1}, "drop_path=1 must be a number from 0 to below 1"),
        ({"drop_path": float("nan")}, "drop_path=nan must be a number from 0 to below 1"),
        ({"dropout": "0.3"}, "dropout='0.3' must be a number from 0 to below 1"),
        ({"norm_eps": 0}, "norm_eps=0 must be a number between 0 and 1"),
        ({"blur": 1}, "blur=1 must be true or false"),
        ({"stem": "deep", "stem_width": 7}, "stem_width=7 must be even for stem='deep'"),
        ({"cardinality": 2}, "cardinality=2 is for bottlenecks, and block='basic' has none"),
        ({"base_width": 128}, "base_width=128 is for bottlenecks"),
        ({"self_attention": 1}, "self_attention=1 is for bottlenecks"),
        ({"block": "bottleneck", "base_width": 4}, "a stage of width 4 0 inner channels"),
        ({"block": "bottleneck", "self_attention": 1, "widths": [4, 6]}, "4 heads, which 6"),
        (
            {"block": "bottleneck", "self_attention": 1, "cardinality": 4},
            "self_attention=1 has no groups, so cardinality must be 1, not 4",
        ),
        ({"norm": "group"}, "norm='group' has 32 groups, which 4 channels cannot be divided into"),
        ({"conv_bias": True}, "conv_bias=True is for order='pre'"),
        ({"shortcut": "none", "drop_path": 0.1}, "drop_path=0.1 needs shortcuts"),
        ({"shortcut": "none", "zero_init_last": True}, "zero_init_last=True needs shortcuts"),
        ({"colour": 1, "size": 2}, "unknown field colour, size; known: bias"),
    ],
)
def test_what_cannot_be_built_is_named_with_its_value(change, said):
    fields = {"block": "basic", "depths": [1, 2], "widths": [4, 8]} | change
    with pytest.raises(SpecError) as caught:
        ResNetSpec.from_dict(fields)
    assert said.partition("; known")[0] in str(caught.value)


@pytest.mark.parametrize("fields", [[], "x", None, 3])
def test_what_is_no_object(fields):
    with pytest.raises(SpecError, match="JSON object"):
        ResNetSpec.from_dict(fields)


def test_missing_fields():
    with pytest.raises(SpecError, match="missing field depths, widths"):
        ResNetSpec.from_dict({"block": "basic"})


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"classes": ' + "9" * 5000 + "}"])
def test_no_json(text):
    with pytest.raises(SpecError, match="not JSON"):
        ResNetSpec.from_json(text)


def test_replace_checks_again():
    with pytest.raises(SpecError, match="classes=-1"):
        variant("resnet18").replace(classes=-1)


def test_every_variant_answers_to_its_name():
    for name, spec in VARIANTS.items():
        assert variant(name) is spec
        assert spec.name == name
        twin = variant(f"plain_{name}")
        assert twin == spec.replace(name=f"plain_{name}", shortcut="none")


def test_names_of_cifar_nets():
    assert variant("resnet20_cifar") == variant("resnet20_cifar_a") == cifar(20)
    assert variant("resnet110_cifar_b") == cifar(110, "b")
    assert variant("plain_resnet56_cifar_a").shortcut == "none"


def test_names_of_the_other_nets_for_small_images():
    assert variant("resnet110_cifar_preact") == cifar_preact(110)
    assert cifar_preact(110).block == "basic"
    assert variant("resnet1001_cifar_preact").depths == (111, 111, 111)
    assert variant("wrn28_10") == wrn(28, 10)
    assert wrn(28, 10).widths == (160, 320, 640)
    assert variant("plain_wrn16_4").shortcut == "none"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet163_cifar_preact", "6n + 2 below 164 .* and 9n + 2 from there on .* not 163$"),
        ("resnet170_cifar_preact", "9n .* not 170$"),
        ("resnet2_cifar_preact", "not 2$"),
        ("wrn27_10", "depth 6n \\+ 4 .* not 27$"),
        ("wrn4_1", "not 4$"),
        ("wrn28_0", "at least 1 times as wide .* not 0$"),
        ("plain_plain_resnet18", "has no shortcuts to leave out again"),
    ],
)
def test_names_that_no_net_has(name, said):
    with pytest.raises(
        UsageError, match=said.replace("6n + 2", r"6n \+ 2").replace("9n + 2", r"9n \+ 2")
    ):
        variant(name)


def test_a_plain_network_has_no_plain_twin():
    with pytest.raises(SpecError, match="plain_resnet18 has no shortcuts"):
        variant("plain_resnet18").plain_twin()


def test_the_twin_of_a_net_that_leaves_branches_out_keeps_them():
    spec = variant("resnet18").replace(drop_path=0.1, zero_init_last=True).plain_twin()
    assert (spec.drop_path, spec.zero_init_last) == (0.0, False)


@pytest.mark.parametrize("depth", [-4, 0, 2, 9, 18, 51])
def test_depths_that_no_cifar_net_has(depth):
    with pytest.raises(UsageError, match=rf"6n \+ 2 .*not {depth}$"):
        cifar(depth)


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"'resnet51' is unknown; did you mean .*resnet50"):
        variant("resnet51")


def test_derived_figures():
    spec = variant("resnet50").replace(feature_stages=2)
    assert (spec.stages, spec.blocks) == (4, 16)
    assert spec.stage_channels == (256, 512, 1024, 2048)
    assert spec.feature_channels == 3072
