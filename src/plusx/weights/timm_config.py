"""config.json as timm writes it: which network, which classes, which preprocessing.

Source: https://github.com/huggingface/pytorch-image-models, ``timm/models/_hub.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plusx.data.preprocessing import Preprocessing
from plusx.errors import WeightsError
from plusx.model import VARIANTS, ResNetSpec

TIMM_NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""Names under which timm has the same network (equal logits, tested against timm itself)."""

HARMLESS = ("in_chans", "num_classes", "global_pool", "drop_rate", "drop_path_rate")
"""Arguments to timm's models that leave the network in evaluation as it is, or are read here."""


def architecture(spec: ResNetSpec) -> str:
    """timm's name for the network where it has the same one, else ``plusx_NAME``."""
    for name in TIMM_NAMES:
        own = VARIANTS[name]
        free = {"classes": own.classes, "in_channels": own.in_channels}
        if spec.replace(name=name, image_size=own.image_size, **free) == own:
            return name
    return f"plusx_{spec.name.removeprefix('plusx_')}"


def read_timm_config(
    config: Mapping[str, Any], where: Path | str
) -> tuple[ResNetSpec, Preprocessing]:
    """Spec and preprocessing of a config that timm wrote.

    Args:
        config: the parsed file.
        where: its path or address, for messages.

    Raises:
        WeightsError: an architecture or a change to one that plusx does not build.
        UsageError: a preprocessing that plusx does not have.
    """
    name = config.get("architecture")
    if name not in TIMM_NAMES:
        raise WeightsError(
            f"{where}: architecture {name!r} is not one that plusx builds from a timm config; "
            f"those are {', '.join(TIMM_NAMES)}"
        )
    args = config.get("model_args", {})
    pool = args.get("global_pool", config.get("global_pool"))
    changes = [key for key in args if key not in HARMLESS]
    changes += ["global_pool"] if pool not in (None, "", "avg") else []
    if changes:
        raise WeightsError(
            f"{where}: {name} is changed there by {', '.join(changes)}, which plusx does not "
            "read; describe the network in a SPEC.json and give the weights as a file"
        )
    # Older files keep everything at the top level.
    settings = config.get("pretrained_cfg", config)
    preprocessing = Preprocessing.from_timm(settings)
    spec = VARIANTS[name].replace(
        classes=int(config.get("num_classes", settings.get("num_classes", 1000))),
        in_channels=preprocessing.channels,
        image_size=preprocessing.size,
    )
    return spec, preprocessing


def timm_config(
    spec: ResNetSpec, classes: Sequence[str], preprocessing: Preprocessing
) -> dict[str, Any]:
    """The keys of config.json that timm reads."""
    config: dict[str, Any] = {
        "architecture": architecture(spec),
        "num_classes": spec.classes,
        "num_features": spec.feature_channels,
        "label_names": list(classes),
        "global_pool": "avg",
    }
    if spec.in_channels != 3:
        config["model_args"] = {"in_chans": spec.in_channels}
    config["pretrained_cfg"] = {
        **preprocessing.to_timm(),
        "fixed_input_size": False,
        "num_classes": spec.classes,
        "pool_size": None,
        # timm 1.0.16 takes the convolution named here to be for 3 channels and would draw it at
        # random for 4; unnamed, it is loaded as it is.
        "first_conv": "conv1" if spec.in_channels == 3 else None,
        "classifier": "fc",
    }
    return config
