"""``plusx models``: what there is to choose from, and what one network looks like inside."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from plusx.errors import ArtifactError, PlusxError, UsageError, WeightsError
from plusx.model import VARIANTS, ResNetSpec
from plusx.model.classifier import Spec
from plusx.model.counted import COUNTED
from plusx.model.describe import Description, count, describe_network
from plusx.model.published import PUBLISHED, Published, amount
from plusx.weights import auto_weights, create, resolve_spec
from plusx.weights.artifact import CONFIG, describe, find_artifact, read_config

KINDS = ("imagenet", "cifar", "small")
"""By the images a network is meant for: photographs, 32 pixels, or anything else below 160."""


@dataclass(frozen=True)
class Listed:
    """One variant in the list; ``auto`` is the hub id that ``--weights auto`` takes, or None."""

    name: str
    params: int
    macs: int
    image_size: int
    classes: int
    published: Published | None
    auto: str | None

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.image_size >= 160:
            return "imagenet"
        return "cifar" if self.image_size == 32 else "small"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self) | {"kind": self.kind, "published": _said(self.published)}


@dataclass(frozen=True)
class Model:
    """One network in detail."""

    description: Description
    published: Published | None
    auto: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = self.description
        return {
            "name": found.name,
            "image": list(found.image),
            "params": found.params,
            "macs": found.macs,
            "auto": self.auto,
            "published": _said(self.published),
            "rows": [dataclasses.asdict(row) for row in found.rows],
        }


def list_models(
    patterns: Sequence[str] = (),
    *,
    max_params: str | None = None,
    max_macs: str | None = None,
    pretrained: bool = False,
    kind: str | None = None,
) -> list[Listed]:
    """The variants that fit all that is asked.

    Args:
        patterns: names, parts of names, or globs (``resnext*``); one of them must fit.
        max_params: at most as many parameters, as a number (``30M``).
        max_macs: at most as many multiply-adds for one image of its usual size (``5G``).
        pretrained: only those for which ``--weights auto`` knows weights.
        kind: one of ``KINDS``.

    Raises:
        UsageError: nothing fits, or a limit is no number.
    """
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind {kind!r} is not one of {', '.join(KINDS)}")
    limits = [_limit("--max-params", max_params), _limit("--max-macs", max_macs)]
    names = known_names()
    chosen = [name for name in names if not patterns or any(_fits(name, p) for p in patterns)]
    if not chosen:
        asked = ", ".join(repr(pattern) for pattern in patterns)
        near = _near(patterns, names)
        raise UsageError(f"no model fits {asked}; did you mean {', '.join(near)}?")
    found = [_listed(name) for name in chosen]
    found = [
        one
        for one in found
        if one.params <= limits[0]
        and one.macs <= limits[1]
        and (one.auto is not None or not pretrained)
        and kind in (None, one.kind)
    ]
    if not found:
        raise UsageError(
            f"none of {len(chosen)} models fits --max-params, --max-macs, --pretrained and --kind "
            "together; loosen one of them"
        )
    return found


def describe_model(
    model: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    in_channels: int | None = None,
    classes: int | None = None,
) -> Model:
    """Shapes, parameters, multiply-adds and receptive fields of one network.

    Args:
        model: a variant's name, a SPEC.json, or a run or model folder.
        image_size: pixels; None takes those it is meant for.
        in_channels: of the image; None takes its own.
        classes: outputs; None takes its own.

    Raises:
        UsageError: no such model, or an image that is too small for it.
        SpecError: a SPEC.json, or a number, that cannot be built.
        ArtifactError: a folder without a model.
    """
    spec = _spec(os.fspath(model), image_size)
    asked = {"in_channels": in_channels, "classes": classes}
    if isinstance(spec, ResNetSpec):  # which is the same network at every size
        asked["image_size"] = image_size
    spec = spec.replace(**{key: value for key, value in asked.items() if value is not None})
    try:
        with torch.device("meta"):
            network = create(spec, weights="none")
        found = describe_network(network)
    except RuntimeError as error:
        raise UsageError(
            f"{spec.name} cannot take images of {spec.image_size} pixels; give a larger "
            f"--image-size ({str(error).splitlines()[0]})"
        ) from error
    return Model(found, PUBLISHED.get(spec.name), _auto(spec))


def is_one(word: str) -> bool:
    """Whether ``word`` means one network, to be drawn, and not a filter of the list."""
    path = Path(word)
    if path.suffix.lower() == ".json" or len(path.parts) > 1 or _is_name(word):
        return True
    if path.is_dir():
        return True
    # What is no part of a name either is taken for one, and refused with near names.
    return not set(word) & set("*?[") and not any(word in name for name in known_names())


def known_names() -> list[str]:
    """All variants, and the nets of the literature that a pattern of names builds."""
    names = list(VARIANTS)
    names += [name for name in PUBLISHED if name not in VARIANTS and _is_name(name)]
    order = list(PUBLISHED)
    return sorted(names, key=lambda n: order.index(n) if n in PUBLISHED else len(order))


def _is_name(word: str) -> bool:
    try:
        resolve_spec(word)
    except PlusxError:
        return False
    return True


def _spec(model: str, image_size: int | None) -> Spec:
    path = Path(model).expanduser()
    if not path.is_dir() or _is_name(model):
        return resolve_spec(model, image_size=image_size)
    folder = find_artifact(path)
    if folder is None:
        raise ArtifactError(f"{model}: no model there; give a run folder or the model folder in it")
    spec = describe(read_config(folder / CONFIG), folder / CONFIG).spec
    return resolve_spec(spec, image_size=image_size)


def _listed(name: str) -> Listed:
    spec = resolve_spec(name)
    numbers = COUNTED.get(name)
    if numbers is None:
        with torch.device("meta"):
            numbers = count(create(spec, weights="none"))
    return Listed(name, *numbers, spec.image_size, spec.classes, PUBLISHED.get(name), _auto(spec))


def _auto(spec: Spec) -> str | None:
    try:
        return auto_weights(spec)[0]
    except WeightsError:
        return None


def _said(published: Published | None) -> dict[str, Any] | None:
    if published is None:
        return None
    return dataclasses.asdict(published) | {"year": published.year}


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern if set(pattern) & set("*?[") else f"*{pattern}*")


def _limit(option: str, text: str | None) -> float:
    if text is None:
        return float("inf")
    try:
        return amount(text)[0]
    except ValueError:
        raise UsageError(f"{option} {text!r} is no number; write it as 30M or 4.1G") from None


def _near(patterns: Iterable[str], names: list[str]) -> list[str]:
    near: list[str] = []
    for pattern in patterns:
        near += get_close_matches(pattern.strip("*?"), names, n=3, cutoff=0.4)
    return list(dict.fromkeys(near)) or names[:3]
