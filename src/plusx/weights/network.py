"""A network with its weights and everything that belongs to them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import Tensor

from plusx.data.preprocessing import Preprocessing
from plusx.errors import SpecError, UsageError, WeightsError
from plusx.model import VARIANTS, ResNetSpec, variant
from plusx.model.baselines import BASELINES, baseline
from plusx.model.classifier import Classifier, Spec
from plusx.model.spec import TRAINING_ONLY
from plusx.weights.families import build, spec_from_json
from plusx.weights.family_config import at_size, for_channels, usual_preprocessing
from plusx.weights.files import sha256_file
from plusx.weights.foreign.reading import AS_IT_SAYS, Reading, read_weights
from plusx.weights.load import load_weights, stated
from plusx.weights.sources import BUNDLED, Source, find_source
from plusx.weights.timm_net import PREFIX, TimmSpec
from plusx.weights.timm_spec import resized, timm_spec
from plusx.weights.undrawn import Undrawn

DEFAULT = "resnet50"


@dataclass(frozen=True)
class Network:
    """A network ready to be trained or used.

    Attributes:
        model: in training mode, as torch makes it.
        preprocessing: what its weights were made for.
        origin: ``hub:ID@COMMIT``, ``file:NAME``, ``bundled:NAME`` or ``random``.
        sha256: of the weights file; None for random weights.
        class_names: of the head, where the source states them and the head was kept.
        notes: what was adapted or assumed, one line each.
        has_head: whether the source held a classifier, of whatever number of classes.
    """

    model: Classifier
    preprocessing: Preprocessing
    origin: str
    sha256: str | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    has_head: bool = True


def create(
    model: str | Path | Spec | None = None,
    *,
    weights: str = "auto",
    classes: int | None = None,
    in_channels: int | None = None,
    seed: int = 0,
) -> Classifier:
    """The network alone; see ``create_network``.

    >>> create("resnet18", weights="none", classes=3)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3])
    """
    network = create_network(
        model, weights=weights, classes=classes, in_channels=in_channels, seed=seed
    )
    return network.model


def create_network(
    model: str | Path | Spec | None = None,
    *,
    weights: str = "auto",
    classes: int | None = None,
    in_channels: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
    reading: Reading = AS_IT_SAYS,
) -> Network:
    """Build a network and give it weights.

    Args:
        model: a variant's or baseline's name, ``timm:NAME``, the path of a SPEC.json, or a spec.
            None takes the network that the weights were made for where they say so (bundled, hub,
            model folder), else resnet50.
        weights: ``auto`` (the best known ImageNet weights), ``bundled``, ``none`` (random), a
            file, a model or run folder, or a hub id (``OWNER/NAME`` or ``OWNER/NAME@REVISION``).
        classes: outputs of the head; None keeps the head of the weights, or of the spec.
        in_channels: channels of the input; None keeps those of the weights, or of the spec.
        image_size: pixels that the network shall see; None keeps those that the weights were made
            for, or the spec's.
        seed: of the random weights. The global generator is left as it was.
        reading: what the user says of weights that do not say it all.

    Raises:
        UsageError: an unknown variant, missing SPEC.json, no such kind of weights, or weights
            whose stride or pixels must be stated.
        SpecError: a SPEC.json that cannot be built.
        WeightsError: weights that cannot be had, read, or do not fit.
        ArtifactError: a model folder that cannot be used.
    """
    size = image_size if weights == "none" else None  # weights are as large as they are
    asked = None if model is None else resolve_spec(model, image_size=size)
    if weights == "none":
        spec = _changed(asked or VARIANTS[DEFAULT], classes, in_channels)
        preprocessing = at_size(usual_preprocessing(spec), image_size)
        return Network(_build(spec, seed), preprocessing, "random", None, None, ())
    if weights == "bundled" and asked is not None and asked.name != BUNDLED:
        raise UsageError(
            f"--weights bundled are those of {BUNDLED}, not of {asked.name}; leave --model out"
        )
    source = find_source(weights, asked or VARIANTS[DEFAULT])
    read = read_weights(source, asked, reading)
    source, notes = read.source, read.notes
    base = _base_spec(asked, source, read.state)
    spec = _changed(_at_size(base, image_size), classes, in_channels)
    preprocessing, said = _preprocessing(source, spec)
    preprocessing = at_size(preprocessing, image_size)
    network = _build(spec, seed, drawn=not read.fills(spec))
    adapted = load_weights(network, read.complete(network), origin=source.origin)
    known = source.described.classes if source.described else None
    return Network(
        model=network,
        preprocessing=preprocessing,
        origin=source.origin,
        sha256=sha256_file(source.path),
        class_names=known if known is not None and len(known) == spec.classes else None,
        notes=source.notes + notes + said + adapted,
        has_head=read.has_head,
    )


def resolve_spec(model: str | Path | Spec, *, image_size: int | None = None) -> Spec:
    """A name, the path of a SPEC.json, or a spec -> the spec.

    Args:
        model: a variant, a baseline, ``timm:NAME``, ``FILE.json``, or a spec.
        image_size: pixels that a network shall be meant for whose layers depend on it (the simple
            CNN, networks of timm's of a fixed size).

    Raises:
        UsageError: no such network or file.
        SpecError: it does not describe a network that can be built; names the file.
        MissingExtra: ``timm:NAME`` without timm.
    """
    if not isinstance(model, str | Path):
        return _at_size(model, image_size)
    name = str(model)
    if name.startswith(PREFIX):
        return timm_spec(name, image_size=image_size)
    if name in BASELINES:
        return baseline(name, image_size=image_size)
    path = Path(model).expanduser()
    if path.suffix.lower() != ".json":
        return _variant(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--model {path}: cannot be read: {reason}") from error
    try:
        return _at_size(spec_from_json(text), image_size)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _variant(name: str) -> ResNetSpec:
    """A residual net by name; where there is none, what else there is, is said as well."""
    try:
        return variant(name)
    except UsageError as error:
        near = get_close_matches(name, BASELINES, n=3, cutoff=0.75) or ["vgg16", "cnn"]
        raise UsageError(
            f"{error}; networks without shortcuts are {', '.join(near)}, ..., and any of timm's is "
            "timm:NAME"
        ) from error


def _at_size(spec: Spec, image_size: int | None) -> Spec:
    """The spec for images of that size; a residual net is the same for every size."""
    if image_size is None or isinstance(spec, ResNetSpec):
        return spec
    if isinstance(spec, TimmSpec):
        return resized(spec, image_size)
    changed: Spec = spec.replace(image_size=image_size)
    return changed


def _changed(spec: Spec, classes: int | None, in_channels: int | None) -> Spec:
    changed: Spec = spec.replace(
        classes=spec.classes if classes is None else classes,
        in_channels=spec.in_channels if in_channels is None else in_channels,
    )
    return changed


def _build(spec: Spec, seed: int, *, drawn: bool = True) -> Classifier:
    with torch.random.fork_rng(devices=[]), nullcontext() if drawn else Undrawn():
        torch.manual_seed(seed)
        return build(spec)


def _same(asked: Spec, own: Spec) -> bool:
    """Whether both are the same network but for name, classes, channels and image size."""
    free = dict.fromkeys(("name", "classes", "in_channels", "image_size", *TRAINING_ONLY))
    if isinstance(asked, TimmSpec) and not asked.model_args:
        free["model_args"] = None  # a bare timm:NAME takes those that the weights were made with
    return asked.to_dict() | free == own.to_dict() | free


def _base_spec(asked: Spec | None, source: Source, state: dict[str, Tensor]) -> Spec:
    """The network of the weights as they are, before classes and channels are changed."""
    if source.described is not None:
        own = source.described.spec
        if asked is not None and not _same(asked, own):
            raise WeightsError(
                f"{source.origin} holds {own.name}, not {asked.name}; leave --model out, or give "
                f"weights made for {asked.name}"
            )
        if asked is None or isinstance(own, TimmSpec):
            return own if asked is None else own.replace(name=asked.name)
        return asked.replace(  # type: ignore[no-any-return]
            classes=own.classes, in_channels=own.in_channels, image_size=own.image_size
        )
    spec = asked or VARIANTS[DEFAULT]
    head, first = stated(spec, state)
    found: Spec = spec.replace(
        classes=spec.classes if head is None or head.ndim != 2 else head.shape[0],
        in_channels=spec.in_channels if first is None or first.ndim != 4 else first.shape[1],
    )
    return found


def _preprocessing(source: Source, spec: Spec) -> tuple[Preprocessing, tuple[str, ...]]:
    if source.described is None:
        used = usual_preprocessing(spec)
        whose = "timm's mean and std" if isinstance(spec, TimmSpec) else "ImageNet's mean and std"
        notes = [
            f"{source.path.name}: a bare file states no preprocessing; used that of {spec.name}: "
            f"short side {used.resize}, crop {used.size}, {used.interpolation}, {whose}"
            f"{'' if used.channels == 3 else ', averaged over its channels'}"
        ]
        if isinstance(spec, ResNetSpec) and (spec.block, spec.order) == ("bottleneck", "post"):
            kind = "v1 (stride on the first 1x1)" if spec.bottleneck_stride == "1x1" else "v1.5"
            notes.append(
                f"{source.path.name}: its names cannot tell v1 from v1.5; read as {kind}, as "
                f"{spec.name} is"
            )
        return used, tuple(notes)
    own = source.described.preprocessing
    if own.channels == spec.in_channels:
        return own, ()
    changed = for_channels(own, spec.in_channels)
    return changed, (
        f"preprocessing: mean {changed.mean[0]} and std {changed.std[0]} for each channel",
    )
