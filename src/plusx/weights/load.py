"""Weights into a network: adapted where that is well defined, and said; refused otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plusx.errors import UsageError, WeightsMismatch
from plusx.model import VARIANTS, ResNet, ResNetSpec, cifar, cifar_preact, wrn
from plusx.model.classifier import Classifier, Spec
from plusx.weights.names import (
    OPTIONAL,
    TONGUES,
    disk_name,
    disk_or_own,
    strip_prefixes,
    to_internal,
    tongue_for,
)

HEAD = ("head.fc.weight", "head.fc.bias")
FIRST = ("stem.start.conv1.weight", "stem.conv.weight")
"""The first convolution: of a deep stem, of any other."""
SHOWN = 10
"""How many names of each kind an error lists."""


def tongue_of(spec: Spec) -> str | None:
    """The tongue that such a network is written in; None for plusx's own names as they are."""
    if isinstance(spec, ResNetSpec):
        return tongue_for(spec.order, spec.stem, spec.shortcut)
    return None


def internal_state(state: Mapping[str, Tensor], spec: Spec | None = None) -> dict[str, Tensor]:
    """The state under plusx's internal names, whatever wrapper it came in.

    Args:
        state: in the tongue of the spec, or plusx's own names.
        spec: the network it is for; None takes the tongue that knows the most names.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    if spec is not None and tongue_of(spec) is None:
        return {name: state[key] for key, name in strip_prefixes(state).items()}
    tongue = None if spec is None else tongue_of(spec)
    named = {name: state[key] for key, name in to_internal(state, tongue).items()}
    weight = named.get(HEAD[0])
    if weight is not None and weight.ndim == 4 and weight.shape[2:] == (1, 1):
        named[HEAD[0]] = weight.flatten(1)
    return named


def first_weight(state: Mapping[str, Tensor]) -> Tensor | None:
    """The first convolution's weight (O, C, k, k) in a state under internal names, if there."""
    return next((state[name] for name in FIRST if name in state), None)


def disk_state(model: Classifier) -> dict[str, Tensor]:
    """The model's state under its names on disk, contiguous, on the CPU."""
    tongue = tongue_of(model.spec)
    written = {}
    for name, value in model.state_dict().items():
        if tongue is not None and name == HEAD[0] and not TONGUES[tongue].linear_head:
            value = value[:, :, None, None]
        name = name if tongue is None else disk_name(name, tongue)
        written[name] = value.detach().cpu().contiguous()
    return written


def load_weights(
    model: Classifier, state: Mapping[str, Tensor], *, origin: str, adapt: bool = True
) -> tuple[str, ...]:
    """Load a state dict into ``model``; all or nothing.

    A head for another number of classes is left out (the model keeps its own), and a first
    convolution for another number of input channels is adapted. Whether a bottleneck net strides
    its 1x1 (v1), its 3x3 (v1.5) or by a blur cannot be seen in names and shapes: the model's spec
    decides.

    Args:
        model: loaded in place; its spec says what must fit.
        state: names as on disk (``tongue_of``) or plusx's, with or without wrappers' prefixes.
        origin: where the state comes from, for messages.
        adapt: False refuses a changed head or first convolution as well.

    Returns:
        What was adapted, one line each.

    Raises:
        WeightsMismatch: anything else is missing, unexpected or of another shape.
    """
    named = internal_state(state, model.spec)
    notes: list[str] = []
    own = model.state_dict()
    if adapt:
        notes += _adapt_head(named, own)
        notes += _adapt_first(named, own)
    complete = {k: v for k, v in own.items() if k.endswith(OPTIONAL)} | named
    if problem := _misfit(model.spec, complete, own):
        raise WeightsMismatch(f"{origin} does not fit {model.spec.name}: {problem}; "
                              f"{_hint(model.spec, state)}")  # fmt: skip
    model.load_state_dict(own | complete)
    return tuple(notes)


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A first convolution (O, M, k, k) for ``channels`` inputs instead of M.

    To one channel: the sum, which answers a grey image as it did three equal channels. To more:
    repeated in turn and scaled by M / channels, so that the output keeps its size. The same as
    timm's ``adapt_input_conv`` (timm/models/_manipulate.py) for M = 3.
    """
    have = weight.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // have), 1, 1)[:, :channels]
    return repeated * (have / channels)


def looks_like(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The known variants that have just these names and shapes, but for classes and channels.

    Args:
        state: in any tongue, with or without wrappers' prefixes.
    """
    shapes = {name: state[key].shape for key, name in strip_prefixes(state).items()}
    try:
        found = [spec for spec in _candidates(internal_state(state)) if _fits(spec, shapes)]
    except WeightsMismatch:
        return ()
    return tuple(spec.name for spec in found)


def _candidates(state: Mapping[str, Tensor]) -> list[ResNetSpec]:
    """Variants with as many blocks per stage as ``state`` (internal names) has."""
    depths: dict[int, int] = {}
    for name in state:
        if found := re.match(r"stages\.(\d+)\.(\d+)\.residual\.conv1\.", name):
            depths[int(found[1])] = max(depths.get(int(found[1]), 0), int(found[2]) + 1)
    seen = tuple(depths[stage] for stage in sorted(depths))
    known = list(VARIANTS.values())
    if len(seen) == 3 and len(set(seen)) == 1:
        known += _for_small_images(seen[0], state)
    # A net without projections has the names and shapes of its plain twin.
    known += [s.plain_twin() for s in known if not s.name.endswith(("_b", "_c", "_v1"))]
    unique = {spec.replace(name=""): spec for spec in reversed(known)}.values()
    traits = _traits(state)
    return [s for s in reversed(unique) if s.depths == seen and _may_be(s, traits)]


@dataclass(frozen=True)
class _Traits:
    """What is quick to see of a state under internal names."""

    width: int
    bottleneck: bool
    pre: bool
    attends: bool
    projects: bool


def _traits(state: Mapping[str, Tensor]) -> _Traits:
    first = state.get("stages.0.0.residual.conv1.weight")
    return _Traits(
        width=0 if first is None else first.shape[0],
        bottleneck=any(".residual.conv3." in name for name in state),
        pre=any(".preact." in name for name in state),
        attends=any(".attention." in name for name in state),
        projects=any(".shortcut." in name for name in state),
    )


def _may_be(spec: ResNetSpec, seen: _Traits) -> bool:
    own = _Traits(
        width=spec.inner_width(0),
        bottleneck=spec.block == "bottleneck",
        pre=spec.order == "pre",
        attends=spec.channel_attention != "none",
        projects=seen.projects and spec.shortcut != "none",
    )
    return own == seen


def _for_small_images(n: int, state: Mapping[str, Tensor]) -> list[ResNetSpec]:
    """The nets that go by pattern, with ``n`` blocks in each of three stages."""
    found = [cifar(6 * n + 2, option) for option in "abc"]
    for depth in (6 * n + 2, 9 * n + 2):
        try:
            spec = cifar_preact(depth)
        except UsageError:
            continue
        found += [spec] if spec.depths[0] == n and spec not in found else []
    weight = state.get("stages.0.0.residual.conv1.weight")
    if weight is not None and weight.shape[0] % 16 == 0:
        found.append(wrn(6 * n + 4, weight.shape[0] // 16))
    return found


def _fits(spec: ResNetSpec, shapes: Mapping[str, torch.Size]) -> bool:
    """Whether a file with these names and shapes is one for ``spec``."""
    with torch.device("meta"):
        own = ResNet(spec).state_dict()
    tongue = tongue_for(spec.order, spec.stem, spec.shortcut)
    theirs = {name: shapes[key] for key, name in to_internal(shapes, tongue).items()}
    wanted = {name for name in own if not name.endswith(OPTIONAL)}
    if wanted != {name for name in theirs if not name.endswith(OPTIONAL)}:
        return False
    return all(theirs[name] == own[name].shape for name in wanted - {*HEAD, *FIRST})


def _adapt_head(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    weight, bias = (state.get(name) for name in HEAD)
    want = own[HEAD[0]].shape
    if weight is None or bias is None or weight.shape == want:
        return []
    if weight.shape[1:] != want[1:] or bias.shape != weight.shape[:1]:
        return []
    state.update({name: own[name] for name in HEAD})
    return [f"head for {weight.shape[0]} classes replaced by a fresh one for {want[0]}"]


def _adapt_first(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    name = next((name for name in FIRST if name in own), "")
    weight = state.get(name)
    if weight is None or weight.ndim != 4 or weight.shape == own[name].shape:
        return []
    want = own[name].shape
    if (weight.shape[0], *weight.shape[2:]) != (want[0], *want[2:]):
        return []
    state[name] = adapt_channels(weight, want[1])
    how = "summed" if want[1] == 1 else "repeated in turn and rescaled"
    return [f"first convolution for {weight.shape[1]} channels {how} for {want[1]}"]


def _misfit(spec: Spec, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape; empty if nothing is."""
    tongue = tongue_of(spec)

    def said(name: str) -> str:
        return name if tongue is None else disk_or_own(name, tongue)

    kinds = {
        "missing": [said(name) for name in own if name not in state],
        "unexpected": [said(name) for name in state if name not in own],
        "of another shape": [
            f"{said(name)} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    )


def _hint(spec: Spec, state: Mapping[str, Tensor]) -> str:
    """What to do about weights that do not fit."""
    fits = looks_like(state)
    if fits and spec.name not in fits:
        return f"these look like {' or '.join(fits)} weights, so ask for that model"
    return "give the model they were made for (a variant's name or a SPEC.json)"
