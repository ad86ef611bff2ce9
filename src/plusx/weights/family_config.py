"""config.json for any family's network: which network, which preprocessing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plusx.data.preprocessing import Preprocessing
from plusx.errors import WeightsError
from plusx.model import ResNetSpec
from plusx.model.baselines import BASELINES, VGGSpec
from plusx.model.classifier import Spec
from plusx.weights import timm_config, timm_spec
from plusx.weights.families import HEAD, first_conv, written_name
from plusx.weights.timm_net import TimmSpec


def usual_preprocessing(spec: Spec) -> Preprocessing:
    """Where the weights state none: timm's for its nets, else the usual one for the size."""
    if isinstance(spec, TimmSpec):
        own = at_size(timm_spec.timm_preprocessing(spec), spec.image_size)
        return for_channels(own, spec.in_channels)
    return Preprocessing.for_size(spec.image_size, spec.in_channels)


def at_size(own: Preprocessing, size: int | None) -> Preprocessing:
    """The same for another image size, as much cropped; None keeps it."""
    if size is None or size == own.size:
        return own
    return dataclasses.replace(own, size=size, resize=round(own.resize / own.size * size))


def for_channels(own: Preprocessing, channels: int) -> Preprocessing:
    """The same for another number of channels: mean and std are averaged."""
    if own.channels == channels:
        return own
    mean, std = (round(sum(values) / own.channels, 6) for values in (own.mean, own.std))
    return dataclasses.replace(
        own,
        channels=channels,
        mean=(mean,) * channels,
        std=(std,) * channels,
        reading=dataclasses.replace(own.reading, bands=None, range=None),
    )


def architecture(spec: Spec) -> str:
    """timm's name for the network where it has the same one, else ``plusx_NAME``.

    A VGG is timm's at every image size; dropout leaves its answers as they are.
    """
    if isinstance(spec, ResNetSpec):
        return timm_config.architecture(spec)
    if isinstance(spec, TimmSpec):
        return spec.architecture
    for name, known in BASELINES.items():
        if isinstance(spec, VGGSpec) and spec.depths == getattr(known, "depths", None):
            same = known.replace(
                name=spec.name,
                dropout=spec.dropout,
                classes=spec.classes,
                in_channels=spec.in_channels,
                image_size=spec.image_size,
            )
            if same == spec:
                return name
    return f"plusx_{spec.name.removeprefix('plusx_')}"


def written_config(
    spec: Spec, classes: Sequence[str], preprocessing: Preprocessing
) -> dict[str, Any]:
    """The keys of config.json that timm reads."""
    if isinstance(spec, ResNetSpec):
        return timm_config.timm_config(spec, classes, preprocessing)
    args: dict[str, Any] = dict(spec.model_args) if isinstance(spec, TimmSpec) else {}
    if spec.in_channels != 3:
        args["in_chans"] = spec.in_channels
    first = written_name(spec, first_conv(spec)).removesuffix(".weight")
    return {
        "architecture": architecture(spec),
        "num_classes": spec.classes,
        "num_features": spec.feature_channels,
        "label_names": list(classes),
        **({"model_args": args} if args else {}),
        "pretrained_cfg": {
            **preprocessing.to_timm(),
            "fixed_input_size": isinstance(spec, TimmSpec) and spec.fixed_size,
            "num_classes": spec.classes,
            "pool_size": None,
            # Unnamed, a convolution for other than 3 channels is loaded as it is; see timm_config.
            "first_conv": first or None if spec.in_channels == 3 else None,
            "classifier": written_name(spec, HEAD[0]).removesuffix(".weight"),
        },
    }


def read_config(
    config: Mapping[str, Any], where: Path | str, asked: Spec | None
) -> tuple[Spec, Preprocessing]:
    """Spec and preprocessing of a config that timm wrote.

    Args:
        config: the parsed file.
        where: its path or address, for messages.
        asked: the network that is asked for; only ``timm:NAME`` is read as one of timm's.

    Raises:
        WeightsError: an architecture or a change to one that plusx does not build.
        UsageError: a preprocessing that plusx does not have.
    """
    if isinstance(asked, TimmSpec):
        return timm_spec.read_timm(config, where, asked)
    known = BASELINES.get(str(config.get("architecture")))
    if not isinstance(known, VGGSpec):
        return timm_config.read_timm_config(config, where)
    args = config.get("model_args") or {}
    changes = [key for key in args if key not in timm_config.HARMLESS]
    pool = args.get("global_pool", config.get("global_pool"))
    changes += ["global_pool"] if pool not in (None, "", "avg") else []
    if changes:
        raise WeightsError(
            f"{where}: {known.name} is changed there by {', '.join(changes)}, which plusx does not "
            "read; ask for it as --model timm:NAME"
        )
    settings = config.get("pretrained_cfg", config)
    preprocessing = Preprocessing.from_timm(settings)
    spec = known.replace(
        classes=int(config.get("num_classes", settings.get("num_classes", 1000))),
        in_channels=preprocessing.channels,
        image_size=preprocessing.size,
    )
    return spec, preprocessing
