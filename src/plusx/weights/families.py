"""The families of networks: a plain table, family -> spec, network, and names in files.

Residual nets are the family without a name: their specs state none, and ``names.py`` has their
names in files. A network of another family differs here alone; whoever trains, evaluates or saves
it needs no more than ``Classifier`` and ``Spec``.

Names on disk: timm's for VGG and for ``timm:NAME``, plusx's own for the simple CNN. Read are
torchvision's for VGG as well, whose two hidden layers are linear: the same numbers, reshaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from plusx.errors import SpecError
from plusx.model import ResNet, ResNetSpec
from plusx.model.baselines import CNN, VGG, CNNSpec, VGGSpec
from plusx.model.classifier import Classifier, Spec
from plusx.model.family_spec import FamilySpec
from plusx.weights import timm_net
from plusx.weights.timm_net import TimmNet, TimmSpec


@dataclass(frozen=True)
class Family:
    """What belongs to a family.

    Attributes:
        spec: its description.
        net: builds the network from it.
        written: internal name -> name in the files that are written.
        read: name in a file -> internal name; unknown ones stay as they are.
        first_conv: internal name of the first convolution's weight, or empty.
        title: what such a network is called in a sentence.
    """

    spec: type[FamilySpec]
    net: Callable[[Any], Classifier]
    written: Callable[[Any, str], str]
    read: Callable[[Any, str], str]
    first_conv: Callable[[Any], str]
    title: str


def _vgg_modules(spec: VGGSpec) -> dict[str, str]:
    """Internal module -> timm's."""
    modules, at = {}, 0
    for stage, depth in enumerate(spec.depths):
        for block in range(depth):
            modules[f"stages.{stage}.{block}.conv"] = f"features.{at}"
            modules[f"stages.{stage}.{block}.norm"] = f"features.{at + 1}"
            at += 3 if spec.norm == "batch" else 2
        at += 1
    last = len(spec.depths)
    return modules | {
        f"stages.{last}.0.conv": "pre_logits.fc1",
        f"stages.{last}.1.conv": "pre_logits.fc2",
        "head.fc": "head.fc",
    }


_TORCHVISION = {
    "classifier.0": "pre_logits.fc1",
    "classifier.3": "pre_logits.fc2",
    "classifier.6": "head.fc",
}


def _vgg_written(spec: VGGSpec, name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{_vgg_modules(spec)[module]}.{leaf}"


def _vgg_read(spec: VGGSpec, key: str) -> str:
    module, _, leaf = key.rpartition(".")
    ours = {theirs: own for own, theirs in _vgg_modules(spec).items()}
    if spec.norm == "none":  # the names of norms that are not there are free for other modules
        ours = {theirs: own for theirs, own in ours.items() if not own.endswith(".norm")}
    found = ours.get(_TORCHVISION.get(module, module))
    return key if found is None else f"{found}.{leaf}"


FAMILIES: dict[str, Family] = {
    "vgg": Family(
        VGGSpec, VGG, _vgg_written, _vgg_read, lambda spec: "stages.0.0.conv.weight", "VGG network"
    ),
    "cnn": Family(
        CNNSpec,
        CNN,
        lambda spec, name: name,
        lambda spec, key: key,
        lambda spec: "stages.0.0.conv.weight",
        "simple convolutional network",
    ),
    "timm": Family(
        TimmSpec,
        TimmNet,
        timm_net.disk_name,
        timm_net.internal_name,
        lambda spec: f"{timm_net.BODY}{spec.first_conv}.weight" if spec.first_conv else "",
        "network",
    ),
}


def family(spec: Spec) -> Family | None:
    """Which one; None for a residual net."""
    return FAMILIES[spec.family] if isinstance(spec, FamilySpec) else None


def spec_from_dict(fields: Any) -> Spec:
    """A spec of any family; the inverse of its ``to_dict``.

    Raises:
        SpecError: no such family, or a field is unknown, missing or impossible.
    """
    if not isinstance(fields, dict) or "family" not in fields:
        return ResNetSpec.from_dict(fields)
    name = fields["family"]
    if not isinstance(name, str) or name not in FAMILIES:
        raise SpecError(
            f"family {name!r} is not one of {', '.join(FAMILIES)} (a residual net states none); "
            "if a later plusx wrote it, update with: pip install -U plusx"
        )
    return cast(Spec, FAMILIES[name].spec.from_dict(fields))


def spec_from_json(text: str) -> Spec:
    """The same from JSON text.

    Raises:
        SpecError: as above, or the text is no JSON.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"not JSON: {error}") from error
    return spec_from_dict(fields)


def build(spec: Spec) -> Classifier:
    """The network of a spec, with random weights.

    Raises:
        SpecError: it cannot be built.
        MissingExtra: it needs a package that is not installed.
    """
    if isinstance(spec, ResNetSpec):
        return ResNet(spec)
    found = family(spec)
    assert found is not None, spec
    return found.net(spec)


def title(spec: Spec) -> str:
    """What the network is called in a sentence: ``residual network``, ``VGG network``."""
    if isinstance(spec, ResNetSpec):
        return "plain network without shortcuts" if spec.shortcut == "none" else "residual network"
    found = family(spec)
    assert found is not None, spec
    return found.title


def first_conv(spec: Spec) -> str:
    """The internal name of the first convolution's weight; empty where there is none, and for a
    residual net, whose names are ``load.py``'s affair."""
    found = family(spec)
    return "" if found is None else found.first_conv(spec)


def written_name(spec: Spec, name: str) -> str:
    """An internal name of a net that is not residual as files have it; a name that is none stays
    as it is."""
    found = family(spec)
    assert found is not None, spec
    try:
        return found.written(spec, name)
    except KeyError:
        return name
