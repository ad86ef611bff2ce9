"""The families of networks: a plain table, family -> spec, network, and names in files.

Residual nets are the family without a name: their specs state none, and ``names.py`` has their
names in files. A network of another family differs here alone; whoever trains, evaluates, loads or
saves it needs no more than ``Classifier`` and ``Spec``.

Names on disk: timm's for VGG and for ``timm:NAME``, plusx's own for the simple CNN. Read are
torchvision's for VGG as well, whose two hidden layers are linear: the same numbers, reshaped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from plusx.errors import SpecError
from plusx.model import ResNet, ResNetSpec
from plusx.model.baselines import CNN, VGG, CNNSpec, VGGSpec
from plusx.model.classifier import Classifier, Spec
from plusx.model.family_spec import FamilySpec
from plusx.weights import timm_net
from plusx.weights.names import TONGUES, disk_name, internal_name, tongue_for
from plusx.weights.timm_net import TimmNet, TimmSpec

HEAD = ("head.fc.weight", "head.fc.bias")
FIRST = ("stem.start.conv1.weight", "stem.conv.weight")
"""The first convolution of a residual net: of a deep stem, of any other."""


def _as_it_is(spec: Any, name: str, value: Tensor) -> Tensor:
    return value


@dataclass(frozen=True)
class Family:
    """What belongs to a family.

    Attributes:
        spec: its description: ``ResNetSpec`` or a ``FamilySpec``.
        net: builds the network from it.
        written: internal name -> name in the files that are written.
        read: name in a file -> internal name; unknown ones stay as they are.
        first_conv: internal name of the first convolution's weight, or empty.
        title: what such a network is called in a sentence.
        stored: a parameter in the shape in which it is written.
        shaped: a parameter of a file in the shape that the network has it in.
    """

    spec: type[ResNetSpec] | type[FamilySpec]
    net: Callable[[Any], Classifier]
    written: Callable[[Any, str], str]
    read: Callable[[Any, str], str]
    first_conv: Callable[[Any], str]
    title: Callable[[Any], str]
    stored: Callable[[Any, str, Tensor], Tensor] = _as_it_is
    shaped: Callable[[Any, str, Tensor], Tensor] = _as_it_is


def tongue_of(spec: ResNetSpec) -> str:
    """The tongue that a residual net is written in."""
    return tongue_for(spec.order, spec.stem, spec.shortcut)


def _head_stored(spec: ResNetSpec, name: str, value: Tensor) -> Tensor:
    linear = name != HEAD[0] or TONGUES[tongue_of(spec)].linear_head
    return value if linear else value[:, :, None, None]


def head_shaped(name: str, value: Tensor) -> Tensor:
    """A head's weight that is stored as a 1x1 convolution, as the matrix it is; others as is."""
    pixel = name == HEAD[0] and value.ndim == 4 and value.shape[2:] == (1, 1)
    return value.flatten(1) if pixel else value


RESIDUAL = Family(
    ResNetSpec,
    ResNet,
    lambda spec, name: disk_name(name, tongue_of(spec)),
    lambda spec, key: internal_name(key, tongue_of(spec)) or key,
    lambda spec: FIRST[0] if spec.stem == "deep" else FIRST[1],
    lambda spec: (
        "plain network without shortcuts" if spec.shortcut == "none" else "residual network"
    ),
    _head_stored,
    lambda spec, name, value: head_shaped(name, value),
)


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


def torchvision_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state as it is written, under torchvision's names: a VGG's last three layers have others
    there, and are linear."""
    theirs = {timms: name for name, timms in _TORCHVISION.items()}
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        if module in theirs:
            key = f"{theirs[module]}.{leaf}"
            value = value.flatten(1) if leaf == "weight" else value
        renamed[key] = value
    return renamed


def _vgg_shaped(spec: VGGSpec, name: str, value: Tensor) -> Tensor:
    """A hidden layer of torchvision's VGG, (O, I * 7 * 7), as the convolution it is."""
    if value.ndim != 2:
        return value
    hidden = f"stages.{len(spec.depths)}."
    if name == f"{hidden}0.conv.weight" and value.shape[1] == 49 * spec.widths[-1]:
        return value.reshape(len(value), spec.widths[-1], 7, 7)
    return value[:, :, None, None] if name == f"{hidden}1.conv.weight" else value


FAMILIES: dict[str, Family] = {
    "vgg": Family(
        VGGSpec,
        VGG,
        _vgg_written,
        _vgg_read,
        lambda spec: "stages.0.0.conv.weight",
        lambda spec: "VGG network",
        shaped=_vgg_shaped,
    ),
    "cnn": Family(
        CNNSpec,
        CNN,
        lambda spec, name: name,
        lambda spec, key: key,
        lambda spec: "stages.0.0.conv.weight",
        lambda spec: "simple convolutional network",
    ),
    "timm": Family(
        TimmSpec,
        TimmNet,
        timm_net.disk_name,
        timm_net.internal_name,
        lambda spec: f"{timm_net.BODY}{spec.first_conv}.weight" if spec.first_conv else "",
        lambda spec: "network",
    ),
}
"""By the name that their specs state."""


def family(spec: Spec) -> Family:
    """Which one."""
    return FAMILIES[spec.family] if isinstance(spec, FamilySpec) else RESIDUAL


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
    return family(spec).net(spec)


def title(spec: Spec) -> str:
    """What the network is called in a sentence: ``residual network``, ``VGG network``."""
    return family(spec).title(spec)


def first_conv(spec: Spec) -> str:
    """The internal name of the first convolution's weight; empty where there is none."""
    return family(spec).first_conv(spec)


def written_name(spec: Spec, name: str) -> str:
    """An internal name as files have it; a name that is none stays as it is."""
    try:
        return family(spec).written(spec, name)
    except KeyError:
        return name
