"""The same weights give the same logits here, in torchvision and in timm."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from plusx.data.preprocessing import Preprocessing
from plusx.errors import PlusxError
from plusx.model import ResNet, cifar, variant
from plusx.weights import create_network, load_artifact, save_artifact
from plusx.weights.artifact import describe
from plusx.weights.load import disk_state, load_weights
from plusx.weights.timm_config import TIMM_NAMES

TOLERANCE = 1e-5
SIZE = {"resnet101": 64, "resnet152": 64}  # pixels, instead of 96


def image(size: int = 96, channels: int = 3, n: int = 2) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(one, other, x: torch.Tensor) -> float:
    """The largest difference of the logits, as a part of the largest logit."""
    a, b = one.eval()(x), other.eval()(x)
    assert a.abs().max() > 1e-3  # not equal for being empty
    return float((a - b).abs().max() / b.abs().max())


def names(n: int) -> list[str]:
    return [f"class {i}" for i in range(n)]


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_torchvisions_and_timms(name, randomise):
    peer = randomise(getattr(torchvision.models, name)(num_classes=7))
    ours = ResNet(variant(name).replace(classes=7))
    assert load_weights(ours, peer.state_dict(), origin="torchvision") == ()
    x = image(SIZE.get(name, 96))
    assert difference(ours, peer, x) <= TOLERANCE

    other = timm.create_model(name, num_classes=7)
    other.load_state_dict(disk_state(ours))  # and the names are timm's too, one to one
    assert difference(ours, other, x) <= TOLERANCE


def test_weights_from_timm_come_in(randomise):
    peer = randomise(timm.create_model("resnet18", num_classes=5))
    ours = ResNet(variant("resnet18").replace(classes=5))
    assert load_weights(ours, peer.state_dict(), origin="timm") == ()
    assert difference(ours, peer, image(64)) <= TOLERANCE


def test_v1_and_v1_5_differ_as_much_as_they_are_said_to(randomise):
    """The trap: identical names and shapes, other logits; so ``architecture`` must tell them."""
    torch.manual_seed(0)
    later = randomise(ResNet(variant("resnet50")))
    first = ResNet(variant("resnet50_v1"))
    load_weights(first, disk_state(later), origin="v1.5")
    assert difference(later, first, image(64)) > 0.01


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 3), ("resnet18", 1), ("resnet18", 4)])
def test_timm_and_torchvision_read_the_artifact(name, channels, randomise, tmp_path):
    torch.manual_seed(3)
    model = randomise(ResNet(variant(name).replace(classes=6, in_channels=channels)))
    save_artifact(
        tmp_path / "run" / "model",
        model,
        classes=names(6),
        preprocessing=Preprocessing.for_size(224, channels),
        provenance={},
        card="# card\n",
    )
    x = image(64, channels)
    peer = timm.create_model(f"local-dir:{tmp_path / 'run' / 'model'}", pretrained=True)
    assert difference(model, peer, x) <= TOLERANCE
    assert tuple(peer.pretrained_cfg["label_names"]) == tuple(names(6))
    settings = timm.data.resolve_model_data_config(peer)
    assert tuple(settings["input_size"]) == (channels, 224, 224)
    assert settings["interpolation"] == "bilinear"
    assert settings["crop_pct"] == pytest.approx(0.875)

    # and timm can give it another head, as its own weights
    assert timm.create_model(
        f"local-dir:{tmp_path / 'run' / 'model'}", pretrained=True, num_classes=2
    )(x).shape == (2, 2)

    if channels == 3:
        peer = getattr(torchvision.models, name)(num_classes=6)
        peer.load_state_dict(load_file(tmp_path / "run" / "model" / "model.safetensors"))
        assert difference(model, peer, x) <= TOLERANCE
    assert difference(load_artifact(tmp_path / "run").model, model, x) == 0


@pytest.mark.parametrize(
    "spec",
    [
        variant("resnet50_v1"),
        variant("plain_resnet18"),
        cifar(8),
        variant("resnet18").replace(stem_pool="max-ceil"),
        variant("resnet18").replace(shortcut="conv-all"),
        variant("resnet18").replace(feature_stages=2),
        variant("resnet18").replace(depths=(2, 2, 2, 1)),
    ],
    ids=lambda spec: spec.name,
)
def test_timm_refuses_what_it_would_load_wrongly(spec, tmp_path):
    spec = spec.replace(classes=2)
    save_artifact(
        tmp_path,
        ResNet(spec),
        classes=names(2),
        preprocessing=Preprocessing.for_size(spec.image_size),
        provenance={},
        card="",
    )
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert load_artifact(tmp_path).spec == spec


def test_a_custom_spec_that_is_resnet18_is_resnet18_to_timm(tmp_path):
    spec = variant("resnet18").replace(name="mine", classes=2, image_size=64)
    save_artifact(
        tmp_path,
        ResNet(spec),
        classes=names(2),
        preprocessing=Preprocessing.for_size(64),
        provenance={},
        card="",
    )
    model = load_artifact(tmp_path).model
    peer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert difference(model, peer, image(64)) <= TOLERANCE


def test_a_folder_that_timm_wrote_comes_in(randomise, tmp_path):
    peer = randomise(timm.create_model("resnet18", num_classes=3, in_chans=1))
    timm.models.save_for_hf(
        peer,
        str(tmp_path),
        model_config={"label_names": ["a", "b", "c"]},
        safe_serialization=True,
    )
    network = create_network(weights=str(tmp_path))
    assert network.class_names == ("a", "b", "c")
    assert network.preprocessing.interpolation == peer.pretrained_cfg["interpolation"]
    assert difference(network.model, peer, image(64, 1)) <= TOLERANCE


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "resnet26d"}, "architecture 'resnet26d' is not one that plusx builds"),
        ({"model_args": {"layers": [1, 1, 1, 1]}}, "resnet18 is changed there by layers"),
        ({"model_args": {"global_pool": "max"}}, "resnet18 is changed there by global_pool"),
        ({"global_pool": "catavgmax"}, "resnet18 is changed there by global_pool"),
        ({"pretrained_cfg": {}}, "input_size None is not"),
        ({"label_names": ["a"]}, "1 class names for a network with 1000 outputs"),
    ],
)
def test_timm_configs_that_plusx_does_not_follow(config, said):
    plain = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224]}}
    described = describe(plain, "there")
    assert described.spec == variant("resnet18")
    assert described.preprocessing.interpolation == "bicubic"  # timm's default
    with pytest.raises(PlusxError) as caught:
        describe(plain | config, "there")
    assert str(caught.value).startswith("there: ")
    assert said in str(caught.value)
