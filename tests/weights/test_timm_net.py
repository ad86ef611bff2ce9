"""``timm:NAME``: any network of timm's, with names, files and preprocessing of timm's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from plusx.data.preprocessing import Preprocessing
from plusx.engines import TorchEngine
from plusx.errors import ArtifactError, MissingExtra, SpecError, UsageError, WeightsError
from plusx.model.surgery import fold_batchnorm, split_trunk, training_mode, unfreeze_last_blocks
from plusx.weights import (
    architecture,
    build,
    create_network,
    load_artifact,
    resolve_spec,
    save_artifact,
    spec_from_dict,
    title,
)
from plusx.weights.load import disk_state, load_weights
from plusx.weights.timm_net import TimmSpec
from plusx.weights.timm_spec import known_weights, timm_spec

timm = pytest.importorskip("timm", reason="extra 'timm' absent")

TOLERANCE = 1e-5
NAMES = ("test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_nfnet")


@pytest.fixture
def no_network(monkeypatch):
    """Every connection is an error."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def image(size: int = 160, channels: int = 3, n: int = 2) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(one, other, x: torch.Tensor) -> float:
    a, b = one.eval()(x), other.eval()(x)
    assert a.abs().max() > 1e-3
    return float((a - b).abs().max() / b.abs().max())


def write(folder, model, preprocessing=None, classes="abcde"):
    save_artifact(
        folder,
        model,
        classes=list(classes),
        preprocessing=preprocessing or Preprocessing.for_size(160),
        provenance={},
        card="",
    )
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_logits_go_both_ways(name, tmp_path, randomise, no_network):
    peer = randomise(timm.create_model(name, num_classes=5))
    network = create_network(f"timm:{name}", weights="none", classes=5)
    ours, x = network.model, image()
    assert load_weights(ours, peer.state_dict(), origin="timm", adapt=False) == ()
    assert difference(ours, peer, x) <= TOLERANCE
    written = disk_state(ours)
    assert {k: v.shape for k, v in written.items()} == {
        k: v.shape for k, v in peer.state_dict().items()
    }
    write(tmp_path / "model", ours, network.preprocessing)
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architecture"] == architecture(ours.spec) == name
    artifact = load_artifact(tmp_path)  # no network, no pretrained weights
    assert artifact.spec == ours.spec
    assert artifact.preprocessing == network.preprocessing
    assert difference(artifact.model, ours, x) == 0
    again = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    assert difference(ours, again, x) <= TOLERANCE
    settings = timm.data.resolve_model_data_config(again)
    assert tuple(settings["mean"]) == network.preprocessing.mean


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_byobnet"])
def test_the_line_holds(name, randomise):
    """Folding leaves the body alone, both splits and the engine give the same."""
    model = randomise(create_network(f"timm:{name}", weights="none", classes=5).model)
    x = image()
    with torch.no_grad():
        whole = model(x)
        assert model.features(x).shape == (2, model.spec.feature_channels)
        assert torch.equal(fold_batchnorm(model)(x), whole)
        for n in (0, 1):
            trunk, top = split_trunk(model, n)
            assert torch.equal(top(*trunk(x)), whole)
            engine = TorchEngine(model, device=torch.device("cpu"), top_blocks=n)
            found = torch.from_numpy(engine.run(x.numpy()).logits)
            torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)


def test_norms_inside_a_foreign_body_are_not_folded_by_their_names(randomise):
    """timm's pre-activation nets have norm1 before conv1: folding them as ours would be wrong."""

    class Preactivated(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.conv1 = torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv1(self.norm1(x))

    model = create_network("timm:test_resnet", weights="none").model
    model.stages[0][0].net.conv1 = torch.nn.Sequential(Preactivated(), model.stages[0][0].net.conv1)
    randomise(model)
    x = image(64)
    with torch.no_grad():
        assert torch.equal(fold_batchnorm(model)(x), model(x))


@pytest.mark.parametrize(("n", "trained"), [(0, {"head"}), (1, {"head", "stages"})])
def test_unfreezing_trains_the_head_or_all(n, trained):
    model = create_network("timm:test_efficientnet", weights="none").model
    unfreeze_last_blocks(model, n)
    found = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert found == trained
    before = {name: b.clone() for name, b in model.named_buffers()}
    training_mode(model, norm_statistics=False)
    model(image(64))
    assert all(torch.equal(before[name], b) for name, b in model.named_buffers())


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (
        create_network("timm:test_vit", weights="none", classes=3, seed=seed).model
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one(image()), two(image()))
    assert not torch.equal(one(image()), other(image()))


def test_preprocessing_is_timms():
    found = create_network("timm:test_vit", weights="none").preprocessing
    known = timm.models.get_pretrained_cfg("test_vit")
    assert found == Preprocessing.from_timm(known.to_dict())
    assert found.mean == (0.5, 0.5, 0.5)
    grey = create_network("timm:test_efficientnet", weights="none", in_channels=1)
    assert grey.preprocessing.mean == pytest.approx((0.449,))
    assert grey.model(image(160, 1)).shape == (2, 1000)


def test_a_net_of_a_fixed_size_is_built_for_another_from_scratch(tmp_path):
    network = create_network("timm:test_vit", weights="none", classes=5, image_size=96)
    assert network.preprocessing.size == network.model.spec.image_size == 96
    assert network.model.spec.model_args == {"img_size": 96}
    assert network.model(image(96)).shape == (2, 5)
    with pytest.raises(UsageError, match="timm:test_vit takes no images of 8 pixels"):
        create_network("timm:test_vit", weights="none", image_size=8)
    run = write(tmp_path / "model", network.model, network.preprocessing)
    peer = timm.create_model(f"local-dir:{run}", pretrained=True)
    assert difference(network.model, peer, image(96)) <= TOLERANCE
    further = create_network("timm:test_vit", weights=str(run), classes=2)
    assert further.model.spec.image_size == 96
    assert create_network(weights=str(run), image_size=96).model.spec.image_size == 96
    with pytest.raises(UsageError, match=r"--image-size 64: the weights .* are for 96 pixels al"):
        create_network(weights=str(run), image_size=64)


def test_a_net_of_any_size_keeps_its_weights(tmp_path):
    network = create_network("timm:test_resnet", weights="none", classes=5)
    run = write(tmp_path / "model", network.model, network.preprocessing)
    other = create_network(weights=str(run), image_size=80)
    assert other.preprocessing.size == other.model.spec.image_size == 80
    assert other.preprocessing.resize == round(network.preprocessing.resize / 2)
    assert difference(other.model, network.model, image(80)) == 0


def test_a_bare_file_of_timms_and_what_is_adapted(tmp_path, randomise):
    peer = randomise(timm.create_model("test_efficientnet", num_classes=5))
    torch.save({"state_dict": {f"module.{k}": v for k, v in peer.state_dict().items()}},
               tmp_path / "w.pth")  # fmt: skip
    network = create_network("timm:test_efficientnet", weights=str(tmp_path / "w.pth"))
    assert network.model.spec.classes == 5
    assert network.notes[0].startswith("w.pth: a bare file states no preprocessing; used that of t")
    assert difference(network.model, peer, image()) <= TOLERANCE
    changed = create_network(
        "timm:test_efficientnet", weights=str(tmp_path / "w.pth"), classes=2, in_channels=1
    )
    assert "head for 5 classes replaced by a fresh one for 2" in changed.notes
    assert "first convolution for 3 channels summed for 1" in changed.notes
    grey = image(160, 1)
    with torch.no_grad():
        theirs = peer.forward_features(grey.expand(-1, 3, -1, -1)).mean((2, 3))
        torch.testing.assert_close(changed.model.eval().features(grey), theirs, rtol=1e-3,
                                   atol=1e-4)  # fmt: skip


def test_weights_without_a_head_leave_a_fresh_one(tmp_path):
    peer = timm.create_model("test_vit", num_classes=0)
    save_file(peer.state_dict(), tmp_path / "w.safetensors")
    network = create_network("timm:test_vit", weights=str(tmp_path / "w.safetensors"), classes=3)
    assert "the weights have no head: a fresh one for 3 classes" in network.notes
    with torch.no_grad():
        features = network.model.eval().features(image())
        torch.testing.assert_close(features, peer.eval()(image()), rtol=1e-5, atol=1e-5)


def test_a_folder_that_timm_wrote_is_read_where_it_is_asked_for(tmp_path, randomise):
    peer = randomise(timm.create_model("test_vit", num_classes=3, img_size=96))
    timm.models.save_for_hf(
        peer,
        str(tmp_path),
        model_config={
            "label_names": ["a", "b", "c"],
            "pretrained_cfg": {"input_size": [3, 96, 96]},
        },
        safe_serialization=True,
    )
    network = create_network("timm:test_vit", weights=str(tmp_path))
    assert network.class_names == ("a", "b", "c")
    assert network.preprocessing.size == 96
    assert difference(network.model, peer, image(96)) <= TOLERANCE
    with pytest.raises(WeightsError, match=r"'test_vit' is not timm:test_resnet; ask for --model"):
        create_network("timm:test_resnet", weights=str(tmp_path))
    with pytest.raises(WeightsError, match="'test_vit'"):
        create_network("resnet18", weights=str(tmp_path))


AUTO = """
import sys
from plusx.errors import PlusxError
from plusx.weights import create_network
try:
    got = create_network("timm:test_vit", classes=2)
except PlusxError as error:
    print(type(error).__name__, error, sep="|")
else:
    print(got.origin, got.model.spec.name, got.preprocessing.resize, *got.notes, sep="|")
"""


def auto(hub, tmp_path) -> list[str]:
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", AUTO], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip().split("|")


def test_auto_is_what_timm_names_fetched_by_our_own_checked_download(hub, tmp_path):
    peer = timm.create_model("test_vit", num_classes=3)
    known = timm.models.get_pretrained_cfg("test_vit").to_dict()
    keys = ("input_size", "interpolation", "crop_pct", "mean", "std")
    config = {
        "architecture": "test_vit",
        "num_classes": 3,
        "pretrained_cfg": {key: known[key] for key in keys},
    }
    hub.repo = "timm/test_vit.r160_in1k"
    hub.files |= {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(peer.state_dict()),
    }
    found = auto(hub, tmp_path)
    assert found[:3] == [f"hub:timm/test_vit.r160_in1k@{hub.commit}", "timm:test_vit", "168"]
    assert found[3:] == ["head for 3 classes replaced by a fresh one for 2"]


def test_auto_says_so_where_weights_are_not_for_commerce():
    hub_id, notes = known_weights(timm_spec("timm:convnextv2_atto.fcmae_ft_in1k"))
    assert hub_id == "timm/convnextv2_atto.fcmae_ft_in1k"
    assert notes == (f"{hub_id}: licence cc-by-nc-4.0: not for commercial use",)
    assert known_weights(timm_spec("test_vit")) == ("timm/test_vit.r160_in1k", ())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:test_vti", "has no such model; did you mean timm:test_vit"),
        ("timm:", "has no such model; its names are listed by"),
        ("timm:qqqqqqqq", "has no such model; its names are listed by"),
        ("timm:hf-hub:timm/test_vit", "has no such model"),
        ("timm:../test_vit", "has no such model"),
        ("timm:test_vit.sun", "knows no tag 'sun'; known: test_vit.r160_in1k"),
        ("timm:deit_tiny_distilled_patch16_224", "has more than one classifier"),
        ("timm:resnetv2_50", r"its classifier is not one linear layer with a bias \(Conv2d\)"),
    ],
)
def test_names_that_cannot_be_used(name, said, no_network):
    with pytest.raises(UsageError, match=said):
        create_network(name, weights="none")


def test_an_unknown_name_mentions_all_that_there_is():
    with pytest.raises(UsageError) as caught:
        create_network("restnet18", weights="none")
    assert "resnet18" in str(caught.value)
    assert "timm:NAME" in str(caught.value)
    assert "vgg16" in str(caught.value)
    with pytest.raises(UsageError, match="vgg16_bn"):
        resolve_spec("vgg16bn")


def test_without_timm_the_extra_is_named(tmp_path, monkeypatch):
    run = write(
        tmp_path / "model", create_network("timm:test_vit", weights="none", classes=5).model
    )
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (
        lambda: create_network("timm:test_vit", weights="none"),
        lambda: load_artifact(run),
    ):
        with pytest.raises(MissingExtra, match=r"pip install 'plusx\[timm\]'"):
            call()
    assert spec_from_dict({"family": "cnn", "widths": [4]}).name == "custom"  # the rest needs none


FIELDS = {"family": "timm", "architecture": "test_vit", "feature_channels": 64,
          "classifier": "head", "image_size": 160, "classes": 5, "fixed_size": True}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "hf-hub:someone/net"}, "is not a name of timm's"),
        ({"architecture": 3}, "is not a name of timm's"),
        ({"model_args": {"checkpoint_path": "/etc/x.pt"}}, "may not hold checkpoint_path"),
        ({"model_args": {"pretrained": True}}, "may not hold pretrained"),
        ({"model_args": {"pretrained_cfg": {"file": "x"}}}, "may not hold pretrained_cfg"),
        ({"model_args": {"num_classes": 3}}, "may not hold num_classes"),
        ({"model_args": [1]}, "must be an object"),
        ({"model_args": {"x": {1, 2}}}, "is not plain JSON"),
        ({"feature_channels": 0}, "feature_channels=0"),
        ({"classifier": None}, "classifier=None"),
        ({"fixed_size": 1}, "fixed_size=1"),
        ({"depths": [1]}, "unknown field depths"),
    ],
)
def test_a_spec_that_reaches_for_more_than_a_network_is_refused(change, said):
    assert isinstance(spec_from_dict(FIELDS), TimmSpec)
    with pytest.raises(SpecError, match=said):
        spec_from_dict(FIELDS | change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"feature_channels": 65}, "feature_channels=65, but timm's has 64"),
        ({"classifier": "nose"}, "has no module 'nose'"),
        ({"architecture": "no_such_net"}, "has no model 'no_such_net'; update timm"),
        ({"model_args": {"colour": "red"}}, "cannot build it with 5 classes.*colour=red"),
        ({"classifier": "blocks"}, "is not one linear layer"),
    ],
)
def test_a_spec_that_timm_cannot_build(change, said):
    with pytest.raises((SpecError, UsageError), match=said):
        build(spec_from_dict(FIELDS | change))


def test_an_artifact_whose_config_was_changed(tmp_path):
    write(tmp_path, create_network("timm:test_vit", weights="none", classes=5).model)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["plusx"]["spec"]["model_args"] = {"checkpoint_path": "x"}
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=r"config.json: model_args may not hold checkpoint_pa"):
        load_artifact(tmp_path)


def test_what_is_written(tmp_path):
    model = create_network("timm:test_vit", weights="none", classes=5, in_channels=1).model
    write(tmp_path, model, Preprocessing.for_size(160, 1))
    assert "patch_embed.proj.weight" in load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"] == {"in_chans": 1}
    assert config["pretrained_cfg"]["fixed_input_size"] is True
    assert config["pretrained_cfg"]["classifier"] == "head"
    peer = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert difference(model, peer, image(160, 1)) <= TOLERANCE
    assert title(model.spec) == "network"
