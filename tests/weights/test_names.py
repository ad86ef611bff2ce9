from __future__ import annotations

import pytest
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from plusx.errors import WeightsMismatch
from plusx.model import ResNet, variant
from plusx.weights.names import PREFIXES, disk_name, internal_name, strip_prefixes, to_internal


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20_cifar_c", "plain_resnet34"])
def test_every_name_goes_to_disk_and_back(name):
    names = list(ResNet(variant(name)).state_dict())
    on_disk = [disk_name(n) for n in names]
    assert len(set(on_disk)) == len(names)
    assert [internal_name(n) for n in on_disk] == names
    assert [internal_name(n) for n in names] == names  # plusx's own names are read as well


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
        ("layer1.0.conv1", None),
        ("xlayer1.0.conv1.weight", None),
        ("features.0.weight", None),
        ("weight", None),
    ],
)
def test_single_names(key, name):
    assert internal_name(key) == name


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
