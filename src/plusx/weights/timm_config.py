"""config.json as timm writes it: which network, which classes, which preprocessing.

Source: https://github.com/huggingface/pytorch-image-models, ``timm/models/_hub.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plusx.data.preprocessing import Preprocessing
from plusx.errors import SpecError, WeightsError
from plusx.model import TIMM_NAMES, VARIANTS, ResNetSpec
from plusx.model.classifier import Spec
from plusx.model.spec import TRAINING_ONLY
from plusx.weights.families import HEAD, first_conv, written_name

HARMLESS = (
    *("in_chans", "num_classes", "global_pool", "drop_rate", "drop_path_rate", "drop_block_rate"),
    "zero_init_last",
)
"""Arguments to timm's models that leave the network in evaluation as it is, or are read here."""


def architecture(spec: Spec) -> str:
    """timm's name for the network where it has the same one, else ``plusx_NAME``."""
    known = _timm_name(spec)
    if known is not None and isinstance(spec, ResNetSpec) and not _layers(spec, known):
        return known
    return f"plusx_{spec.name.removeprefix('plusx_')}"


def _timm_name(spec: Spec) -> str | None:
    """The network of timm's that this is, but for the number of blocks in each stage."""
    if not isinstance(spec, ResNetSpec):
        return None
    free = ("name", "classes", "in_channels", "image_size", *TRAINING_ONLY)
    found = None
    for name in TIMM_NAMES:
        own = VARIANTS[name]
        if spec.stages == own.stages and own == spec.replace(
            depths=own.depths, **{field: getattr(own, field) for field in free}
        ):
            if own.depths == spec.depths:
                return name
            found = found or name
    return found


def _layers(spec: ResNetSpec, name: str) -> list[int]:
    """The depths, where they are others than those of that variant."""
    return [] if VARIANTS[name].depths == spec.depths else list(spec.depths)


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
    fields = _changed_fields(name, config, where)
    # Older files keep everything at the top level.
    settings = config.get("pretrained_cfg", config)
    preprocessing = Preprocessing.from_timm(settings)
    spec = VARIANTS[name].replace(
        classes=int(config.get("num_classes", settings.get("num_classes", 1000))),
        in_channels=preprocessing.channels,
        image_size=preprocessing.size,
        **fields,
    )
    return spec, preprocessing


def _changed_fields(name: str, config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """What ``model_args`` of timm's config change, as fields of a spec."""
    args = config.get("model_args") or {}
    fields: dict[str, Any] = {}
    changes = [key for key in args if key not in (*HARMLESS, *_FIELDS, "block_args")]
    pool = args.get("global_pool", config.get("global_pool"))
    changes += ["global_pool"] if pool not in (None, "", "avg") else []
    for key, field in _FIELDS.items():
        if key in args:
            fields[field] = args[key]
    if VARIANTS[name].order == "pre":  # timm's ResNetV2 has neither
        changes += [key for key in ("cardinality", "base_width", "block_args") if key in args]
    elif "block_args" in args:
        block = args["block_args"]
        if isinstance(block, dict) and set(block) <= {"attn_layer"}:
            fields["channel_attention"] = block.get("attn_layer") or "none"
        else:
            changes.append("block_args")
    if changes:
        raise WeightsError(
            f"{where}: {name} is changed there by {', '.join(changes)}, which plusx does not "
            "read; describe the network in a SPEC.json and give the weights as a file"
        )
    own = VARIANTS[name]
    try:
        changed = own.replace(**fields)
    except SpecError as error:
        raise WeightsError(f"{where}: {name} is changed there by model_args: {error}") from error
    if changed.stages != own.stages:
        raise WeightsError(f"{where}: {name} has {own.stages} stages, layers={args['layers']!r}")
    return fields


_FIELDS = {"layers": "depths", "cardinality": "cardinality", "base_width": "base_width"}
"""Arguments to timm's ResNet that change the network, and the fields of a spec they are."""


def timm_config(spec: Spec, classes: Sequence[str], preprocessing: Preprocessing) -> dict[str, Any]:
    """The keys of config.json that timm reads."""
    known = _timm_name(spec)
    config: dict[str, Any] = {
        "architecture": known or architecture(spec),
        "num_classes": spec.classes,
        "num_features": spec.feature_channels,
        "label_names": list(classes),
        "global_pool": "avg",
    }
    args: dict[str, Any] = {} if spec.in_channels == 3 else {"in_chans": spec.in_channels}
    if known is not None and isinstance(spec, ResNetSpec) and (layers := _layers(spec, known)):
        args["layers"] = layers
    if args:
        config["model_args"] = args
    first, classifier = (
        written_name(spec, name).removesuffix(".weight") for name in (first_conv(spec), HEAD[0])
    )
    config["pretrained_cfg"] = {
        **preprocessing.to_timm(),
        "fixed_input_size": False,
        "num_classes": spec.classes,
        "pool_size": None,
        # timm 1.0.16 takes the convolution named here to be for 3 channels and would draw it at
        # random for 4; unnamed, it is loaded as it is.
        "first_conv": first if spec.in_channels == 3 else None,
        "classifier": classifier,
    }
    return config
