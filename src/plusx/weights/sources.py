"""Where weights come from: ``--weights auto | bundled | none | FILE | HUB_ID``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from plusx.data.preprocessing import Preprocessing
from plusx.errors import ArtifactError, UsageError, WeightsError
from plusx.model import variant
from plusx.model.classifier import Spec
from plusx.weights.artifact import (
    CONFIG,
    WEIGHTS,
    Described,
    describe,
    find_artifact,
    read_config,
    verify_weights,
)
from plusx.weights.family_config import architecture
from plusx.weights.files import SUFFIXES
from plusx.weights.foreign import transformers
from plusx.weights.hub import download
from plusx.weights.metadata import read_stated
from plusx.weights.timm_net import TimmSpec
from plusx.weights.timm_spec import known_weights

# The best known ImageNet weights under a free licence (Apache-2.0; tv, tv2: BSD-3-Clause), by top-1
# at the size that they state and plusx takes: results/results-imagenet.csv of
# huggingface/pytorch-image-models. Ahead of some of them stand only weights that may not be used
# commercially (fb_wsl, fb_ssl, fb_swsl: CC-BY-NC).
AUTO = {
    "resnet18": "timm/resnet18.a1_in1k",  # 73.16 at 288, 71.50 at 224
    "resnet34": "timm/resnet34.ra4_e3600_r224_in1k",  # 78.97 at 288, 77.49 at 224
    "resnet50": "timm/resnet50.a1_in1k",  # 81.24 at 288, 80.38 at 224
    "resnet101": "timm/resnet101.a1h_in1k",  # 82.80 at 288, 81.95 at 224
    "resnet152": "timm/resnet152.a1h_in1k",  # 83.49 at 288, 82.82 at 224
    "resnet18d": "timm/resnet18d.ra4_e3600_r224_in1k",  # 76.01 at 288, 74.36 at 224
    "resnet34d": "timm/resnet34d.ra2_in1k",  # 78.44 at 288, 77.11 at 224
    "resnet50d": "timm/resnet50d.ra4_e3600_r224_in1k",  # 81.84 at 288, 80.96 at 224
    "resnet101d": "timm/resnet101d.ra2_in1k",  # 83.02 at 320, 82.25 at 256
    "resnet152d": "timm/resnet152d.ra2_in1k",  # 83.68 at 320, 83.16 at 256
    "resnet50c": "timm/resnet50c.gluon_in1k",  # 78.02 at 224
    "resnext50_32x4d": "timm/resnext50_32x4d.a1h_in1k",  # 82.02 at 288, 81.14 at 224
    "resnext101_32x8d": "timm/resnext101_32x8d.tv2_in1k",  # 82.83 at 224, 81.99 at 176
    "resnext101_64x4d": "timm/resnext101_64x4d.tv_in1k",  # 82.98 at 224
    "wide_resnet50_2": "timm/wide_resnet50_2.racm_in1k",  # 82.26 at 288, 81.47 at 224
    "wide_resnet101_2": "timm/wide_resnet101_2.tv2_in1k",  # 82.51 at 224, 80.49 at 176
    "seresnet50": "timm/seresnet50.ra2_in1k",  # 81.29 at 288, 80.26 at 224
    "seresnext50_32x4d": "timm/seresnext50_32x4d.racm_in1k",  # 82.19 at 288, 81.27 at 224
    "resnet50_gn": "timm/resnet50_gn.a1h_in1k",  # 81.22 at 288, 80.07 at 224
    "resnetblur50": "timm/resnetblur50.bt_in1k",  # 80.25 at 288, 79.31 at 224
    "ecaresnet50d": "timm/ecaresnet50d.miil_in1k",  # 81.65 at 288, 80.63 at 224
    "resnetv2_50": "timm/resnetv2_50.a1h_in1k",  # 81.41 at 288, 80.41 at 224
    "resnetv2_101": "timm/resnetv2_101.a1h_in1k",  # 83.00 at 288, 82.04 at 224
    # The only weights that timm has of VGG, and torchvision's own (BSD-3-Clause); all at 224.
    "vgg11": "timm/vgg11.tv_in1k",
    "vgg13": "timm/vgg13.tv_in1k",
    "vgg16": "timm/vgg16.tv_in1k",
    "vgg19": "timm/vgg19.tv_in1k",
    "vgg11_bn": "timm/vgg11_bn.tv_in1k",
    "vgg13_bn": "timm/vgg13_bn.tv_in1k",
    "vgg16_bn": "timm/vgg16_bn.tv_in1k",
    "vgg19_bn": "timm/vgg19_bn.tv_in1k",
}

BUNDLED = "plusx_small"
"""The variant whose weights come with plusx, for small images and offline use."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Source:
    """Weights on this disk, and what a config beside them says, if there is one."""

    path: Path
    origin: str
    described: Described | None
    notes: tuple[str, ...] = ()


def find_source(weights: str, spec: Spec) -> Source:
    """The weights that the user asked for, on this disk.

    Args:
        weights: ``auto``, ``bundled``, a file, a model or run folder, or a hub id.
        spec: the network that is asked for: ``auto`` depends on it, and what timm wrote is read
            as a network of timm's only for ``timm:NAME``.

    Raises:
        UsageError: ``weights`` is none of those.
        WeightsError: there are no known weights for that network, or they cannot be had.
        ArtifactError: a folder that holds no usable model.
    """
    if weights == "auto":
        weights, notes = auto_weights(spec)
        if isinstance(spec, TimmSpec):
            found = _hub(weights, spec)
            return replace(found, notes=notes + found.notes)
    if weights == "bundled":
        return _bundled()
    path = Path(weights).expanduser()
    if weights and path.is_dir():
        return _folder(path, spec)
    if path.is_file() or path.suffix in SUFFIXES:
        return _file(path, spec)
    if _HUB_ID.fullmatch(weights):
        return _hub(weights, spec)
    raise UsageError(
        f"--weights {weights!r} is neither auto, bundled, none, an existing file or folder, nor a "
        "hub id (OWNER/NAME or OWNER/NAME@REVISION)"
    )


def auto_weights(spec: Spec) -> tuple[str, tuple[str, ...]]:
    """What ``auto`` takes, ``bundled`` or a hub id, and what is to be said about it.

    Raises:
        WeightsError: there are no known weights for that network.
    """
    if isinstance(spec, TimmSpec):
        return known_weights(spec)
    if spec.name == BUNDLED:
        return "bundled", ()
    known = AUTO.get(architecture(spec))
    if known is None:
        raise WeightsError(
            f"--weights auto: no trained weights are known for {spec.name} (those that have some: "
            "plusx models --pretrained); give --weights FILE or HUB_ID, or --weights none to train "
            "from scratch"
        )
    return known, ()


def _bundled() -> Source:
    path = Path(__file__).parent / "bundled" / f"{BUNDLED}.safetensors"
    if not path.is_file():
        raise WeightsError(f"--weights bundled: {path} is missing; install plusx again")
    spec = variant(BUNDLED)
    preprocessing = Preprocessing.for_size(spec.image_size, spec.in_channels)
    return Source(path, f"bundled:{BUNDLED}", Described(spec, preprocessing, None))


def _hub(hub_id: str, asked: Spec) -> Source:
    got = download(hub_id)
    where = f"{hub_id}: config.json"
    notes = got.notes
    if transformers.is_config(got.config):
        described = transformers.describe(got.config, got.preprocessor, where)
        notes += transformers.missing(got.preprocessor, described, hub_id)
    else:
        described = describe(got.config, where, asked=asked)
    repo = hub_id.partition("@")[0]
    return Source(got.path, f"hub:{repo}@{got.commit}", described, notes)


def _folder(path: Path, asked: Spec) -> Source:
    folder = find_artifact(path) or path
    for name in (WEIGHTS, transformers.PICKLE):
        if (folder / name).is_file():
            return _file(folder / name, asked)
    raise ArtifactError(
        f"{path}: holds no model ({WEIGHTS} with {CONFIG}); give a run folder, the model folder "
        "in it, or a weights file"
    )


def _file(path: Path, asked: Spec) -> Source:
    """A weights file, with what a config.json beside it, or its own metadata, says."""
    config = path.parent / CONFIG
    if path.name in (WEIGHTS, transformers.PICKLE) and config.is_file():
        content = read_config(config)
        origin = "/".join(path.absolute().parts[-3:])
        if transformers.is_config(content):
            beside = path.parent / transformers.PREPROCESSOR
            settings = read_config(beside) if beside.is_file() else None
            described = transformers.describe(content, settings, config)
            notes = transformers.missing(settings, described, str(path.parent))
            return Source(path, f"file:{origin}", described, notes)
        if "plusx" in content:
            verify_weights(content, path)
        if "plusx" in content or "architecture" in content:
            return Source(path, f"file:{origin}", describe(content, config, asked=asked))
    if path.suffix == ".safetensors" and path.is_file():
        content = read_stated(path) or {}
        if content:
            return Source(path, f"file:{path.name}", describe(content, path, asked=asked))
    return Source(path, f"file:{path.name}", None)
