"""Hugging Face transformers' own ResNet and image processor beside plusx, file to logits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from plusx.data import read_image
from plusx.errors import PlusxError, UsageError
from plusx.weights import Reading, create_network, load_artifact

transformers = pytest.importorskip("transformers", reason="extra 'dev' absent")

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 32, 32],
    "depths": [1, 2, 1],
    "id2label": {0: "crane", 1: "crane", 2: "egret"},
}
PROCESSOR: dict[str, Any] = {
    "size": {"shortest_edge": 64},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def photo(shared_data: Path) -> Path:
    """A real photograph whose crop has no half pixel (see ``LAYOUT`` of transformers)."""
    return min((shared_data / "data" / "hymenoptera").rglob("*.jpg"))


@pytest.fixture
def saved(tmp_path: Path, randomise: Callable[..., Any]) -> Callable[..., tuple[Path, Any]]:
    """Saves a random network and its processor as transformers does."""

    def save(processor: dict[str, Any] | None = PROCESSOR, **changes: Any) -> tuple[Path, Any]:
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = transformers.ResNetConfig(**(SMALL | changes))
            model = randomise(transformers.ResNetForImageClassification(config))
            model.save_pretrained(tmp_path / "hf")
            if processor is not None:
                transformers.ConvNextImageProcessor(**processor).save_pretrained(tmp_path / "hf")
        return tmp_path / "hf", model

    return save


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_type": "bottleneck"},
        {"layer_type": "bottleneck", "downsample_in_bottleneck": True},
        {"layer_type": "basic"},
        {"num_channels": 1},
    ],
    ids=["v1.5", "v1", "basic", "grey"],
)
@torch.no_grad()
def test_logits_are_equal(saved: Callable[..., Any], changes: dict[str, Any]) -> None:
    folder, model = saved(None, **changes)
    got = create_network(weights=str(folder))
    x = torch.randn(2, changes.get("num_channels", 3), 64, 64)
    assert relative(got.model.eval()(x), model(x).logits) < 1e-5
    assert got.class_names == ("crane (0)", "crane (1)", "egret")
    assert "no preprocessor_config.json" in "; ".join(got.notes)


@torch.no_grad()
def test_the_declared_stride_matters(saved: Callable[..., Any]) -> None:
    folder, model = saved(layer_type="bottleneck", downsample_in_bottleneck=True)
    got = create_network(weights=str(folder))
    assert got.model.spec.bottleneck_stride == "1x1"
    x = torch.randn(2, 3, 64, 64)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"downsample_in_bottleneck": False}))
    other = create_network(weights=str(folder)).model.eval()
    assert relative(other(x), model(x).logits) > 0.01


@pytest.mark.parametrize("size", [64, 384])
@pytest.mark.parametrize("resample", [2, 3])
@torch.no_grad()
def test_a_photograph_gives_the_same_logits(
    saved: Callable[..., Any], photo: Path, size: int, resample: int
) -> None:
    """Theirs resizes bytes, and rounds and clips to bytes; plusx stays with floats. Over 60
    photographs: 0.28 grey levels on average (bilinear at most 1.0, bicubic 24 where it clips),
    logits at most 0.12% of the largest apart."""
    processor = PROCESSOR | {"size": {"shortest_edge": size}, "resample": resample}
    folder, model = saved(processor)
    got = create_network(weights=str(folder))
    preprocessing = got.preprocessing
    assert preprocessing.mode == ("short" if size < 384 else "squish")
    theirs = transformers.AutoImageProcessor.from_pretrained(folder)
    with Image.open(photo) as image:
        want = theirs(image.convert("RGB"), return_tensors="pt")["pixel_values"]
    mine = preprocessing(torch.from_numpy(read_image(photo)))[None]
    assert mine.shape == want.shape
    grey_level = 1 / 255 / min(preprocessing.std)
    assert float((mine - want).abs().mean()) < 0.5 * grey_level
    if resample == 2:
        assert float((mine - want).abs().max()) < 1.2 * grey_level
    assert relative(got.model.eval()(mine), model(want).logits) < 0.003


def test_a_folder_and_a_pickle_of_older_entries(saved: Callable[..., Any], tmp_path: Path) -> None:
    folder, model = saved()
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for weights in (folder, folder / "pytorch_model.bin"):
        got = create_network(weights=str(weights))
        assert got.preprocessing.resize == 73
        assert got.model.spec.image_size == 64


def test_a_published_config(saved: Callable[..., Any]) -> None:
    """The preprocessor config of microsoft/resnet-50, as the hub has it."""
    folder, _ = saved()
    old = {"crop_pct": 0.875, "do_normalize": True, "do_resize": True,
           "feature_extractor_type": "ConvNextFeatureExtractor",
           "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
           "resample": 3, "size": 224}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    used = create_network(weights=str(folder)).preprocessing
    assert (used.size, used.resize, used.interpolation, used.mode) == (224, 256, "bicubic", "short")


def test_a_file_without_its_config_must_be_told(saved: Callable[..., Any]) -> None:
    folder, model = saved()
    (folder / "config.json").unlink()
    file = str(folder / "model.safetensors")
    with pytest.raises(UsageError, match="transformers weights exist as v1"):
        create_network(weights=file)
    got = create_network(weights=file, reading=Reading(stride="3x3"))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative(got.model.eval()(x), model(x).logits) < 1e-5


def test_a_backbone_alone_gets_a_fresh_head(saved: Callable[..., Any]) -> None:
    folder, model = saved()
    model.resnet.save_pretrained(folder)
    got = create_network(weights=str(folder))
    assert not got.has_head
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = model.resnet(x).pooler_output.flatten(1)
        assert relative(got.model.eval().features(x), want) < 1e-5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "vit"}, "model_type 'vit' is not resnet"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage is True"),
        ({"hidden_sizes": [18, 32, 32]}, "must be multiples of 4"),
        ({"id2label": {}}, "states 0 classes"),
        ({"id2label": {"0": "a", "7": "b"}}, "does not number its 2 classes from 0"),
        ({"problem_type": "multi_label_classification"}, "multi_label_classification"),
        ({"depths": "many"}, "config.json"),
        ({"depths": [1, 2, -1]}, "depths"),
    ],
)
def test_configs_that_cannot_be_built(
    saved: Callable[..., Any], changes: dict[str, Any], said: str
) -> None:
    folder, _ = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(PlusxError) as caught:
        create_network(weights=str(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor' is not one"),
        ({"resample": 1}, "resample 1 is not 2 (bilinear) or 3 (bicubic)"),
        ({"do_rescale": False}, "do_rescale is False"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"size": {"height": 2}}, "shortest_edge"),
        ({"image_std": [0.0, 1.0, 1.0]}, "std"),
    ],
)
def test_processors_that_plusx_does_not_have(
    saved: Callable[..., Any], changes: dict[str, Any], said: str
) -> None:
    folder, _ = saved()
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(PlusxError) as caught:
        create_network(weights=str(folder))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_from_the_hub_to_an_artifact(saved: Callable[..., Any], hub: Any, tmp_path: Path) -> None:
    folder, model = saved()
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        hub.files[name] = (folder / name).read_bytes()
    out = tmp_path / "run"
    command = [sys.executable, "-m", "plusx", "import", hub.repo, "--out", str(out)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    got = load_artifact(out)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert relative(got.model(x), model(x).logits) < 1e-5
    assert got.classes == ("crane (0)", "crane (1)", "egret")
    assert got.preprocessing.resize == 73
    assert np.allclose(got.preprocessing.mean, PROCESSOR["image_mean"])
