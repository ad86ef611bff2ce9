"""Hugging Face ``transformers``: ``ResNetForImageClassification`` with its two configs.

Sources: ``models/resnet/modeling_resnet.py``, ``configuration_resnet.py`` and
``models/convnext/image_processing_convnext.py`` of https://github.com/huggingface/transformers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plusx.data.preprocessing import Interpolation, Preprocessing
from plusx.errors import ArtifactError, PlusxError, WeightsError
from plusx.model import VARIANTS, ResNetSpec
from plusx.weights.artifact import Described
from plusx.weights.foreign.table import Layout

PREPROCESSOR, PICKLE = "preprocessor_config.json", "pytorch_model.bin"
"""Beside config.json; the pickle of older entries is read where there is no safetensors."""

LAYOUT = Layout(
    name="transformers",
    marks=(r"(resnet\.)?embedder\.embedder\.convolution\.",),
    prefixes=("resnet.", ""),
    table=(
        ("stem.conv", "embedder.embedder.convolution"),
        ("stem.norm", "embedder.embedder.normalization"),
        (
            "stages.{S}.{B}.residual.conv{K}",
            "encoder.stages.{S}.layers.{B}.layer.{K-1}.convolution",
        ),
        (
            "stages.{S}.{B}.residual.norm{K}",
            "encoder.stages.{S}.layers.{B}.layer.{K-1}.normalization",
        ),
        ("stages.{S}.{B}.shortcut.conv", "encoder.stages.{S}.layers.{B}.shortcut.convolution"),
        ("stages.{S}.{B}.shortcut.norm", "encoder.stages.{S}.layers.{B}.shortcut.normalization"),
    ),
    outside=(("head.fc", "classifier.1"),),
    pixels="imagenet",
)

_RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for its filters."""

_NO_CROP = 384
"""From this size on, ConvNextImageProcessor squeezes both sides instead of cropping."""


def is_config(config: Mapping[str, Any]) -> bool:
    """Whether a config.json was written by transformers (and not by timm or plusx)."""
    return "model_type" in config and "architecture" not in config and "plusx" not in config


def describe(
    config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, where: Path | str
) -> Described:
    """Spec, preprocessing and classes from config.json and preprocessor_config.json.

    Without the second, ImageNet's usual preprocessing is taken.

    Raises:
        WeightsError: another kind of network, or one that plusx does not build.
        ArtifactError: values that cannot be.
    """
    try:
        spec = _spec(config, where)
        preprocessing = Preprocessing.for_size(spec.image_size, spec.in_channels)
        if preprocessor is not None:
            preprocessing = _preprocessing(preprocessor, spec.in_channels, where)
            spec = spec.replace(image_size=preprocessing.size)
        return Described(spec, preprocessing, _classes(config, spec.classes, where))
    except (WeightsError, ArtifactError):
        raise
    except (PlusxError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{where}: {type(error).__name__}: {error}") from error


def missing(
    preprocessor: Mapping[str, Any] | None, described: Described, where: str
) -> tuple[str, ...]:
    """A note where there is no preprocessor_config.json."""
    if preprocessor is not None:
        return ()
    used = described.preprocessing
    return (
        f"{where}: no {PREPROCESSOR} is to be had; used short side {used.resize}, crop "
        f"{used.size}, {used.interpolation}, ImageNet's mean and std",
    )


def _spec(config: Mapping[str, Any], where: Path | str) -> ResNetSpec:
    kind = config["model_type"]
    if kind != "resnet":
        raise WeightsError(f"{where}: model_type {kind!r} is not resnet, the one plusx reads")
    wanted = {"hidden_act": "relu", "downsample_in_first_stage": False}
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise WeightsError(
                f"{where}: {key} is {config[key]!r}; plusx builds only {value!r}, so these weights "
                "would give other answers"
            )
    problem = config.get("problem_type")
    if problem not in (None, "single_label_classification"):
        raise WeightsError(f"{where}: problem_type {problem!r} is not single_label_classification")
    bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
    sizes = list(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    if bottleneck and any(size % 4 for size in sizes):
        raise WeightsError(f"{where}: hidden_sizes {sizes} of bottlenecks must be multiples of 4")
    classes = _count(config)
    if classes < 1:
        raise WeightsError(f"{where}: states 0 classes (id2label); a head needs at least 1")
    depths = tuple(config.get("depths", (3, 4, 6, 3)))
    spec = ResNetSpec(
        name=f"resnet{sum(depths) * (3 if bottleneck else 2) + 2}_transformers",
        block="bottleneck" if bottleneck else "basic",
        depths=depths,
        widths=tuple(size // 4 if bottleneck else size for size in sizes),
        stem_width=config.get("embedding_size", 64),
        bottleneck_stride="1x1" if config.get("downsample_in_bottleneck", False) else "3x3",
        in_channels=config.get("num_channels", 3),
        classes=classes,
    )
    return named(spec)


def named(spec: ResNetSpec) -> ResNetSpec:
    """The spec under the name of the variant that it is, if it is one."""
    for name, known in VARIANTS.items():
        free = {key: getattr(known, key) for key in ("classes", "in_channels", "image_size")}
        if spec.replace(name=name, **free) == known:
            return spec.replace(name=name)
    return spec


def _count(config: Mapping[str, Any]) -> int:
    labels = config.get("id2label")
    # transformers writes no labels where they are the default two, LABEL_0 and LABEL_1.
    return len(labels) if isinstance(labels, dict) else int(config.get("num_labels", 2))


def _classes(config: Mapping[str, Any], count: int, where: Path | str) -> tuple[str, ...] | None:
    labels = config.get("id2label")
    if not isinstance(labels, dict):
        return None
    names = {int(key): str(value) for key, value in labels.items()}
    if sorted(names) != list(range(count)):
        raise ArtifactError(f"{where}: id2label does not number its {count} classes from 0")
    if all(name == f"LABEL_{number}" for number, name in names.items()):
        return None
    # ImageNet has two classes called "crane"; in an artifact each name is one class.
    times = Counter(names.values())
    return tuple(names[i] if times[names[i]] == 1 else f"{names[i]} ({i})" for i in range(count))


def _preprocessing(settings: Mapping[str, Any], channels: int, where: Path | str) -> Preprocessing:
    """ConvNextImageProcessor: below 384 pixels the short side becomes ``int(size / crop_pct)`` and
    the centre is cropped, from there on both sides are squeezed. Missing keys have the defaults of
    the class. Its crop lies at ``int((side - size) / 2)`` where plusx rounds halves to even: a
    pixel further where that is odd and a half, for 5 of 60 photographs.
    """
    kind = settings.get("image_processor_type") or settings.get("feature_extractor_type")
    known = ("ConvNextImageProcessor", "ConvNextFeatureExtractor")
    if not isinstance(kind, str) or not kind.startswith(known):
        raise WeightsError(f"{where}: image processor {kind!r} is not one plusx reads ({known[0]})")
    for key, wanted in (("do_resize", True), ("do_rescale", True), ("do_center_crop", False)):
        if (settings.get(key) if settings.get(key) is not None else wanted) is not wanted:
            raise WeightsError(f"{where}: {key} is {settings[key]!r}; plusx reads only {wanted}")
    factor = settings.get("rescale_factor") or 1 / 255
    if abs(float(factor) * 255 - 1) > 1e-6:
        raise WeightsError(f"{where}: rescale_factor {factor!r} is not 1/255, the one plusx reads")
    resample = settings.get("resample", 3)
    if resample not in _RESAMPLE:
        raise WeightsError(
            f"{where}: resample {resample!r} is not 2 (bilinear) or 3 (bicubic), which plusx has"
        )
    said = settings.get("size", {"shortest_edge": _NO_CROP})
    size = int(said["shortest_edge"] if isinstance(said, Mapping) else said)
    crop = float(settings.get("crop_pct") or 224 / 256)
    mean, std = (0.0,) * channels, (1.0,) * channels
    if settings.get("do_normalize", True):
        mean = tuple(settings.get("image_mean") or (0.5,) * channels)
        std = tuple(settings.get("image_std") or (0.5,) * channels)
    return Preprocessing(
        size=size,
        resize=int(size / crop) if size < _NO_CROP else size,
        interpolation=_RESAMPLE[resample],
        mean=mean,
        std=std,
        channels=channels,
        mode="short" if size < _NO_CROP else "squish",
    )
