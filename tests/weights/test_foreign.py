"""Checkpoints of detectors and of self-supervised training, and what no file can say by itself."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from plusx.errors import UsageError, WeightsError, WeightsMismatch
from plusx.model import ResNet, ResNetSpec
from plusx.weights import Network, Reading, create_network
from plusx.weights.foreign import detectron2, keras, selfsupervised, transformers
from plusx.weights.foreign.table import Layout, to_foreign, to_internal
from plusx.weights.foreign.tongues import LAYOUTS, NAMES
from plusx.weights.load import disk_state

TINY = ResNetSpec("tiny", "bottleneck", (2, 2, 1, 1), (4, 8, 8, 8), stem_width=8, classes=5)
"""Its own number of blocks in each stage, so that no stage can stand for another."""

State = dict[str, Tensor]


@pytest.fixture
def net(randomise: Callable[..., Any]) -> ResNet:
    torch.manual_seed(3)
    return randomise(ResNet(TINY))


def picture() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def bare(net: ResNet) -> State:
    """Torchvision's names, without the head."""
    return {name: value for name, value in disk_state(net).items() if not name.startswith("fc.")}


def detectron(state: State) -> State:
    """As tools/convert-torchvision-to-d2.py of detectron2 renames it."""
    renamed = {}
    for key, value in state.items():
        if "num_batches_tracked" in key:
            continue
        if "layer" not in key:
            key = "stem." + key
        for t in (1, 2, 3, 4):
            key = key.replace(f"layer{t}", f"res{t + 1}")
        for t in (1, 2, 3):
            key = key.replace(f"bn{t}", f"conv{t}.norm")
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        renamed[key] = value
    return renamed


def below(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def bring(tmp_path: Path, content: Any, **options: Any) -> Network:
    torch.save(content, tmp_path / "w.pth")
    model = options.pop("model", None)
    return create_network(model, weights=str(tmp_path / "w.pth"), reading=Reading(**options))


def assert_same_features(one: ResNet, other: ResNet) -> None:
    with torch.no_grad():
        mine, theirs = one.eval().features(picture()), other.eval().features(picture())
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


STEM = ["stem.conv", "stem.norm"]
BLOCKS = [
    f"stages.{s}.{b}.{part}"
    for s in range(4)
    for b in range(12)
    for part in ("residual.conv1", "residual.conv3", "residual.norm2",
                 "shortcut.conv", "shortcut.norm")
]  # fmt: skip


@pytest.mark.parametrize(
    "layout",
    [transformers.LAYOUT, detectron2.LAYOUT, keras.LAYOUT, selfsupervised.LAYOUT],
    ids=lambda layout: layout.name,
)
def test_tables_are_one_to_one(layout: Layout) -> None:
    there = {module: to_foreign(module, layout.table) for module in STEM + BLOCKS}
    assert None not in there.values()
    assert len(set(there.values())) == len(there)
    for module, name in there.items():
        assert to_internal(str(name), layout.table) == module


def test_every_layout_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES) == len(LAYOUTS) + 3


PROJECTION = {"0.weight": torch.ones(4, 32), "2.weight": torch.ones(4, 4)}
MOCO = {"queue": torch.ones(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.int64)}


def moco(state: State) -> State:
    twins = below("encoder_q.", state) | below("encoder_k.", {k: v + 1 for k, v in state.items()})
    heads = below("encoder_q.fc.", PROJECTION) | below("encoder_k.fc.", PROJECTION)
    return below("module.", twins | heads | MOCO)


def moco_v3(state: State) -> State:
    twins = below("base_encoder.", state) | below("momentum_encoder.", state)
    return below("module.", twins | below("base_encoder.fc.", PROJECTION)
                 | below("predictor.", PROJECTION))  # fmt: skip


def dino(state: State) -> dict[str, Any]:
    head = {"head.mlp.0.weight": torch.ones(2, 2), "head.last_layer.weight_v": torch.ones(2, 2)}
    student = {key: value + 1 for key, value in (below("backbone.", state) | head).items()}
    return {
        "student": below("module.", student),
        "teacher": below("backbone.", state) | head,
        "args": argparse.Namespace(arch="resnet50", epochs=800),
        "epoch": 800,
    }


def sequential(state: State) -> State:
    """nn.Sequential(*list(resnet.children())[:-1]), as lightly's examples have it."""
    order = {"conv1": "0", "bn1": "1"} | {f"layer{n}": str(n + 3) for n in (1, 2, 3, 4)}
    named = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        named[f"{order[first]}.{rest}"] = value
    return below("backbone.", named) | below("projection_head.layers.", PROJECTION)


FILES: dict[str, tuple[Callable[[State], Any], str, int]] = {
    "moco": (moco, "moco", 0),
    "moco v3": (moco_v3, "moco", 0),
    "dino": (dino, "dino", 2),
    "lightly": (sequential, "selfsupervised", 2),
    "simclr": (
        lambda s: {"state_dict": below("encoder.", s) | below("projector.", PROJECTION)},
        "selfsupervised",
        2,
    ),
    "byol": (
        lambda s: (
            below("online_encoder.net.", s)
            | below("online_encoder.projector.net.", PROJECTION)
            | below("target_encoder.net.", s)
            | below("online_predictor.net.", PROJECTION)
        ),
        "selfsupervised",
        0,
    ),
    "lightning": (
        lambda s: {"state_dict": below("model.", below("backbone.", s))},
        "selfsupervised",
        0,
    ),
    "detr": (
        lambda s: {
            "model": below("backbone.0.body.", s) | {"transformer.x.weight": torch.ones(2)},
            "args": argparse.Namespace(lr=1.0),
        },
        "torchvision-detection",
        1,
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_self_supervised_backbones(kind: str, net: ResNet, tmp_path: Path) -> None:
    make, layout, count = FILES[kind]
    got = bring(tmp_path, make(bare(net)), model=TINY)
    assert_same_features(got.model, net)
    assert not got.has_head
    notes = "; ".join(got.notes)
    assert "holds no head; a fresh, untrained one" in notes
    assert layout in notes
    if count:
        assert f"left out {count} entries" in notes


def test_the_network_is_told_by_its_shapes(tmp_path: Path) -> None:
    state = below("encoder_q.", resnet18().state_dict())
    got = bring(tmp_path, {k: v for k, v in state.items() if ".fc." not in k})
    assert got.model.spec.name == "resnet18"
    assert got.preprocessing.size == 224


@pytest.mark.parametrize("stride", ["1x1", "3x3"])
def test_detectron2(net: ResNet, tmp_path: Path, stride: Any) -> None:
    spec = TINY.replace(bottleneck_stride=stride)
    twin = ResNet(spec)
    twin.load_state_dict(net.state_dict())
    state = below("backbone.bottom_up.", detectron(bare(net)))
    state |= {"backbone.fpn_lateral2.weight": torch.ones(2), "proposal_generator.a": torch.ones(1),
              "roi_heads.box_head.fc1.weight": torch.ones(2)}  # fmt: skip
    got = bring(tmp_path, {"model": state, "iteration": 9}, stride=stride, pixels="imagenet")
    assert got.model.spec.bottleneck_stride == stride
    assert_same_features(got.model, twin)
    assert "left out 3 entries" in "; ".join(got.notes)


def test_detectron2_without_a_pyramid_keeps_its_last_stage_in_the_head(
    net: ResNet, tmp_path: Path
) -> None:
    state = {
        key.replace("backbone.res5", "roi_heads.res5"): value
        for key, value in below("backbone.", detectron(bare(net))).items()
    }
    got = bring(tmp_path, {"model": state}, model=TINY, pixels="imagenet")
    assert_same_features(got.model, net)


def test_bgr_pixels(net: ResNet, tmp_path: Path) -> None:
    """The same answer from RGB as the original gives from BGR, mean taken off, not scaled."""
    state = below("backbone.bottom_up.", detectron(bare(net)))
    got = bring(tmp_path, state, model=TINY, pixels="caffe-bgr")
    image = torch.randint(256, (224, 224, 3), generator=torch.Generator().manual_seed(0))
    image = image.to(torch.uint8)
    preprocessing = got.preprocessing
    assert (preprocessing.size, preprocessing.resize) == (224, 256)
    mine = preprocessing.normalise(image.permute(2, 0, 1).float() / 255)[None]
    theirs = image.float().permute(2, 0, 1).flip(0)
    theirs = (theirs - torch.tensor([103.53, 116.28, 123.675])[:, None, None])[None]
    with torch.no_grad():
        a, b = got.model.eval().features(mine), net.features(theirs)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_a_mean_in_the_file_declares_the_pixels(net: ResNet, tmp_path: Path) -> None:
    state = below("backbone.bottom_up.", detectron(bare(net)))
    state["pixel_mean"] = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    got = bring(tmp_path, state, model=TINY)
    assert got.preprocessing.std == (1 / 255,) * 3
    with pytest.raises(UsageError, match="states caffe-bgr by its pixel_mean"):
        bring(tmp_path, state, model=TINY, pixels="imagenet")


def test_torchvisions_detector(randomise: Callable[..., Any], tmp_path: Path) -> None:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    detector = FasterRCNN(backbone, num_classes=2).eval()
    randomise(detector)
    got = bring(tmp_path, detector.state_dict())
    assert got.model.spec.name == "resnet18"
    with torch.no_grad():
        theirs = detector.backbone.body(picture())["3"].mean((2, 3))
        mine = got.model.eval().features(picture())
    assert theirs.abs().max() > 1e-3
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_torchvisions_segmenter(net: ResNet, tmp_path: Path) -> None:
    state = below("backbone.", bare(net)) | {"classifier.0.weight": torch.ones(2),
                                             "aux_classifier.4.bias": torch.ones(2)}  # fmt: skip
    got = bring(tmp_path, state, model=TINY)
    assert_same_features(got.model, net)
    assert "read as torchvision-detection; left out 2 entries" in "; ".join(got.notes)


def test_mmdetection_asks_for_both(net: ResNet, tmp_path: Path) -> None:
    state = below("backbone.", bare(net)) | {"neck.a.weight": torch.ones(1)}
    with pytest.raises(UsageError, match=r"state it by --stride 1x1\|3x3, or by --model"):
        bring(tmp_path, {"state_dict": state})
    with pytest.raises(UsageError, match=r"--pixels imagenet\|caffe-bgr"):
        bring(tmp_path, {"state_dict": state}, stride="3x3")
    got = bring(tmp_path, {"state_dict": state}, stride="3x3", pixels="imagenet")
    assert_same_features(got.model, net)


def test_a_stride_is_never_guessed_nor_contradicted(net: ResNet, tmp_path: Path) -> None:
    two = below("backbone.bottom_up.", detectron(bare(net)))
    with pytest.raises(UsageError, match=r"exist as v1 .* the file does not say"):
        bring(tmp_path, two, pixels="imagenet")
    with pytest.raises(UsageError, match="tiny strides the 3x3"):
        bring(tmp_path, two, pixels="imagenet", stride="1x1", model=TINY)
    with pytest.raises(UsageError, match="moco weights stride the 3x3, not the 1x1"):
        bring(tmp_path, below("encoder_q.", bare(net)), stride="1x1")
    with pytest.raises(UsageError, match="made for imagenet"):
        bring(tmp_path, below("encoder_q.", bare(net)), pixels="caffe-bgr")


def test_torchvisions_names_with_a_stated_stride(net: ResNet, tmp_path: Path) -> None:
    twin = ResNet(TINY.replace(bottleneck_stride="1x1"))
    twin.load_state_dict(net.state_dict())
    got = bring(tmp_path, disk_state(net), stride="1x1", pixels="imagenet")
    assert got.model.spec.bottleneck_stride == "1x1"
    assert_same_features(got.model, twin)
    with torch.no_grad():
        assert torch.equal(got.model.eval()(picture()), twin.eval()(picture()))


def test_torchvisions_names_without_a_head(net: ResNet, tmp_path: Path) -> None:
    got = bring(tmp_path, bare(net), model=TINY)
    assert_same_features(got.model, net)
    assert not got.has_head
    assert "holds no head" in "; ".join(got.notes)


def test_averaged_models_of_torch(net: ResNet, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net)
    got = bring(tmp_path, averaged.state_dict(), model=TINY)
    assert_same_features(got.model, net)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"layout": "caffe"}, "--layout 'caffe'"), ({"stride": "2x2"}, "--stride '2x2'"),
     ({"pixels": "bgr"}, "--pixels 'bgr'")],
)  # fmt: skip
def test_unknown_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Reading(**options)


def refusal(tmp_path: Path, content: Any, **options: Any) -> str:
    with pytest.raises((WeightsError, UsageError)) as caught:
        bring(tmp_path, content, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parts_that_no_table_declares_are_refused(net: ResNet, tmp_path: Path) -> None:
    state = below("encoder_q.", bare(net)) | {"encoder_q.layer1.0.se.weight": torch.ones(1)}
    said = refusal(tmp_path, state, model=TINY)
    assert "read as moco, 1 entries are unknown: encoder_q.layer1.0.se.weight" in said


def test_nan_in_a_backbone_is_named_and_elsewhere_does_not_matter(
    net: ResNet, tmp_path: Path
) -> None:
    state = moco(bare(net))
    state["module.queue"][0, 0] = float("nan")
    bring(tmp_path, state, model=TINY)
    state["module.encoder_q.conv1.weight"] = state["module.encoder_q.conv1.weight"] * float("inf")
    assert "stem.conv.weight" in refusal(tmp_path, state, model=TINY)


def test_two_entries_for_one_parameter(net: ResNet, tmp_path: Path) -> None:
    state = detectron(disk_state(net)) | {"linear.weight": torch.ones(5, 32)}
    assert "two entries mean head.fc.weight" in refusal(
        tmp_path, below("backbone.", state), stride="3x3", pixels="imagenet"
    )


def test_a_head_of_no_classes(net: ResNet, tmp_path: Path) -> None:
    state = detectron(disk_state(net))
    state |= {"stem.fc.weight": torch.ones(0, 32), "stem.fc.bias": torch.ones(0)}
    assert "at least 1 class" in refusal(tmp_path, state, stride="3x3", pixels="imagenet")


def test_another_architecture_is_named(tmp_path: Path) -> None:
    state = below(
        "encoder_q.", {k: v for k, v in resnet18().state_dict().items() if k[:3] != "fc."}
    )
    with pytest.raises(WeightsMismatch, match="look like resnet18 weights"):
        bring(tmp_path, state, model="resnet34")


def test_shapes_of_no_network(net: ResNet, tmp_path: Path) -> None:
    state = below("encoder_q.", {k: v for k, v in bare(net).items() if not k.startswith("layer")})
    assert "of no network that plusx knows" in refusal(tmp_path, state)


def test_a_pickle_of_arrays_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "R-50.pkl").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(WeightsError, match="would run code that it names") as caught:
        create_network(weights=str(tmp_path / "R-50.pkl"))
    assert "torch.save(" in str(caught.value)
