from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import plusx.weights
from plusx.data.preprocessing import Preprocessing
from plusx.errors import ArtifactError, SpecError, UsageError, WeightsError, WeightsMismatch
from plusx.model import TIMM_NAMES, variant
from plusx.model.baselines import BASELINES, CNNSpec, VGGSpec
from plusx.model.published import PUBLISHED
from plusx.weights import create, create_network, load_artifact, resolve_spec, save_artifact
from plusx.weights.artifact import describe
from plusx.weights.load import disk_state
from plusx.weights.sources import AUTO, BUNDLED, find_source

SPEC = {"name": "tiny", "block": "basic", "depths": [1, 1], "widths": [4, 8], "stem_width": 4}


@pytest.fixture
def artifact(small, tmp_path):
    """The small net as a run folder, with a preprocessing of its own."""
    save_artifact(
        tmp_path / "run" / "model",
        small,
        classes=["a", "b", "c", "d"],
        preprocessing=Preprocessing(32, 36, "bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        provenance={},
        card="",
    )
    return tmp_path / "run"


def test_random_weights_are_seeded_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (
        create_network("resnet8_cifar", weights="none", classes=3, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert (one.origin, one.sha256, one.class_names, one.notes) == ("random", None, None, ())
    weights = [n.model.head.fc.weight for n in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert one.preprocessing == Preprocessing.for_size(32)
    assert one.model.spec.classes == 3


def test_create_gives_the_network_alone():
    model = create("resnet18", weights="none", classes=3, in_channels=2)
    assert model(torch.zeros(1, 2, 64, 64)).shape == (1, 3)
    assert model.training


def test_the_default_is_resnet50():
    assert create(weights="none").spec == variant("resnet50")


def test_a_bare_file_gets_the_variants_preprocessing_and_that_is_said(small, tmp_path):
    save_file(disk_state(small), tmp_path / "w.safetensors")
    network = create_network("resnet8_cifar_b", weights=str(tmp_path / "w.safetensors"))
    assert network.origin == "file:w.safetensors"
    assert network.preprocessing == Preprocessing.for_size(32)
    (note,) = network.notes
    assert note.startswith(
        "w.safetensors: a bare file states no preprocessing; used that of resnet"
    )
    assert len(network.sha256 or "") == 64
    assert network.model.spec.classes == 4  # the file's own head
    assert network.class_names is None
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(network.model.eval()(x), small(x))


def test_a_file_for_one_channel_keeps_it_unless_told(small, tmp_path):
    state = disk_state(small)
    state["conv1.weight"] = state["conv1.weight"][:, :1].contiguous()
    save_file(state, tmp_path / "w.safetensors")
    path = str(tmp_path / "w.safetensors")
    network = create_network("resnet8_cifar_b", weights=path)
    assert network.model.spec.in_channels == network.preprocessing.channels == 1
    network = create_network("resnet8_cifar_b", weights=path, in_channels=3)
    assert network.model.spec.in_channels == network.preprocessing.channels == 3
    assert any("repeated" in note for note in network.notes)


@pytest.mark.parametrize(("name", "kind"), [("resnet50", "v1.5"), ("resnet50_v1", "v1 ")])
def test_a_bare_bottleneck_file_is_read_as_declared_and_that_is_said(name, kind, tmp_path):
    spec = variant(name).replace(depths=(1, 1), widths=(4, 8), name="thin", stem_width=8)
    save_file(disk_state(create(spec, weights="none")), tmp_path / "w.safetensors")
    network = create_network(spec, weights=str(tmp_path / "w.safetensors"))
    assert f"cannot tell v1 from v1.5; read as {kind}" in network.notes[1]
    assert network.model.spec.bottleneck_stride == spec.bottleneck_stride


def test_weights_of_another_network_name_the_right_one(small, tmp_path):
    save_file(disk_state(small), tmp_path / "w.safetensors")
    with pytest.raises(WeightsMismatch, match="look like resnet8_cifar_b weights"):
        create_network("resnet18", weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("part", ["", "model", "model/model.safetensors"])
def test_a_run_folder_a_model_folder_and_the_file_in_it(artifact, part, small):
    network = create_network(weights=str(artifact / part))
    assert network.model.spec == small.spec
    assert network.class_names == ("a", "b", "c", "d")
    assert network.preprocessing.resize == 36
    assert network.notes == ()
    assert network.origin == "file:run/model/model.safetensors"
    assert network.sha256 == load_artifact(artifact).sha256


def test_an_artifact_with_other_classes_and_channels(artifact):
    network = create_network(weights=str(artifact), classes=2, in_channels=1)
    assert network.class_names is None
    assert network.preprocessing.mean == (0.2,)
    assert network.preprocessing.std == (0.5,)
    assert network.preprocessing.resize == 36
    assert [note.split()[0] for note in network.notes] == ["preprocessing:", "head", "first"]


def test_an_artifact_that_was_changed_is_refused(artifact):
    path = artifact / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is not the file that config.json was written for"):
        create_network(weights=str(artifact))


def test_an_artifact_of_another_network_than_asked_for(artifact):
    with pytest.raises(WeightsError, match="holds resnet8_cifar_b, not resnet18"):
        create_network("resnet18", weights=str(artifact))
    asked = variant("resnet8_cifar_b").replace(name="mine", classes=9)
    assert create_network(asked, weights=str(artifact)).model.spec.name == "mine"


def test_a_local_file_wins_over_a_hub_id_that_reads_the_same(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    save_file(disk_state(small), tmp_path / "timm" / "w.safetensors")
    network = create_network("resnet8_cifar_b", weights="timm/w.safetensors")
    assert network.origin == "file:w.safetensors"


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ArtifactError, match="holds no model"):
        create_network(weights=str(tmp_path))


@pytest.mark.parametrize("weights", ["imagenet", "Auto", "", "a/b/c", "resnet18.a1_in1k", "a/b@"])
def test_weights_that_are_nothing_known(weights):
    with pytest.raises(UsageError, match="neither auto, bundled, none"):
        create_network("resnet18", weights=weights)


@pytest.mark.parametrize("weights", ["w.pth", "folder/w.safetensors"])
def test_a_missing_file_is_not_looked_for_on_the_hub(weights):
    with pytest.raises(WeightsError, match="no such file"):
        create_network("resnet18", weights=weights)


@pytest.mark.parametrize(
    "name", ["resnet50_v1", "resnet20_cifar_a", "plain_resnet18", "resnet152_v1"]
)
def test_auto_without_known_weights_says_so_with_the_remedies(name):
    with pytest.raises(WeightsError, match=f"no trained weights are known for {name}") as caught:
        create_network(name)
    for remedy in ("--weights FILE", "HUB_ID", "--weights none"):
        assert remedy in str(caught.value)


def test_auto_for_a_custom_spec(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(SPEC))
    with pytest.raises(WeightsError, match="no trained weights are known for tiny"):
        create_network(str(tmp_path / "s.json"))


NO_FREE_WEIGHTS = {"seresnet101", "seresnet152", "resnetv2_152"}
"""timm has none of these at all."""


def test_auto_knows_weights_of_every_network_that_timm_has_some_of():
    assert set(AUTO) == set(TIMM_NAMES) - NO_FREE_WEIGHTS | set(BASELINES) - {"cnn"}


@pytest.mark.parametrize("name", AUTO)
def test_every_auto_entry_is_of_that_network_and_free(name):
    timm = pytest.importorskip("timm", reason="extra 'timm' absent")
    tag = AUTO[name].partition(".")[2]
    cfg = timm.get_pretrained_cfg(f"{name}.{tag}")
    assert cfg.hf_hub_id == AUTO[name]
    assert cfg.license in ("apache-2.0", "bsd-3-clause")
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": cfg.to_dict()}
    spec = resolve_spec(name)
    described = describe(config, "config.json", asked=spec)
    size = described.preprocessing.size
    assert described.spec == spec.replace(image_size=size)
    whose = "torchvision V1" if tag == "tv_in1k" and name in BASELINES else f"timm {tag}"
    assert PUBLISHED[name].top1_of == f"ImageNet-1k, {whose}, {size}"  # whose figure is listed


def test_bundled_with_another_model():
    with pytest.raises(UsageError, match=f"are those of {BUNDLED}, not of resnet18"):
        create_network("resnet18", weights="bundled")


def test_the_bundled_backbone_comes_along():
    network = create_network(weights="bundled", classes=2)
    assert network.model.spec.name == BUNDLED
    assert network.origin == f"bundled:{BUNDLED}"
    source = find_source("bundled", network.model.spec)
    assert source.path.stat().st_size <= 5_000_000
    again = create_network(BUNDLED, classes=2)  # auto means the bundled weights here
    assert again.origin == network.origin
    assert again.sha256 == network.sha256
    size = network.preprocessing.size
    assert network.model.eval()(torch.rand(2, 3, size, size)).isfinite().all()


def test_a_spec_from_a_file(tmp_path):
    path = tmp_path / "spec.JSON"
    path.write_text("\ufeff" + json.dumps(SPEC), encoding="utf-8")  # as Windows editors save it
    assert resolve_spec(path).name == "tiny"
    assert create(str(path), weights="none").spec.widths == (4, 8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        (json.dumps(SPEC | {"colour": 1}), "unknown field colour"),
        (json.dumps({"block": "basic", "depths": [1]}), "missing field widths"),
        (json.dumps(SPEC | {"block": "cube"}), "block='cube'"),
        (json.dumps(SPEC | {"depths": [1, 0]}), "depths=[1, 0]"),
    ],
)
def test_a_spec_file_that_cannot_be_built_is_named(tmp_path, content, said):
    path = tmp_path / "spec.json"
    path.write_text(content)
    with pytest.raises(SpecError) as caught:
        create_network(str(path), weights="none")
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_a_spec_of_another_family_from_a_file(tmp_path):
    path = tmp_path / "vgg.json"
    path.write_text('{"family": "vgg", "name": "t", "depths": [1, 1], "widths": [4, 8],'
                    ' "hidden": 8, "image_size": 32}')  # fmt: skip
    assert resolve_spec(path) == VGGSpec("t", (1, 1), (4, 8), hidden=8, image_size=32)
    assert create(str(path), weights="none", classes=2)(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    path.write_text('{"family": "vgg", "depths": [1, 1]}')
    with pytest.raises(SpecError, match=rf"{path}: depths=\[1, 1\] and widths="):
        resolve_spec(path)


def test_baselines_by_name_and_image_size():
    network = create_network("cnn", weights="none", classes=3, image_size=128)
    assert network.model.spec == CNNSpec("cnn", (32, 64, 128, 256, 256), classes=3, image_size=128)
    assert network.preprocessing == Preprocessing.for_size(128)
    assert create_network("resnet8_cifar", weights="none", image_size=48).preprocessing.size == 48
    with pytest.raises(SpecError, match=r"image_size=16 is too small.*at least 32"):
        create_network("vgg11", weights="none", image_size=16)
    with pytest.raises(WeightsError, match="no trained weights are known for cnn"):
        create_network("cnn")


def test_a_saved_baseline_at_another_image_size(tmp_path):
    spec = CNNSpec("cnn", (4, 6, 8), classes=2, image_size=32)
    save_artifact(
        tmp_path,
        create(spec, weights="none"),
        classes=["a", "b"],
        preprocessing=Preprocessing.for_size(32),
        provenance={},
        card="",
    )
    network = create_network(weights=str(tmp_path), image_size=64)
    assert network.model.spec == spec.replace(image_size=64)
    assert network.preprocessing.size == 64
    with pytest.raises(SpecError, match="image_size=7 is too small"):
        create_network(weights=str(tmp_path), image_size=7)


def test_a_spec_file_that_is_not_there():
    with pytest.raises(UsageError, match=r"--model nowhere.json: cannot be read: No such file"):
        create_network("nowhere.json", weights="none")


def test_a_spec_file_that_is_no_text(tmp_path):
    (tmp_path / "s.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        resolve_spec(tmp_path / "s.json")


def test_every_public_name_is_there():
    for name in plusx.weights.__all__:
        assert getattr(plusx.weights, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        plusx.weights.nonsense  # noqa: B018


def test_a_network_that_is_loaded_whole_is_the_file_and_is_not_drawn_first(tmp_path, randomise):
    made = create("resnetblur50", weights="none", classes=3, seed=4)
    path = tmp_path / "w.safetensors"
    save_file(disk_state(randomise(made)), path)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    loaded = create("resnetblur50", weights=str(path), seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(loaded[name], value) for name, value in made.state_dict().items())


def test_a_head_that_is_replaced_is_drawn_by_the_seed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(disk_state(create("resnet8_cifar", weights="none", seed=4)), path)
    heads = [create("resnet8_cifar", weights=w, classes=3, seed=5) for w in (str(path), "none")]
    assert torch.equal(heads[0].head.fc.weight, heads[1].head.fc.weight)
