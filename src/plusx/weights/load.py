"""Weights into a network: adapted where that is well defined, and said; refused otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from plusx.errors import WeightsMismatch
from plusx.model import VARIANTS, ResNet, ResNetSpec, cifar
from plusx.weights.names import OPTIONAL, disk_name, disk_or_own, to_internal

HEAD = ("head.fc.weight", "head.fc.bias")
FIRST = "stem.conv.weight"
SHOWN = 10
"""How many names of each kind an error lists."""


def internal_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under plusx's internal names, whatever tongue and wrapper it came in.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    return {name: state[key] for key, name in to_internal(state).items()}


def disk_state(model: ResNet) -> dict[str, Tensor]:
    """The model's state under torchvision's names, contiguous, on the CPU."""
    return {
        disk_name(name): value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def load_weights(
    model: ResNet, state: Mapping[str, Tensor], *, origin: str, adapt: bool = True
) -> tuple[str, ...]:
    """Load a state dict in any known tongue into ``model``; all or nothing.

    A head for another number of classes is left out (the model keeps its own), and a first
    convolution for another number of input channels is adapted. Whether a bottleneck net strides
    its 1x1 (v1) or its 3x3 (v1.5) cannot be seen in names and shapes: the model's spec decides.

    Args:
        model: loaded in place; its spec says what must fit.
        state: torchvision's, timm's or plusx's names, with or without wrappers' prefixes.
        origin: where the state comes from, for messages.
        adapt: False refuses a changed head or first convolution as well.

    Returns:
        What was adapted, one line each.

    Raises:
        WeightsMismatch: anything else is missing, unexpected or of another shape.
    """
    named = internal_state(state)
    notes: list[str] = []
    own = model.state_dict()
    if adapt:
        notes += _adapt_head(named, own)
        notes += _adapt_first(named, own)
    complete = {k: v for k, v in own.items() if k.endswith(OPTIONAL)} | named
    _check(model.spec, complete, own, origin)
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
    """The known variants whose blocks have the shapes in ``state`` (internal names)."""
    widths: dict[int, int] = {}
    depths: dict[int, int] = {}
    for name, value in state.items():
        if found := re.fullmatch(r"stages\.(\d+)\.(\d+)\.residual\.conv1\.weight", name):
            stage, block = int(found[1]), int(found[2])
            depths[stage] = max(depths.get(stage, 0), block + 1)
            widths[stage] = value.shape[0]
    stem = state.get(FIRST)
    if not depths or stem is None:
        return ()
    bottleneck = any(name.endswith("residual.conv3.weight") for name in state)
    seen = (
        "bottleneck" if bottleneck else "basic",
        tuple(depths[stage] for stage in sorted(depths)),
        tuple(widths[stage] for stage in sorted(widths)),
        (stem.shape[0], f"{stem.shape[2]}x{stem.shape[3]}"),
        sum(name.endswith("shortcut.conv.weight") for name in state),
    )
    known = list(VARIANTS.values())
    if len(depths) == 3 and len(set(depths.values())) == 1:
        known += [cifar(6 * depths[0] + 2, option) for option in "abc"]
    # A net without projections has the names and shapes of its plain twin.
    known += [spec.plain_twin() for spec in known if not spec.name.endswith(("_b", "_c", "_v1"))]
    return tuple(spec.name for spec in known if _traits(spec) == seen)


def _traits(spec: ResNetSpec) -> tuple[object, ...]:
    changes = spec.stages - (spec.stem_width == spec.stage_channels[0])
    projections = {"conv": changes, "conv-all": spec.blocks}
    return (
        spec.block,
        spec.depths,
        spec.widths,
        (spec.stem_width, spec.stem),
        projections.get(spec.shortcut, 0),
    )


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
    weight = state.get(FIRST)
    want = own[FIRST].shape
    if weight is None or weight.ndim != 4 or weight.shape == want:
        return []
    if (weight.shape[0], *weight.shape[2:]) != (want[0], *want[2:]):
        return []
    state[FIRST] = adapt_channels(weight, want[1])
    how = "summed" if want[1] == 1 else "repeated in turn and rescaled"
    return [f"first convolution for {weight.shape[1]} channels {how} for {want[1]}"]


def _check(
    spec: ResNetSpec, state: Mapping[str, Tensor], own: Mapping[str, Tensor], origin: str
) -> None:
    kinds = {
        "missing": [disk_or_own(name) for name in own if name not in state],
        "unexpected": [disk_or_own(name) for name in state if name not in own],
        "of another shape": [
            f"{disk_or_own(name)} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    if not any(kinds.values()):
        return
    listed = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    )
    fits = looks_like(state)
    hint = "give the model they were made for (a variant's name or a SPEC.json)"
    if fits and spec.name not in fits:
        hint = f"these look like {' or '.join(fits)} weights, so ask for that model"
    raise WeightsMismatch(f"{origin} does not fit {spec.name}: {listed}; {hint}")
