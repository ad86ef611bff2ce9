"""What timm says of ``timm:NAME``: its spec, its preprocessing, its weights on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plusx.data.preprocessing import Preprocessing
from plusx.errors import UsageError, WeightsError
from plusx.weights.timm_net import (
    PREFIX,
    TimmSpec,
    create_body,
    first_line,
    import_timm,
    take_classifier,
)


def timm_spec(
    name: str,
    *,
    image_size: int | None = None,
    classes: int | None = None,
    in_channels: int = 3,
    model_args: Mapping[str, Any] | None = None,
) -> TimmSpec:
    """The spec of ``timm:NAME`` or ``timm:NAME.TAG``, as timm describes it.

    Args:
        name: with or without the prefix.
        image_size: None takes timm's. A network of a fixed size is built for it (``img_size``).
        classes: None takes timm's.
        in_channels: channels of the input.
        model_args: what ``create_model`` is told besides.

    Raises:
        MissingExtra: timm is not installed.
        UsageError: timm has no such network, cannot build it so, or it does not end in a linear
            layer on one vector of features.
    """
    name = PREFIX + name.removeprefix(PREFIX)
    known = _pretrained_cfg(name)
    architecture = name.removeprefix(PREFIX).partition(".")[0]
    args = dict(model_args or {})
    size = image_size or int(known.input_size[-1])
    if known.fixed_input_size and size != known.input_size[-1]:
        args.setdefault("img_size", size)
    count = classes or known.num_classes or 1000
    if not isinstance(known.classifier, str):
        raise UsageError(f"{name}: has more than one classifier, or none; plusx needs one")
    with torch.random.fork_rng(devices=[]):
        net = create_body(architecture, count, in_channels, args)
    features = take_classifier(net, known.classifier, name).in_features
    spec = TimmSpec(
        name,
        architecture,
        features,
        known.classifier,
        first_conv=known.first_conv if isinstance(known.first_conv, str) else "",
        fixed_size=bool(known.fixed_input_size),
        model_args=args,
        in_channels=in_channels,
        classes=count,
        image_size=size,
    )
    _try(spec, net)
    return spec


def resized(spec: TimmSpec, image_size: int) -> TimmSpec:
    """The same network, its weights kept, for images of that size.

    Raises:
        UsageError: it takes one size alone.
    """
    if image_size == spec.image_size:
        return spec
    if spec.fixed_size:
        raise UsageError(
            f"--image-size {image_size}: the weights of {spec.name} are for {spec.image_size} "
            "pixels alone; leave it out, or train that size from scratch (--weights none)"
        )
    return timm_spec(
        spec.name if spec.name.startswith(PREFIX) else spec.architecture,
        image_size=image_size,
        classes=spec.classes,
        in_channels=spec.in_channels,
        model_args=spec.model_args,
    ).replace(name=spec.name)


def timm_preprocessing(spec: TimmSpec) -> Preprocessing:
    """What timm states for the network's weights, at timm's own size and channels."""
    return Preprocessing.from_timm(_pretrained_cfg(spec.name, spec.architecture).to_dict())


def known_weights(spec: TimmSpec) -> tuple[str, tuple[str, ...]]:
    """The hub id that timm names for the network, and what is to be said about it.

    Raises:
        WeightsError: timm names none.
    """
    known = _pretrained_cfg(spec.name, spec.architecture)
    hub_id = known.hf_hub_id
    if not hub_id or known.hf_hub_filename:
        raise WeightsError(
            f"--weights auto: timm names no weights on the hub for {spec.name}; give --weights "
            "FILE or HUB_ID, or --weights none to train from scratch"
        )
    licence = str(known.license or "")
    if "nc" in licence.split("-"):
        return hub_id, (f"{hub_id}: licence {licence}: not for commercial use",)
    return hub_id, ()


def read_timm(
    config: Mapping[str, Any], where: Path | str, asked: TimmSpec
) -> tuple[TimmSpec, Preprocessing]:
    """Spec and preprocessing of a config that timm wrote, where ``timm:NAME`` is asked for.

    Raises:
        WeightsError: it describes another network.
        UsageError: a preprocessing that plusx does not have.
    """
    found = config.get("architecture")
    if found != asked.architecture:
        raise WeightsError(
            f"{where}: architecture {found!r} is not {asked.name}; ask for --model timm:{found}"
        )
    settings = config.get("pretrained_cfg", config)
    preprocessing = Preprocessing.from_timm(settings)
    told = config.get("model_args") or {}
    args = {key: value for key, value in told.items() if key not in ("in_chans", "num_classes")}
    spec = timm_spec(
        asked.name if asked.name.startswith(PREFIX) else asked.architecture,
        image_size=preprocessing.size,
        classes=int(config.get("num_classes", settings.get("num_classes", 1000))) or None,
        in_channels=preprocessing.channels,
        model_args=args,
    )
    return spec, preprocessing


def _pretrained_cfg(name: str, fallback: str = "") -> Any:
    """timm's own description of ``timm:NAME[.TAG]``; of ``fallback`` where the name is a label."""
    timm = import_timm()
    full = name.removeprefix(PREFIX) if name.startswith(PREFIX) else fallback
    architecture, _, tag = full.partition(".")
    if not re.fullmatch(r"\w+", architecture) or not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(PREFIX + one for one in near)}?" if near else (
            "its names are listed by: python -c 'import timm; print(timm.list_models())'"
        )  # fmt: skip
        raise UsageError(f"{PREFIX}{full}: timm {timm.__version__} has no such model; {hint}")
    try:
        found = timm.models.get_pretrained_cfg(full)
    except RuntimeError as error:
        tags = ", ".join(timm.list_models(architecture + ".*", pretrained=True)) or "none"
        raise UsageError(f"{PREFIX}{full}: timm knows no tag {tag!r}; known: {tags}") from error
    if found is None:
        raise UsageError(f"{PREFIX}{full}: timm does not say how its images are prepared")
    return found


def _try(spec: TimmSpec, net: nn.Module) -> None:
    """One image through the body: whether the size fits, and a vector comes out."""
    image = torch.zeros(1, spec.in_channels, spec.image_size, spec.image_size)
    try:
        with torch.inference_mode():
            found = net.eval()(image)
    except Exception as error:  # each network refuses a size in its own way
        raise UsageError(
            f"{spec.name} takes no images of {spec.image_size} pixels: {first_line(error)}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != (1, spec.feature_channels):
        raise UsageError(f"{spec.name}: does not end in a linear layer on one vector of features; "
                         "choose another network")  # fmt: skip
