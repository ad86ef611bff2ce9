"""``plusx export-weights``: what other libraries make of the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms import v2

from plusx.data import Preprocessing
from plusx.errors import PlusxError
from plusx.jobs.export_weights import export_weights
from plusx.jobs.import_weights import import_weights
from plusx.model import cifar, variant
from plusx.model.baselines import BASELINES
from plusx.model.classifier import Spec
from plusx.predict import Predictor
from plusx.weights import build, create_network, load_artifact, save_artifact
from plusx.weights.artifact import describe
from plusx.weights.metadata import read_stated
from plusx.weights.timm_spec import timm_spec

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def make(tmp_path: Path, randomise: Callable[..., Any]) -> Callable[[Spec], Path]:
    """Gives a model folder of a spec, with random weights and random norms."""

    def artifact(spec: Spec) -> Path:
        torch.manual_seed(4)
        spec = spec.replace(classes=3)
        folder = tmp_path / "run" / "model"
        save_artifact(
            folder, randomise(build(spec)), classes=CLASSES, card="# card\n",
            preprocessing=Preprocessing.for_size(spec.image_size, spec.in_channels),
            provenance={"data": "/home/someone/secret/photos"},
        )  # fmt: skip
        return folder.parent

    return artifact


def picture(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "x.png")
    return folder / "x.png"


def largest(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of two logits, as a part of the largest logit."""
    assert other.abs().max() > 1e-3
    return float((one - other).abs().max() / other.abs().max())


def test_torchvision_answers_the_same_from_file_to_logits(
    make: Callable[[Spec], Path], tmp_path: Path
) -> None:
    run = make(variant("resnet18"))
    done = export_weights(run, tmp_path / "out.pth", kind="torchvision")
    assert done.architecture == "resnet18"
    peer = torchvision.models.resnet18(num_classes=3).eval()
    peer.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True))

    used = load_artifact(run).preprocessing
    prepare = v2.Compose([
        v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Resize(used.resize, antialias=True), v2.CenterCrop(used.size),
        v2.Normalize(used.mean, used.std),
    ])  # fmt: skip
    image = picture(tmp_path)
    with torch.inference_mode():
        theirs = peer(prepare(Image.open(image))[None])
    artifact = load_artifact(run)
    pixels = torch.from_numpy(np.array(Image.open(image)))
    with torch.inference_mode():
        ours = artifact.model(artifact.preprocessing(pixels)[None])
    assert largest(ours, theirs) <= 1e-5
    found = Predictor(run, device="cpu").predict(image)
    for label, p in zip(CLASSES, theirs.softmax(1)[0].tolist(), strict=True):
        assert dict(found.top(3))[label] == pytest.approx(p, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet50d", 3), ("resnet18", 1), ("resnetv2_50", 3)]
)
def test_timm_answers_the_same(
    make: Callable[[Spec], Path], tmp_path: Path, name: str, channels: int
) -> None:
    run = make(variant(name).replace(in_channels=channels, depths=(1, 1, 1, 1)))
    done = export_weights(run, tmp_path / "for-timm", kind="timm")
    peer = timm.create_model(f"local-dir:{tmp_path / 'for-timm'}", pretrained=True).eval()
    x = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert largest(load_artifact(run).model(x), peer(x)) <= 1e-5
    assert list(peer.pretrained_cfg["label_names"]) == list(CLASSES)
    assert {path.name for path in (tmp_path / "for-timm").iterdir()} == {
        "config.json", "model.safetensors"
    }  # fmt: skip
    assert "secret" not in (tmp_path / "for-timm" / "config.json").read_text()
    assert done.bytes > 1_000_000


@pytest.mark.parametrize(
    "spec",
    [
        variant("resnet50_v1").replace(depths=(1, 1), widths=(8, 16)),
        variant("resnet8_cifar_a"),
        variant("resnet20_cifar_preact"),
        variant("plusx_small"),
        BASELINES["cnn"],
        timm_spec("timm:resnet10t"),
    ],
    ids=lambda spec: spec.name,
)
def test_one_file_states_all_that_it_is(
    make: Callable[[Spec], Path], tmp_path: Path, spec: Spec
) -> None:
    run = make(spec)
    export_weights(run, tmp_path / "one.safetensors", kind="safetensors")
    config = read_stated(tmp_path / "one.safetensors")
    assert config is not None
    described = describe(config, "one.safetensors")
    artifact = load_artifact(run)
    assert described.spec == artifact.spec  # v1 is v1, without guessing
    assert described.preprocessing == artifact.preprocessing
    assert described.classes == CLASSES
    assert "secret" not in json.dumps(config)
    import_weights(tmp_path / "one.safetensors", tmp_path / "back")  # no --model is needed
    returned = load_artifact(tmp_path / "back")
    assert returned.classes == CLASSES
    assert returned.preprocessing == artifact.preprocessing
    state = artifact.model.state_dict()
    assert all(torch.equal(state[k], v) for k, v in returned.model.state_dict().items())
    started = create_network(weights=str(tmp_path / "one.safetensors"), classes=2)
    assert started.model.spec == artifact.spec.replace(classes=2)
    again = load_file(tmp_path / "one.safetensors")
    kept = load_file(artifact.path / "model.safetensors")
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    ("spec", "kind", "said"),
    [
        (variant("resnet50_v1"), "torchvision", "bottleneck_stride='1x1' instead of '3x3' (v1 str"),
        (variant("resnet50_v1"), "timm", "nearest is resnet50, but bottleneck_stride='1x1'"),
        (cifar(8, "a"), "torchvision", "shortcut='zero-pad'"),
        (variant("plain_resnet18"), "timm", "shortcut='none' instead of 'conv'"),
        (variant("resnet18").replace(stem_pool="max-ceil"), "torchvision", "stem_pool='max-ceil'"),
        (variant("resnet18").replace(feature_stages=2), "timm", "feature_stages=2"),
        (variant("plusx_small"), "torchvision", "cannot represent plusx_small"),
        (variant("resnet18").replace(in_channels=4), "torchvision", "takes 3 channels there"),
        (variant("resnet18d"), "torchvision", "torchvision has no resnet18d; use --as timm or"),
        (
            BASELINES["cnn"],
            "torchvision",
            "torchvision has no simple convolutional network like cnn",
        ),
        (
            BASELINES["cnn"],
            "timm",
            "timm has no simple convolutional network like cnn; use --as sa",
        ),
        (timm_spec("timm:resnet10t"), "torchvision", "torchvision has no timm:resnet10t; use --as"),
        (
            timm_spec("timm:efficientnet_b0"),
            "torchvision",
            "has other layers than timm:effic",
        ),
    ],
)
def test_what_the_other_library_lacks_is_refused_by_name(
    make: Callable[[Spec], Path], tmp_path: Path, spec: Spec, kind: str, said: str
) -> None:
    out = tmp_path / ("out" if kind == "timm" else "out.pth")
    with pytest.raises(PlusxError) as caught:
        export_weights(make(spec), out, kind=kind)
    assert said in str(caught.value)
    assert "--as safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_nothing_is_overwritten_unasked(
    make: Callable[[Spec], Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    run = make(variant("resnet18"))
    (tmp_path / "mine.pth").write_text("precious")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.txt").write_text("precious")
    asked = ("export-weights", run, "--as")
    taken = command(*asked, "torchvision", "--out", tmp_path / "mine.pth")
    assert "exists already; give another name, or --overwrite" in taken.error
    taken = command(*asked, "timm", "--out", tmp_path / "docs", "--overwrite")
    assert "holds something else than an export" in taken.error
    assert (tmp_path / "docs" / "thesis.txt").read_text() == "precious"
    assert (
        "must end in .pth or .pt"
        in command(*asked, "torchvision", "--out", tmp_path / "x.bin").error
    )
    assert "--as 'onnx' is not one of" in command(*asked, "onnx", "--out", "x").error
    assert (
        "no model there"
        in command("export-weights", tmp_path / "docs", "--as", "timm", "--out", "x").error
    )
    said = command(*asked, "torchvision", "--out", tmp_path / "mine.pth", "--overwrite")
    assert (said.code, said.err) == (0, "")
    assert "in order: ant, bee, cat" in said.out
    assert len(torch.load(tmp_path / "mine.pth", weights_only=True)) > 100
    for _ in range(2):
        said = command(*asked, "timm", "--out", tmp_path / "t", "--overwrite", "--json")
        assert json.loads(said.out)["architecture"] == "resnet18"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_metadata_that_is_none(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_stated(tmp_path / "a.safetensors") is None
    for text in ("{oops", "[1]"):
        save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors", metadata={"plusx": text})
        with pytest.raises(PlusxError, match=r"b\.safetensors: its 'plusx' metadata is no JSON"):
            read_stated(tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"\0" * 20)
    with pytest.raises(PlusxError, match="truncated or not a safetensors"):
        read_stated(tmp_path / "c.safetensors")


def test_timm_reads_a_slimmed_net(make: Callable[[Spec], Path], tmp_path: Path) -> None:
    run = make(variant("resnet18").replace(name="slim", depths=(2, 1, 2, 1)))
    export_weights(run, tmp_path / "slim", kind="timm")
    peer = timm.create_model(f"local-dir:{tmp_path / 'slim'}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert largest(load_artifact(run).model(x), peer(x)) <= 1e-5
    with pytest.raises(PlusxError, match=r"depths=\(2, 1, 2, 1\) instead of \(2, 2, 2, 2\)"):
        export_weights(run, tmp_path / "slim.pth", kind="torchvision")
