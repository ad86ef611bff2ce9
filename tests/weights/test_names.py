from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.errors import WeightsMismatch
from plusx.model import VARIANTS, ResNet, variant
from plusx.weights.names import (
    PREFIXES,
    disk_name,
    internal_name,
    strip_prefixes,
    to_internal,
    tongue_for,
)

NETS = ("resnet20_cifar_c", "plain_resnet34", "wrn10_1", "resnet164_cifar_preact")


@pytest.mark.parametrize("name", [*VARIANTS, *NETS])
def test_every_name_goes_to_disk_and_back(name):
    spec = variant(name)
    with torch.device("meta"):
        names = list(ResNet(spec).state_dict())
    tongue = tongue_for(spec.order, spec.stem, spec.shortcut)
    on_disk = [disk_name(n, tongue) for n in names]
    assert len(set(on_disk)) == len(names)
    assert [internal_name(n, tongue) for n in on_disk] == names
    assert [internal_name(n, tongue) for n in names] == names  # plusx's own names are read too
    assert to_internal(on_disk) == dict(zip(on_disk, names, strict=True))  # without being told


@pytest.mark.parametrize("stem", ["7x7", "3x3", "deep"])
@pytest.mark.parametrize("shortcut", ["conv", "avg-conv", "none"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_every_spec_has_a_tongue(order, stem, shortcut):
    tongue = tongue_for(order, stem, shortcut)
    spec = variant("resnet18").replace(
        order=order, stem=stem, shortcut=shortcut, channel_attention="se"
    )
    with torch.device("meta"):
        names = list(ResNet(spec).state_dict())
    assert len({disk_name(name, tongue) for name in names}) == len(names)


def test_the_names_on_disk_are_torchvisions():
    ours = {disk_name(n) for n in ResNet(variant("resnet50")).state_dict()}
    assert ours == set(torchvision.models.resnet50().state_dict())


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("conv1.weight", "stem.conv.weight"),
        ("layer4.2.downsample.1.running_var", "stages.3.2.shortcut.norm.running_var"),
        ("layer2.10.bn3.num_batches_tracked", "stages.1.10.residual.norm3.num_batches_tracked"),
        ("layer2.0.shortcut.0.weight", "stages.1.0.shortcut.conv.weight"),
        ("linear.bias", "head.fc.bias"),
        ("layer1.0.se.fc1.weight", "stages.0.0.residual.attention.fc1.weight"),
        ("layer4.0.conv2.qkv.weight", "stages.3.0.residual.conv2.qkv.weight"),
        ("layer1.0.conv1", None),
        ("xlayer1.0.conv1.weight", None),
        ("features.0.weight", None),
        ("weight", None),
    ],
)
def test_single_names(key, name):
    assert internal_name(key) == name


@pytest.mark.parametrize(
    ("key", "tongue", "name"),
    [
        ("layer1.0.downsample.1.weight", "post", "stages.0.0.shortcut.norm.weight"),
        ("layer1.0.downsample.1.weight", "post-averaged", "stages.0.0.shortcut.conv.weight"),
        ("conv1.0.weight", "post-deep", "stem.start.conv1.weight"),
        ("conv1.6.weight", "post-deep", "stem.conv.weight"),
        ("conv1.weight", "post-deep", None),
        ("stages.2.blocks.10.norm1.weight", "pre", "stages.2.10.preact.norm.weight"),
        ("stages.2.blocks.10.norm3.bias", "pre", "stages.2.10.residual.norm2.bias"),
        ("norm.weight", "pre", "norm.norm.weight"),
        ("norm.norm.weight", "pre", "norm.norm.weight"),
    ],
)
def test_the_tongue_decides(key, tongue, name):
    assert internal_name(key, tongue) == name


def test_disk_name_refuses_what_is_no_internal_name():
    with pytest.raises(KeyError, match="layer1"):
        disk_name("layer1.0.conv1.weight")


KEYS = ["conv1.weight", "layer1.0.bn1.bias", "fc.weight"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PREFIXES), max_size=5))
def test_any_pile_of_prefixes_is_taken_off(pile):
    wrapped = {"".join(pile) + key: key for key in KEYS}
    assert strip_prefixes(wrapped) == wrapped
    assert to_internal(wrapped) == {k: internal_name(v) for k, v in wrapped.items()}


def test_a_prefix_that_not_all_share_stays():
    keys = ["module.conv1.weight", "fc.weight"]
    assert strip_prefixes(keys) == {key: key for key in keys}


def test_two_keys_for_one_parameter_are_refused():
    with pytest.raises(WeightsMismatch, match=r"'fc.bias' and 'linear.bias' both name"):
        to_internal(["fc.bias", "linear.bias"])


def test_nothing_in_nothing_out():
    assert to_internal([]) == {}
