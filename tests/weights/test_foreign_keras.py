"""Keras' own ResNets beside plusx, file to logits, on its PyTorch backend."""

from __future__ import annotations

import io
import json
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx.data import read_image
from plusx.errors import MissingExtra, PlusxError, UsageError, WeightsError
from plusx.model import VARIANTS
from plusx.weights import Reading, create_network
from plusx.weights.foreign.h5 import read_keras

h5py = pytest.importorskip("h5py", reason="extra 'keras' absent")


@pytest.fixture(scope="module")
def keras() -> Iterator[Any]:
    """Keras, imported with PyTorch below it."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("KERAS_BACKEND", "torch")
        warnings.simplefilter("ignore")
        found = pytest.importorskip("keras", reason="extra 'dev' absent")
        assert found.backend.backend() == "torch"
        yield found


def trained(model: Any, seed: int = 0) -> Any:
    """Norms, biases and statistics as after training, all random."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            kind, shape = variable.name, variable.shape
            if kind in ("gamma", "moving_variance"):
                variable.assign(rng.random(shape) * 0.5 + 0.25)
            elif kind != "kernel":
                variable.assign(rng.normal(size=shape) * 0.1)
    return model


def build(keras: Any, version: int, size: int = 64, **options: Any) -> Any:
    """A small net from the very functions that Keras builds ResNet50 and ResNet50V2 of."""
    from keras.src.applications import resnet as parts

    stack = parts.stack_residual_blocks_v1 if version == 1 else parts.stack_residual_blocks_v2

    def stages(x: Any) -> Any:
        # v1 strides when it enters the second stage, V2 when it leaves the first.
        x = stack(x, 8, 2, name="conv2", stride1=1 if version == 1 else 2)
        return stack(x, 16, 3, name="conv3", stride1=2 if version == 1 else 1)

    settings = {"include_top": True, "classes": 5, "classifier_activation": None} | options
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    model = parts.ResNet(
        stages, version == 2, True, weights=None, input_shape=(size, size, 3), name="small",
        **settings
    )  # fmt: skip
    return trained(model)


def save(model: Any, folder: Path, kind: str) -> Path:
    path = folder / f"w{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(path) if kind == ".weights.h5" else model.save(path)
    return path


@pytest.fixture(scope="module")
def photo(shared_data: Path) -> Path:
    return min((shared_data / "data" / "hymenoptera").rglob("*.jpg"))


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


KINDS = (".keras", ".h5", ".weights.h5")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_v1_from_a_photograph_to_logits(keras: Any, kind: str, photo: Path, tmp_path: Path) -> None:
    """On equal pixels within 1e-5; from the file, Pillow's rounding to bytes adds some 0.1%."""
    size = 224 if kind == ".weights.h5" else 64  # which weights alone do not state
    model = build(keras, 1, size)
    got = create_network(weights=str(save(model, tmp_path, kind)))
    assert (got.model.spec.bottleneck_stride, got.preprocessing.size) == ("1x1", size)
    pixels = np.array(keras.utils.load_img(photo, target_size=(size, size),
                                           interpolation="bilinear"))  # fmt: skip
    ready = keras.applications.resnet.preprocess_input(pixels[None].astype("float32"))
    theirs = model(ready).cpu()
    net = got.model.eval()
    same = net(got.preprocessing(torch.from_numpy(pixels))[None])
    assert relative(same, theirs) < 1e-5
    whole = net(got.preprocessing(torch.from_numpy(read_image(photo)))[None])
    assert relative(whole, theirs) < 4e-3


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_v2_from_a_photograph_to_logits(keras: Any, kind: str, photo: Path, tmp_path: Path) -> None:
    size = 224 if kind == ".weights.h5" else 64
    model = build(keras, 2, size)
    spec = VARIANTS["resnet50v2_keras"].replace(name="small", depths=(2, 3), widths=(8, 16))
    got = create_network(spec, weights=str(save(model, tmp_path, kind)))
    pixels = np.array(keras.utils.load_img(photo, target_size=(size, size),
                                           interpolation="bilinear"))  # fmt: skip
    ready = keras.applications.resnet_v2.preprocess_input(pixels[None].astype("float32"))
    theirs = model(ready).cpu()
    net = got.model.eval()
    same = net(got.preprocessing(torch.from_numpy(pixels))[None])
    assert relative(same, theirs) < 1e-5
    whole = net(got.preprocessing(torch.from_numpy(read_image(photo)))[None])
    assert relative(whole, theirs) < 4e-3


@pytest.mark.parametrize(
    ("application", "name"),
    [("ResNet50", "resnet50_v1"), ("ResNet50V2", "resnet50v2_keras")],
)
@torch.no_grad()
def test_applications_are_told_by_their_shapes(
    keras: Any, application: str, name: str, tmp_path: Path
) -> None:
    make = getattr(keras.applications, application)
    model = trained(make(weights=None, classes=7, classifier_activation=None))
    got = create_network(weights=str(save(model, tmp_path, ".weights.h5")))
    assert (got.model.spec.name, got.model.spec.classes) == (name, 7)
    ready = keras.applications.resnet
    if name.endswith("v2_keras"):
        ready = keras.applications.resnet_v2
    x = torch.randint(256, (1, 224, 224, 3), generator=torch.Generator().manual_seed(0))
    theirs = model(ready.preprocess_input(x.float().numpy())).cpu()
    mine = got.preprocessing(x[0].to(torch.uint8))[None]
    assert relative(got.model.eval()(mine), theirs) < 1e-5


def test_it_declares_its_stride(keras: Any, tmp_path: Path) -> None:
    path = str(save(build(keras, 1), tmp_path, ".keras"))
    with pytest.raises(UsageError, match="--stride 3x3"):
        create_network(weights=path, reading=Reading(stride="3x3"))
    with pytest.raises(UsageError, match="--pixels"):
        create_network(weights=path, reading=Reading(pixels="imagenet"))
    with pytest.raises(UsageError, match="is a Keras file"):
        create_network(weights=path, reading=Reading(layout="moco"))
    spec = create_network(weights=path).model.spec
    with pytest.raises(WeightsError, match="leave --model out"):
        create_network(spec.replace(bottleneck_stride="3x3"), weights=path)
    assert create_network(spec, weights=path).model.spec == spec


@pytest.mark.parametrize("pooling", [None, "avg"])
@torch.no_grad()
def test_without_a_top(keras: Any, pooling: str | None, tmp_path: Path) -> None:
    model = build(keras, 1, include_top=False, pooling=pooling)
    got = create_network(weights=str(save(model, tmp_path, ".weights.h5")))
    assert not got.has_head
    x = torch.randn(1, 64, 64, 3)
    theirs = model(x.numpy()).cpu()
    theirs = theirs if pooling else theirs.mean((1, 2))
    mine = got.model.eval().features(x.permute(0, 3, 1, 2).flip(1))
    # The input as it is: no preprocessing, but RGB where Keras' own preprocessing gives BGR.
    assert relative(mine, theirs) < 1e-5


@pytest.mark.parametrize("kind", [".keras", ".h5"])
@torch.no_grad()
def test_a_net_inside_a_net_with_a_head_of_its_own(keras: Any, kind: str, tmp_path: Path) -> None:
    inner = build(keras, 1, include_top=False, pooling="avg")
    image = keras.Input((64, 64, 3))
    head = keras.layers.Dense(4, name="birds")
    outer = keras.Model(image, head(keras.layers.Dropout(0.3)(inner(image))))
    trained(outer)
    got = create_network(weights=str(save(outer, tmp_path, kind)))
    assert got.model.spec.classes == 4
    x = torch.randn(1, 64, 64, 3)
    mine = got.model.eval()(x.permute(0, 3, 1, 2).flip(1))
    assert relative(mine, outer(x.numpy()).cpu()) < 1e-5


def test_the_epsilon_of_the_file_counts(keras: Any, tmp_path: Path) -> None:
    path = save(build(keras, 1), tmp_path, ".keras")
    plain = create_network(weights=str(path)).model.stem.norm.running_var

    def coarser(config: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(config).replace("1.001e-05", "0.001"))

    other = create_network(weights=str(rewrite(path, coarser))).model.stem.norm.running_var
    torch.testing.assert_close(other - plain, torch.full_like(plain, 0.001 - 1.001e-5))


def rewrite(path: Path, change: Callable[[Any], Any]) -> Path:
    """A .keras file with another config.json."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in parts.items():
            new.writestr(name, content)
    return path


@torch.no_grad()
def test_files_that_do_not_name_their_layers(keras: Any, tmp_path: Path) -> None:
    """Older versions of Keras 3: the order of config.json tells; weights alone are refused."""
    model = build(keras, 1)
    bare, whole = (save(model, tmp_path, kind) for kind in (".weights.h5", ".keras"))

    def nameless(file: Any) -> None:
        for group in file["layers"].values():
            group["vars"].attrs.clear()

    with h5py.File(bare, "a") as file:
        nameless(file)
    with pytest.raises(WeightsError, match="does not name its layers"):
        create_network(weights=str(bare))
    with zipfile.ZipFile(whole) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    content = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(content, "a") as file:
        nameless(file)
    with zipfile.ZipFile(whole, "w") as new:
        for name, part in (parts | {"model.weights.h5": content.getvalue()}).items():
            new.writestr(name, part)
    got = create_network(weights=str(whole)).model.eval()
    x = torch.randn(1, 64, 64, 3)
    assert relative(got(x.permute(0, 3, 1, 2).flip(1)), model(x.numpy()).cpu()) < 1e-5


def test_other_architectures_are_refused(keras: Any, tmp_path: Path) -> None:
    model = keras.applications.MobileNet(weights=None, alpha=0.25, classes=2)
    path = save(model, tmp_path, ".weights.h5")
    with pytest.raises(WeightsError, match="not a ResNet of Keras applications"):
        create_network(weights=str(path))


def test_without_h5py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"pip install 'plusx\[keras\]'"):
        create_network(weights=str(tmp_path / "w.h5"))


# Files that want to do harm, and damaged ones.


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """As Keras names things, with h5py alone: a stem and nothing else."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["conv1_conv/conv1_conv/kernel"] = np.ones((7, 7, 3, 4), "float32")
        file["conv1_bn/conv1_bn/gamma"] = np.ones(4, "float32")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PlusxError) as caught:
        create_network(weights=str(path))
    said = str(caught.value)
    assert path.name in said
    assert "\n" not in said
    return said


def test_a_sound_file_is_read(sound: Path) -> None:
    assert set(read_keras(sound).tensors) == {"conv1_conv/kernel", "conv1_bn/gamma"}


def test_links_are_not_followed(sound: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["kernel"] = np.zeros(4)
    links = {"ExternalLink": h5py.ExternalLink("secret.h5", "kernel"),
             "SoftLink": h5py.SoftLink("/conv1_bn/conv1_bn/gamma")}  # fmt: skip
    for kind, link in links.items():
        with h5py.File(sound, "a") as file:
            file["conv1_bn/conv1_bn/beta"] = link
        assert f"conv1_bn/conv1_bn/beta is a link ({kind})" in refusal(sound)
        with h5py.File(sound, "a") as file:
            del file["conv1_bn/conv1_bn/beta"]


@pytest.mark.parametrize("kind", ["external", "virtual"])
def test_data_elsewhere_is_not_read(sound: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "passwd").write_bytes(b"\0" * 16)
    with h5py.File(sound, "a") as file:
        if kind == "external":
            file.create_dataset("a/b", (4,), "float32", external=str(tmp_path / "passwd"))
        else:
            layout = h5py.VirtualLayout((4,), "float32")
            layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
            file.create_virtual_dataset("a/b", layout)
    assert "a/b has its data elsewhere" in refusal(sound)


def test_a_group_inside_itself(sound: Path) -> None:
    with h5py.File(sound, "a") as file:
        file["again/and"] = file.create_group("again")
    assert "more groups than any model" in refusal(sound)


def test_a_model_weights_group_that_is_a_link(sound: Path) -> None:
    with h5py.File(sound, "a") as file:
        file["model_weights"] = h5py.ExternalLink("secret.h5", "/")
    assert "model_weights is a link (ExternalLink)" in refusal(sound)


def test_tensors_that_claim_far_more_than_the_file_holds(sound: Path) -> None:
    with h5py.File(sound, "a") as file:
        file.create_dataset("big/kernel", (1 << 20, 1 << 15), "float32", chunks=(64, 64))
    assert "claim more than" in refusal(sound)


@pytest.mark.parametrize("dtype", ["int32", "S8", "complex64"])
def test_strange_types(sound: Path, dtype: str) -> None:
    with h5py.File(sound, "a") as file:
        file["conv1_bn/conv1_bn/beta"] = np.zeros(4, dtype)
    assert "conv1_bn/conv1_bn/beta has" in refusal(sound)


def test_two_layers_of_one_name(sound: Path) -> None:
    with h5py.File(sound, "a") as file:
        file["other/conv1_bn/gamma"] = np.ones(4, "float32")
    assert "two layers are called 'conv1_bn'" in refusal(sound)


def test_nan_is_named(keras: Any, tmp_path: Path) -> None:
    model = build(keras, 1)
    kernel = model.get_layer("conv2_block1_1_conv").kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    path = save(model, tmp_path, ".h5")
    assert "stages.0.0.residual.conv1.weight" in refusal(path)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(keras: Any, kind: str, tmp_path: Path) -> None:
    path = save(build(keras, 1), tmp_path, kind)
    content = path.read_bytes()
    for part in (0.01, 0.5, 0.97):
        path.write_bytes(content[: int(len(content) * part)])
        assert "is truncated or not a" in refusal(path)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_no_such_thing(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    path.touch()
    assert "is empty" in refusal(path)
    path.write_bytes(b"hello" * 100)
    assert "is truncated or not a" in refusal(path)
    path.unlink()
    assert "no such file" in refusal(path)


def zipped(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (("../../evil", b"x"), "holds the path '../../evil'"),
        (("/etc/evil", b"x"), "holds the path '/etc/evil'"),
        (("a\\..\\..\\evil", b"x"), "holds the path"),
        (("config.json", b"{}"), "holds 'config.json' twice"),
        (("bomb", b"\0" * (1 << 27)), "bomb would unpack"),
    ],
    ids=["up", "root", "backslash", "twice", "bomb"],
)
def test_zips_that_play_tricks(
    sound: Path, tmp_path: Path, extra: tuple[str, bytes], said: str
) -> None:
    members = [("config.json", b"{}"), ("model.weights.h5", sound.read_bytes()), extra]
    path = zipped(tmp_path / "w.keras", members)
    assert said in refusal(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.h5", "w.keras"]


def test_a_zip_without_weights(tmp_path: Path) -> None:
    assert "has no model.weights.h5" in refusal(
        zipped(tmp_path / "w.keras", [("config.json", b"{}")])
    )


def test_a_config_that_is_no_config(sound: Path, tmp_path: Path) -> None:
    for content in (b"[1, 2]", b'{"config": 3}', b'{"config": {"layers": [1, null, []]}}'):
        members = [("config.json", content), ("model.weights.h5", sound.read_bytes())]
        assert "no network that plusx" in refusal(zipped(tmp_path / "w.keras", members))
    members[0] = ("config.json", b"{")
    assert "is truncated or not a .keras file" in refusal(zipped(tmp_path / "w.keras", members))
