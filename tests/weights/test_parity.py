"""The same weights give the same logits here, in torchvision and in timm."""

from __future__ import annotations

import json
from functools import partial

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from plusx.data.preprocessing import Preprocessing
from plusx.errors import PlusxError
from plusx.model import ResNet, cifar, variant
from plusx.model.surgery import drop_blocks
from plusx.weights import create_network, load_artifact, save_artifact
from plusx.weights.artifact import describe
from plusx.weights.families import tongue_of
from plusx.weights.load import disk_state, load_weights
from plusx.weights.names import disk_name
from plusx.weights.timm_config import TIMM_NAMES, architecture

TOLERANCE = 1e-5


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


def random_norms(model, randomise):
    """As ``randomise``, group norms too."""
    torch.manual_seed(5)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.25, 0.75)
            nn.init.normal_(module.bias, std=0.1)
    return randomise(model)


def fewer(name: str) -> tuple[int, ...] | None:
    """Depths of a deep net, shortened: its full depth is compared by names and shapes."""
    depths = variant(name).depths
    return (1, 2, 2, 1) if sum(depths) > 16 else None


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_logits_equal_timms_both_ways(name, randomise):
    depths = fewer(name)
    spec = variant(name).replace(classes=7, **({"depths": depths} if depths else {}))
    arguments = {"layers": depths} if depths else {}
    peer = random_norms(timm.create_model(name, num_classes=7, **arguments), randomise)
    ours = ResNet(spec)
    assert load_weights(ours, peer.state_dict(), origin="timm") == ()
    assert difference(ours, peer, image(64)) <= TOLERANCE

    back = timm.create_model(name, num_classes=7, **arguments)
    back.load_state_dict(disk_state(ours))  # strict: the names are timm's, one to one
    assert difference(ours, back, image(64)) <= TOLERANCE


@pytest.mark.parametrize("name", TIMM_NAMES)
def test_names_shapes_and_parameters_are_timms_at_full_depth(name):
    with torch.device("meta"):
        peer, ours = timm.create_model(name), ResNet(variant(name))
    tongue = tongue_of(ours.spec)
    written = {disk_name(k, tongue): tuple(v.shape) for k, v in ours.state_dict().items()}
    theirs = {k: tuple(v.shape) for k, v in peer.state_dict().items()}
    if ours.spec.order == "pre":
        written["head.fc.weight"] += (1, 1)
    assert written == theirs
    assert sum(map(torch.Tensor.numel, ours.parameters())) == sum(
        map(torch.Tensor.numel, peer.parameters())
    )


TORCHVISION = [name for name in TIMM_NAMES if hasattr(torchvision.models, name)]


def test_what_torchvision_shares():
    assert set(TORCHVISION) == {
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"),
        *("resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
    }


@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_equal_torchvisions_both_ways(name, randomise):
    own = variant(name)
    if depths := fewer(name):
        groups = {"groups": own.cardinality, "width_per_group": own.base_width}
        block = torchvision.models.resnet.Bottleneck
        theirs = partial(torchvision.models.ResNet, block, list(depths), **groups)
        own = own.replace(depths=depths)
    else:
        theirs = getattr(torchvision.models, name)
    peer = randomise(theirs(num_classes=7))
    ours = ResNet(own.replace(classes=7))
    assert load_weights(ours, peer.state_dict(), origin="torchvision") == ()
    assert difference(ours, peer, image(64)) <= TOLERANCE
    back = theirs(num_classes=7)
    back.load_state_dict(disk_state(ours))
    assert difference(ours, back, image(64)) <= TOLERANCE


def test_keras_v2_is_the_same_network(monkeypatch):
    """Weights of Keras' ResNet50V2, random norms and biases, give the same logits here."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="extra 'keras' absent")
    peer = keras.applications.ResNet50V2(
        weights=None, input_shape=(65, 65, 3), classes=7, classifier_activation=None
    )
    ours = ResNet(variant("resnet50v2_keras").replace(classes=7, image_size=65))
    state = ours.state_dict()
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():  # what a block is called there: conv2_block1_3_conv
        value = torch.rand(value.shape, generator=generator) * 0.5 + 0.25
        if name.endswith("conv.weight") or (".conv" in name and value.ndim == 4):
            value = (value - 0.5) / value[0].numel() ** 0.5 * 4
        state[name] = value
    ours.load_state_dict(state)
    for layer in peer.layers:
        if layer.weights:
            name = keras_names(layer.name)
            leaves = [leaf for leaf in LEAVES if f"{name}.{leaf}" in state]
            values = [state[f"{name}.{leaf}"].numpy() for leaf in leaves]
            assert len(values) == len(layer.weights)
            if values[0].ndim == 4:
                values[0] = values[0].transpose(2, 3, 1, 0)
            elif values[0].ndim == 2:
                values[0] = values[0].T
            layer.set_weights(values)
    x = image(65)
    with torch.no_grad():
        theirs = peer(x.permute(0, 2, 3, 1))
        error = (ours.eval()(x) - theirs).abs().max() / theirs.abs().max()
    assert float(error) <= TOLERANCE


LEAVES = ("weight", "bias", "running_mean", "running_var")


def keras_names(layer: str) -> str:
    """A layer of Keras' ResNet V2 -> our module."""
    whole = {"conv1_conv": "stem.conv", "post_bn": "norm.norm", "predictions": "head.fc"}
    if layer in whole:
        return whole[layer]
    stage, block, part = layer.split("_", 2)
    place = f"stages.{int(stage[4:]) - 2}.{int(block[5:]) - 1}"
    number, _, kind = part.partition("_")
    if number == "preact":
        return f"{place}.preact.norm"
    if number == "0":
        return f"{place}.shortcut.conv"
    return f"{place}.residual.{'norm' if kind == 'bn' else 'conv'}{number}"


def test_v1_and_v1_5_differ_as_much_as_they_are_said_to(randomise):
    """The trap: identical names and shapes, other logits; so ``architecture`` must tell them."""
    torch.manual_seed(0)
    later = randomise(ResNet(variant("resnet50")))
    first = ResNet(variant("resnet50_v1"))
    load_weights(first, disk_state(later), origin="v1.5")
    assert difference(later, first, image(64)) > 0.01


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet18", 3), ("resnet18", 1), ("resnet18", 4), ("resnet18d", 4), ("resnetv2_50", 3)],
)
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

    if channels == 3 and name in TORCHVISION:
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
        variant("resnet18").replace(depths=(2, 2, 2), widths=(64, 128, 256)),
        variant("resnet18").replace(blur=True),
        variant("wrn10_1"),
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


@pytest.mark.parametrize("name", ["resnet18", "seresnet50", "resnetv2_50"])
def test_a_slimmed_net_is_timms_with_other_layers(name, randomise, tmp_path):
    whole = variant(name).replace(classes=2, image_size=64)
    model = drop_blocks(randomise(ResNet(whole.replace(depths=(2, 2, 1, 1)))), [1])
    save_artifact(
        tmp_path,
        model,
        classes=names(2),
        preprocessing=Preprocessing.for_size(64),
        provenance={},
        card="",
    )
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (config["architecture"], config["model_args"]) == (name, {"layers": [1, 2, 1, 1]})
    assert load_artifact(tmp_path).spec == model.spec
    peer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert difference(load_artifact(tmp_path).model, peer, image(64)) <= TOLERANCE
    del config["plusx"]
    assert describe(config, "there").spec == variant(name).replace(
        depths=(1, 2, 1, 1), classes=2, image_size=64
    )


def test_training_only_fields_change_no_architecture():
    spec = variant("resnet50").replace(drop_path=0.1, dropout=0.2, zero_init_last=True)
    assert architecture(spec) == "resnet50"
    assert architecture(spec.replace(norm_eps=1e-3)) == "plusx_resnet50"


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
        ({"model_args": {"output_stride": 8}}, "resnet18 is changed there by output_stride"),
        ({"model_args": {"layers": [1, 0, 1, 1]}}, "model_args: depths=[1, 0, 1, 1] must hold"),
        ({"model_args": {"layers": [1, 1, 1]}}, "differ in length"),
        ({"model_args": {"cardinality": 2}}, "cardinality=2 is for bottlenecks"),
        ({"model_args": {"block_args": {"attn_layer": "cbam"}}}, "channel_attention='cbam'"),
        ({"model_args": {"block_args": {"reduce_first": 2}}}, "changed there by block_args"),
        (
            {"architecture": "resnetv2_50", "model_args": {"cardinality": 2}},
            "resnetv2_50 is changed there by cardinality",
        ),
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
    more = {"model_args": {"layers": [1, 2, 3, 4], "block_args": {"attn_layer": "se"}}}
    assert describe(plain | more, "there").spec == variant("resnet18").replace(
        depths=(1, 2, 3, 4), channel_attention="se"
    )
    with pytest.raises(PlusxError) as caught:
        describe(plain | config, "there")
    assert str(caught.value).startswith("there: ")
    assert said in str(caught.value)
