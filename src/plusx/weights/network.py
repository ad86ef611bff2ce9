"""A network with its weights and everything that belongs to them."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plusx.data.preprocessing import Preprocessing
from plusx.errors import SpecError, UsageError, WeightsError
from plusx.model import VARIANTS, ResNet, ResNetSpec, variant
from plusx.weights.files import sha256_file
from plusx.weights.foreign.reading import AS_IT_SAYS, Reading, read_weights
from plusx.weights.load import HEAD, first_weight, load_weights
from plusx.weights.sources import BUNDLED, Source, find_source
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

    model: ResNet
    preprocessing: Preprocessing
    origin: str
    sha256: str | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]
    has_head: bool = True


def create(
    model: str | Path | ResNetSpec | None = None,
    *,
    weights: str = "auto",
    classes: int | None = None,
    in_channels: int | None = None,
    seed: int = 0,
) -> ResNet:
    """The network alone; see ``create_network``.

    >>> create("resnet18", weights="none", classes=3)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 3])
    """
    network = create_network(
        model, weights=weights, classes=classes, in_channels=in_channels, seed=seed
    )
    return network.model


def create_network(
    model: str | Path | ResNetSpec | None = None,
    *,
    weights: str = "auto",
    classes: int | None = None,
    in_channels: int | None = None,
    seed: int = 0,
    reading: Reading = AS_IT_SAYS,
) -> Network:
    """Build a network and give it weights.

    Args:
        model: a variant's name, the path of a SPEC.json, or a spec. None takes the network that
            the weights were made for where they say so (bundled, hub, model folder), else
            resnet50.
        weights: ``auto`` (the best known ImageNet weights), ``bundled``, ``none`` (random), a
            file, a model or run folder, or a hub id (``OWNER/NAME`` or ``OWNER/NAME@REVISION``).
        classes: outputs of the head; None keeps the head of the weights, or of the spec.
        in_channels: channels of the input; None keeps those of the weights, or of the spec.
        seed: of the random weights. The global generator is left as it was.
        reading: what the user says of weights that do not say it all.

    Raises:
        UsageError: an unknown variant, missing SPEC.json, no such kind of weights, or weights
            whose stride or pixels must be stated.
        SpecError: a SPEC.json that cannot be built.
        WeightsError: weights that cannot be had, read, or do not fit.
        ArtifactError: a model folder that cannot be used.
    """
    asked = None if model is None else resolve_spec(model)
    if weights == "none":
        spec = _changed(asked or VARIANTS[DEFAULT], classes, in_channels)
        preprocessing = Preprocessing.for_size(spec.image_size, spec.in_channels)
        return Network(_build(spec, seed), preprocessing, "random", None, None, ())
    if weights == "bundled" and asked is not None and asked.name != BUNDLED:
        raise UsageError(
            f"--weights bundled are those of {BUNDLED}, not of {asked.name}; leave --model out"
        )
    source = find_source(weights, asked or VARIANTS[DEFAULT])
    read = read_weights(source, asked, reading)
    source, notes = read.source, read.notes
    base = _base_spec(asked, source, read.state)
    spec = _changed(base, classes, in_channels)
    preprocessing, said = _preprocessing(source, spec)
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


def resolve_spec(model: str | Path | ResNetSpec) -> ResNetSpec:
    """A variant's name, the path of a SPEC.json, or a spec -> the spec.

    Raises:
        UsageError: no such variant or file.
        SpecError: the file does not describe a network that can be built; names the file.
    """
    if isinstance(model, ResNetSpec):
        return model
    path = Path(model).expanduser()
    if path.suffix.lower() != ".json":
        return variant(str(model))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"--model {path}: cannot be read: {reason}") from error
    try:
        return ResNetSpec.from_json(text)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error


def _changed(spec: ResNetSpec, classes: int | None, in_channels: int | None) -> ResNetSpec:
    return spec.replace(
        classes=spec.classes if classes is None else classes,
        in_channels=spec.in_channels if in_channels is None else in_channels,
    )


def _build(spec: ResNetSpec, seed: int, *, drawn: bool = True) -> ResNet:
    with torch.random.fork_rng(devices=[]), nullcontext() if drawn else Undrawn():
        torch.manual_seed(seed)
        return ResNet(spec)


def _same(one: ResNetSpec, other: ResNetSpec) -> bool:
    """Whether both are the same network but for name, classes, channels and image size."""
    free = ("name", "classes", "in_channels", "image_size")
    return one.replace(**{field: getattr(other, field) for field in free}) == other


def _base_spec(asked: ResNetSpec | None, source: Source, state: dict[str, Tensor]) -> ResNetSpec:
    """The network of the weights as they are, before classes and channels are changed."""
    if source.described is not None:
        own = source.described.spec
        if asked is not None and not _same(asked, own):
            raise WeightsError(
                f"{source.origin} holds {own.name}, not {asked.name}; leave --model out, or give "
                f"weights made for {asked.name}"
            )
        return (
            own
            if asked is None
            else asked.replace(
                classes=own.classes, in_channels=own.in_channels, image_size=own.image_size
            )
        )
    spec = asked or VARIANTS[DEFAULT]
    head, first = state.get(HEAD[0]), first_weight(state)
    return spec.replace(
        classes=spec.classes if head is None or head.ndim != 2 else head.shape[0],
        in_channels=spec.in_channels if first is None or first.ndim != 4 else first.shape[1],
    )


def _preprocessing(source: Source, spec: ResNetSpec) -> tuple[Preprocessing, tuple[str, ...]]:
    if source.described is None:
        used = Preprocessing.for_size(spec.image_size, spec.in_channels)
        notes = [
            f"{source.path.name}: a bare file states no preprocessing; used that of {spec.name}: "
            f"short side {used.resize}, crop {used.size}, {used.interpolation}, ImageNet's mean "
            f"and std{'' if used.channels == 3 else ', averaged over its channels'}"
        ]
        if spec.block == "bottleneck":
            kind = "v1 (stride on the first 1x1)" if spec.bottleneck_stride == "1x1" else "v1.5"
            notes.append(
                f"{source.path.name}: its names cannot tell v1 from v1.5; read as {kind}, as "
                f"{spec.name} is"
            )
        return used, tuple(notes)
    own = source.described.preprocessing
    if own.channels == spec.in_channels:
        return own, ()
    mean, std = (round(sum(values) / own.channels, 6) for values in (own.mean, own.std))
    changed = dataclasses.replace(
        own,
        channels=spec.in_channels,
        mean=(mean,) * spec.in_channels,
        std=(std,) * spec.in_channels,
    )
    return changed, (f"preprocessing: mean {mean} and std {std} for each channel",)
