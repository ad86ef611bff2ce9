"""Nets besides ResNet: equal logits with timm and torchvision, names and files both ways."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from plusx.data.preprocessing import Preprocessing
from plusx.errors import ArtifactError, SpecError, WeightsError, WeightsMismatch
from plusx.model import variant
from plusx.model.baselines import BASELINES, VGG, CNNSpec, VGGSpec
from plusx.weights import (
    architecture,
    build,
    create_network,
    load_artifact,
    save_artifact,
    spec_from_dict,
    title,
)
from plusx.weights.artifact import describe
from plusx.weights.families import torchvision_state, written_name
from plusx.weights.load import disk_state, internal_state, load_weights

TOLERANCE = 1e-5
VGGS = sorted(set(BASELINES) - {"cnn"})
THIN = VGGSpec("thin", (1, 1, 2, 2, 2), (4, 6, 8, 8, 8), norm="batch", hidden=16, classes=4)


def image(size: int, n: int = 2) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(one, other, x: torch.Tensor) -> float:
    a, b = one.eval()(x), other.eval()(x)
    assert a.abs().max() > 1e-3
    return float((a - b).abs().max() / b.abs().max())


def tiny(spec=THIN, seed: int = 0):
    torch.manual_seed(seed)
    return build(spec)


def random_state(peer: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Random weights and random norms, their statistics too, for a network on the meta device."""
    made = torch.Generator().manual_seed(1)
    state = {}
    for name, value in peer.state_dict().items():
        if not value.is_floating_point():
            state[name] = torch.tensor(0)
            continue
        spread = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
        drawn = torch.empty(value.shape).normal_(0, spread, generator=made)
        state[name] = drawn if value.ndim > 1 or name.endswith(("bias", "mean")) else drawn + 0.8
    return state


@torch.no_grad()
@pytest.mark.parametrize("name", VGGS)
def test_answers_and_names_equal_torchvisions_and_timms(name):
    """The three layers behind the convolutions are the same in all eight and hold 124 million
    weights: they are filled in one of them, of the others the convolutions' maps are compared."""
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=7).eval()
        timms = timm.create_model(name, num_classes=7).eval()
        ours = VGG(BASELINES[name].replace(classes=7)).eval()
    names = {written_name(ours.spec, k): v.shape for k, v in ours.state_dict().items()}
    assert names == {k: v.shape for k, v in timms.state_dict().items()}
    whole = name == "vgg16_bn"
    state = random_state(theirs if whole else theirs.features)
    if whole:
        theirs.load_state_dict(state, assign=True)
        ours.load_state_dict(internal_state(state, ours.spec), assign=True)
        timms.load_state_dict(disk_state(ours), assign=True)
        assert difference(ours, theirs, image(64)) <= TOLERANCE
        assert difference(ours, timms, image(64)) <= TOLERANCE
        again = torchvision_state(disk_state(ours))
        assert again.keys() == state.keys()
        assert all(torch.equal(again[name], value) for name, value in theirs.state_dict().items())
        back = internal_state(timms.state_dict(), ours.spec)
        assert all(torch.equal(back[name], value) for name, value in ours.state_dict().items())
        return
    theirs.features.load_state_dict(state, assign=True)
    timms.features.load_state_dict(state, assign=True)
    named = internal_state({f"features.{k}": v for k, v in state.items()}, ours.spec)
    assert ours.load_state_dict(named, assign=True, strict=False).unexpected_keys == []
    x = image(64)
    found = list(ours.stages[:5])
    maps = torch.nn.Sequential(*found)(x)
    assert maps.abs().max() > 1e-3
    for peer in (theirs.features(x), timms.features(x)):
        assert float((maps - peer).abs().max() / peer.abs().max()) <= TOLERANCE


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_logits_equal_timms_at_every_image_size_and_torchvisions_below_256(norm, randomise):
    """A thin one, since the whole nets take a while at these sizes."""
    layer = torch.nn.BatchNorm2d if norm == "batch" else None
    cfg = [4, "M", 4, "M", 8, 8, "M", 8, 8, "M", 8, 8, "M"]
    peer = randomise(timm.models.vgg.VGG(cfg, num_classes=5, norm_layer=layer))
    spec = VGGSpec("t", (1, 1, 2, 2, 2), (4, 4, 8, 8, 8), norm=norm, classes=5)
    ours = build(spec)
    assert load_weights(ours, peer.state_dict(), origin="timm") == ()
    for size in (32, 100, 224, 255, 256, 320):
        assert difference(ours, peer, image(size)) <= TOLERANCE
    torch.manual_seed(2)
    features = torchvision.models.vgg.make_layers(cfg, batch_norm=norm == "batch")
    with torch.device("meta"):
        other = torchvision.models.VGG(torch.nn.Sequential(), num_classes=5, init_weights=False)
    other.features, other.classifier[0] = features, torch.nn.Linear(8 * 49, 4096)
    other.classifier[3], other.classifier[6] = torch.nn.Linear(4096, 4096), torch.nn.Linear(4096, 5)
    randomise(other)
    load_weights(ours, other.state_dict(), origin="torchvision")
    for size in (32, 224, 255):
        assert difference(ours, other, image(size)) <= TOLERANCE
    assert difference(ours, other, image(288)) > 10 * TOLERANCE  # see HiddenBlock


def test_a_torchvision_file_comes_in_with_another_head_and_channel(tmp_path, randomise):
    spec = THIN.replace(classes=4)
    state = disk_state(randomise(tiny(spec)))
    theirs = {
        name.replace("pre_logits.fc1", "classifier.0")
        .replace("pre_logits.fc2", "classifier.3")
        .replace("head.fc", "classifier.6"): value.flatten(1)
        if name.startswith("pre_logits") and name.endswith("weight")
        else value
        for name, value in state.items()
    }
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.items()}}, tmp_path / "v.pth")
    network = create_network(spec.replace(classes=9), weights=str(tmp_path / "v.pth"))
    assert network.model.spec.classes == 4
    assert difference(network.model, build_from(spec, state), image(64)) == 0
    changed = create_network(spec, weights=str(tmp_path / "v.pth"), classes=2, in_channels=1)
    assert any("head for 4 classes replaced" in note for note in changed.notes)
    assert any("first convolution for 3 channels summed for 1" in note for note in changed.notes)
    assert changed.preprocessing.channels == 1


def build_from(spec, state):
    model = build(spec)
    load_weights(model, state, origin="disk")
    return model


def test_weights_that_do_not_fit_are_listed_under_the_files_names():
    model = build(THIN)
    state = disk_state(model)
    state.pop("pre_logits.fc1.weight")
    state["features.0.weight"] = state["features.0.weight"][:2]
    state["features.99.weight"] = torch.zeros(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsMismatch) as caught:
        load_weights(model, state, origin="there")
    said = str(caught.value)
    assert said.startswith("there does not fit thin: 1 missing: pre_logits.fc1.weight; 1 unexpec")
    assert "features.99.weight" in said
    assert "features.0.weight (2, 3, 3, 3) instead of (4, 3, 3, 3)" in said
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(WeightsMismatch, match="keep one of them in the file"):
        load_weights(model, state | {"classifier.6.weight": torch.zeros(1)}, origin="there")


def test_vgg_weights_without_norms_do_not_fit_the_net_with_norms_and_the_other_way_round():
    plain = THIN.replace(norm="none")
    with pytest.raises(WeightsMismatch, match="missing"):
        load_weights(build(THIN), disk_state(build(plain)), origin="there")
    with pytest.raises(WeightsMismatch, match="unexpected"):
        load_weights(build(plain), disk_state(build(THIN)), origin="there")


@pytest.mark.parametrize(
    "spec",
    [
        THIN,
        THIN.replace(norm="none", dropout=0.25, in_channels=1),
        CNNSpec("cnn", (4, 6, 8, 8), classes=4),
    ],
)
def test_an_artifact_comes_back(spec, tmp_path, randomise):
    model = randomise(tiny(spec))
    size = spec.image_size
    save_artifact(
        tmp_path / "model",
        model,
        classes=list("abcd"),
        preprocessing=Preprocessing.for_size(size, spec.in_channels),
        provenance={},
        card="",
    )
    found = load_artifact(tmp_path)
    assert found.spec == spec
    x = torch.randn(2, spec.in_channels, 64, 64)
    with torch.no_grad():
        assert torch.equal(found.model(x), model(x))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["plusx"]["format_version"] == 1
    assert config["plusx"]["spec"]["family"] == spec.family
    assert config["architecture"] == f"plusx_{spec.name}"
    network = create_network(weights=str(tmp_path), classes=2)  # and to train further from
    assert type(network.model) is type(model)
    with pytest.raises(WeightsError, match=f"holds {spec.name}, not resnet18"):
        create_network("resnet18", weights=str(tmp_path))


def test_timm_loads_a_vgg_from_the_folder(tmp_path, monkeypatch):
    spec = BASELINES["vgg11_bn"].replace(classes=4, in_channels=1, image_size=64)
    config_of_whole = describe_written(spec, tmp_path / "whole")
    assert config_of_whole["architecture"] == "vgg11_bn"
    # The whole net is half a gigabyte; timm's own class builds a thin one from the same folder.
    thin = VGGSpec("thin", spec.depths, (2, 2, 2, 2, 2), norm="batch", classes=4, in_channels=1)
    monkeypatch.setitem(
        timm.models.vgg.cfgs, "vgg11", [2, "M", 2, "M", 2, 2, "M", 2, 2, "M", 2, 2, "M"]
    )
    model = tiny(thin)
    save_artifact(
        tmp_path / "model",
        model,
        classes=list("abcd"),
        preprocessing=Preprocessing.for_size(64, 1),
        provenance={},
        card="",
    )
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    assert config["architecture"] == "plusx_thin"  # for other widths than timm's it says so
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    path.write_text(json.dumps(config | {"architecture": "vgg11_bn"}))
    peer = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert difference(model, peer, torch.randn(2, 1, 64, 64)) <= TOLERANCE


def describe_written(spec, folder):
    from plusx.weights.family_config import written_config

    return written_config(spec, list("abcd"), Preprocessing.for_size(64, spec.in_channels))


@pytest.mark.parametrize("name", VGGS)
def test_a_config_that_timm_wrote_for_a_vgg(name):
    config = {
        "architecture": name,
        "num_classes": 3,
        "pretrained_cfg": {"input_size": [3, 96, 96], "interpolation": "bilinear"},
    }
    found = describe(config, "there")
    assert found.spec == BASELINES[name].replace(classes=3, image_size=96)
    assert architecture(found.spec) == name
    for change in ({"model_args": {"mlp_ratio": 2}}, {"global_pool": "max"}):
        with pytest.raises(WeightsError, match="is changed there by"):
            describe(config | change, "there")


def test_a_vgg_of_ones_own_is_not_timms():
    own = BASELINES["vgg16"]
    assert architecture(own.replace(name="mine", dropout=0.1, classes=3)) == "vgg16"
    assert architecture(own.replace(name="mine", hidden=512)) == "plusx_mine"
    assert architecture(own.replace(name="mine", norm="batch")) == "vgg16_bn"
    assert architecture(BASELINES["cnn"]) == "plusx_cnn"
    assert architecture(variant("resnet18")) == "resnet18"


def test_what_a_network_is_called():
    assert title(variant("resnet18")) == "residual network"
    assert title(variant("plain_resnet18")) == "plain network without shortcuts"
    assert title(BASELINES["vgg16"]) == "VGG network"
    assert title(BASELINES["cnn"]) == "simple convolutional network"


def test_a_spec_of_a_family_that_is_not_known():
    for family in ("transformer", 3, None, ["vgg"]):
        with pytest.raises(SpecError, match=r"is not one of vgg, cnn, timm .*pip install -U plusx"):
            spec_from_dict({"family": family})
    assert spec_from_dict(variant("resnet18").to_dict()) == variant("resnet18")
    assert "family" not in variant("resnet18").to_dict()


def test_a_folder_of_an_unknown_family_is_refused_in_one_line(tmp_path):
    save_artifact(
        tmp_path,
        tiny(),
        classes=list("abcd"),
        preprocessing=Preprocessing.for_size(224),
        provenance={},
        card="",
    )
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["plusx"]["spec"]["family"] = "later"
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"config.json: family 'later' is not one of"):
        load_artifact(tmp_path)


def test_a_bare_file_of_the_simple_cnn(tmp_path, randomise):
    spec = CNNSpec("cnn", (4, 6, 8, 8), classes=4)
    model = randomise(tiny(spec))
    save_file(disk_state(model), tmp_path / "c.safetensors")
    network = create_network(spec, weights=str(tmp_path / "c.safetensors"))
    assert network.preprocessing == Preprocessing.for_size(64)
    assert difference(network.model, model, image(64)) == 0
