from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plusx.data.preprocessing import Preprocessing
from plusx.data.reading import Reading
from plusx.errors import ArtifactError
from plusx.model import ResNet
from plusx.weights import load_artifact, save_artifact
from plusx.weights.artifact import FORMAT_VERSION

CLASSES = ["ants", "bees", "Ä", "d e"]


def save(folder: Path, model: ResNet, **changes) -> Path:
    parts = {
        "classes": CLASSES,
        "preprocessing": Preprocessing.for_size(32),
        "provenance": {"seed": 1, "data": "photos"},
        "card": "# A card\n",
    }
    save_artifact(folder, model, **(parts | changes))
    return folder


def edit(folder: Path, change) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")


def test_what_was_saved_is_loaded(small, tmp_path):
    preprocessing = Preprocessing(32, 40, "bicubic", mean=(0.1, 0.2, 0.3), mode="squish")
    save(tmp_path / "run" / "model", small, preprocessing=preprocessing, task="multi")
    for path in (tmp_path / "run", str(tmp_path / "run" / "model")):
        artifact = load_artifact(path)
        assert artifact.path == tmp_path / "run" / "model"
        assert artifact.spec == small.spec
        assert artifact.classes == tuple(CLASSES)
        assert artifact.preprocessing == preprocessing
        assert artifact.task == "multi"
        assert artifact.provenance == {"seed": 1, "data": "photos"}
        assert artifact.format_version == 1
        assert not artifact.model.training
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(artifact.model(x), small(x))


def test_the_folder_holds_just_what_it_should(small, tmp_path):
    save(tmp_path / "model", small)
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing left beside it
    assert (tmp_path / "model" / "README.md").read_text() == "# A card\n"
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert config["architecture"] == "plusx_resnet8_cifar_b"
    assert config["label_names"] == CLASSES
    assert config["num_features"] == 64
    assert config["pretrained_cfg"]["num_classes"] == config["num_classes"] == 4
    assert config["pretrained_cfg"]["first_conv"] == "conv1"
    assert "plusx" not in config["pretrained_cfg"]
    assert "layer1.0.bn1.running_var" in load_file(tmp_path / "model" / "model.safetensors")


def test_an_artifact_is_replaced(small, tmp_path):
    save(tmp_path / "model", small)
    (tmp_path / "model" / "old.txt").write_text("old")
    save(tmp_path / "model", small, classes=["a", "b", "c", "d"])
    assert load_artifact(tmp_path / "model").classes == ("a", "b", "c", "d")
    assert not (tmp_path / "model" / "old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("content", ["notes.txt", "config.json"])
def test_a_folder_of_something_else_is_never_replaced(small, tmp_path, content):
    (tmp_path / content).write_text("{}")
    with pytest.raises(ArtifactError, match="exists and is no model folder"):
        save(tmp_path, small)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_a_file_is_never_replaced(small, tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(ArtifactError, match="exists and is no model folder"):
        save(tmp_path / "model", small)
    assert (tmp_path / "model").read_text() == "mine"


def test_a_failed_write_leaves_the_old_artifact_and_nothing_else(small, tmp_path):
    save(tmp_path / "model", small)
    with pytest.raises(TypeError):
        save(tmp_path / "model", small, provenance={"x": object()})
    assert load_artifact(tmp_path / "model").classes == tuple(CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_replacement_that_cannot_take_its_place_puts_the_old_one_back(
    small, tmp_path, monkeypatch
):
    save(tmp_path / "model", small)
    rename, calls = os.rename, []

    def failing(source, target, **kwargs):
        calls.append(source)
        if len(calls) == 2:  # the old one is aside, the new one about to come
            raise OSError(28, "No space left on device")
        return rename(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(ArtifactError, match="No space left"):
        save(tmp_path / "model", small, classes=["a", "b", "c", "d"])
    assert len(calls) == 3
    assert load_artifact(tmp_path / "model").classes == tuple(CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["a"]}, "1 class names for a network with 4 outputs"),
        ({"classes": ["a", "b", "b", "c"]}, "same name"),
        ({"preprocessing": Preprocessing.for_size(32, 1)}, "gives 1 channels, the network takes 3"),
    ],
)
def test_parts_that_do_not_fit_are_not_saved(small, tmp_path, changes, said):
    with pytest.raises(ArtifactError, match=said):
        save(tmp_path / "model", small, **changes)
    assert list(tmp_path.iterdir()) == []


RELEASED = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_every_released_format_is_read_and_answers_as_it_did(version):
    """Each folder was written by the plusx that released the format, and is never written again."""
    folder = RELEASED / f"format_{version}"
    artifact = load_artifact(folder)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert artifact.format_version == version
    assert artifact.classes == ("ant", "bee", "Käfer")
    assert artifact.preprocessing == Preprocessing(
        32,
        36,
        "bicubic",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        reading=Reading.before_profiles(),  # the first release knew no colour profiles
    )
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin() * 2
    with torch.no_grad():
        logits = artifact.model(x)
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]), rtol=1e-5, atol=1e-6)


def test_a_residual_net_is_written_as_the_first_release_wrote_it(tmp_path):
    """So that an older plusx reads it: no family in its spec, no new key."""
    old = RELEASED / "format_1" / "model"
    artifact = load_artifact(old)
    save_artifact(
        tmp_path,
        artifact.model,
        classes=artifact.classes,
        preprocessing=artifact.preprocessing,
        provenance=artifact.provenance,
        card="",
    )
    then, now = (
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for folder in (old, tmp_path)
    )
    for config in (then, now):
        config["plusx"].pop("plusx_version")
    assert now == then


def test_no_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="no model there"):
        load_artifact(tmp_path)
    with pytest.raises(ArtifactError, match="no model there"):
        load_artifact(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other"])
def test_weights_that_are_not_the_configs(small, tmp_path, damage):
    path = save(tmp_path, small) / "model.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "gone":
        path.unlink()
    else:
        save_file({"x": torch.ones(1)}, path)
    with pytest.raises(ArtifactError) as caught:
        load_artifact(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["plusx"].update(format_version=2), "written by a later plusx"),
        (lambda c: c["plusx"].pop("format_version"), "states no format_version"),
        (lambda c: c.update(plusx=3), "states no format_version"),
        (lambda c: c["plusx"].pop("spec"), "lacks spec"),
        (lambda c: c["plusx"]["spec"].update(depths=[1]), "differ in length"),
        (lambda c: c["plusx"]["spec"].update(classes=5), "4 class names for a network with 5"),
        (lambda c: c["plusx"]["spec"].update(widths=[16, 32, 65]), "does not fit"),
        (lambda c: c["plusx"]["preprocessing"].pop("std"), "std"),
        (lambda c: c["plusx"].update(preprocessing=3), "preprocessing|iterable"),
        (lambda c: c["label_names"].pop(), "3 class names for a network with 4"),
        (lambda c: c.pop("label_names"), "names no classes"),
    ],
)
def test_a_config_that_does_not_hold_together(small, tmp_path, change, said):
    edit(save(tmp_path, small), change)
    with pytest.raises(ArtifactError, match=said) as caught:
        load_artifact(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_config_that_is_no_json(small, tmp_path, text):
    save(tmp_path, small)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"config.json"):
        load_artifact(tmp_path)


def test_a_model_from_before_the_reading_was_stated_reads_as_it_did(small, tmp_path):
    save(tmp_path / "model", small)
    edit(tmp_path / "model", lambda config: config["plusx"]["preprocessing"].pop("reading"))
    artifact = load_artifact(tmp_path / "model")
    assert artifact.format_version == 1
    assert artifact.preprocessing.reading == Reading(profiles=False)
