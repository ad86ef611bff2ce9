from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.errors import SpecError, UsageError
from plusx.model import VARIANTS, ResNetSpec, cifar, variant
from plusx.model.spec import BlockKind, PoolKind, ShortcutKind, StemKind, StrideSite

small = st.integers(1, 9)


@st.composite
def specs(draw) -> ResNetSpec:
    stages = draw(st.integers(1, 5))
    numbers = st.lists(small, min_size=stages, max_size=stages)
    return ResNetSpec(
        name=draw(st.text(max_size=12)),
        block=draw(st.sampled_from(get_args(BlockKind))),
        depths=tuple(draw(numbers)),
        widths=tuple(draw(numbers)),
        stem=draw(st.sampled_from(get_args(StemKind))),
        stem_width=draw(small),
        stem_stride=draw(small),
        stem_pool=draw(st.sampled_from(get_args(PoolKind))),
        shortcut=draw(st.sampled_from(get_args(ShortcutKind))),
        bottleneck_stride=draw(st.sampled_from(get_args(StrideSite))),
        feature_stages=draw(st.integers(1, stages)),
        in_channels=draw(small),
        classes=draw(small),
        image_size=draw(st.integers(1, 500)),
    )


@settings(max_examples=100, deadline=None)
@given(specs())
def test_json_round_trip(spec):
    text = json.dumps(spec.to_dict())
    assert ResNetSpec.from_json(text) == spec
    assert hash(ResNetSpec.from_json(text)) == hash(spec)


def test_defaults_may_be_left_out():
    spec = ResNetSpec.from_dict({"block": "basic", "depths": [1], "widths": [4]})
    assert spec == ResNetSpec("custom", "basic", (1,), (4,))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block": "cube"}, "block='cube' is not one of basic, bottleneck"),
        ({"stem": "5x5"}, "stem='5x5' is not one of 7x7, 3x3"),
        ({"stem_pool": True}, "stem_pool=True is not one of max, max-ceil, none"),
        ({"shortcut": None}, "shortcut=None is not one of conv, conv-all, zero-pad, identity"),
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
