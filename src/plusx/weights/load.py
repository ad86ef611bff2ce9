"""Weights into a network of any family: adapted where that is well defined, and said; refused
otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from plusx.errors import WeightsMismatch
from plusx.model.classifier import Classifier, Spec
from plusx.weights.families import FIRST, HEAD, family, first_conv, written_name
from plusx.weights.names import OPTIONAL, strip_prefixes
from plusx.weights.recognise import looks_like
from plusx.weights.timm_net import TimmSpec

State = Mapping[str, Tensor]

SHOWN = 10
"""How many names of each kind an error lists."""


def disk_state(model: Classifier) -> dict[str, Tensor]:
    """The model's state under its names on disk, contiguous, on the CPU."""
    spec = model.spec
    stored = family(spec).stored
    return {
        written_name(spec, name): stored(spec, name, value).detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def internal_state(state: State, spec: Spec) -> dict[str, Tensor]:
    """The state of a file under plusx's internal names, whatever wrapper it came in.

    Args:
        state: in a tongue of the spec's family, or plusx's own names.
        spec: the network it is for.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    found = family(spec)
    keys = strip_prefixes(state)
    if isinstance(spec, TimmSpec) and any(key.startswith(spec.classifier + ".") for key in state):
        keys = {key: key for key in state}  # its own names may begin like a wrapper's
    named: dict[str, Tensor] = {}
    taken: dict[str, str] = {}
    for key, stripped in keys.items():
        name = found.read(spec, stripped)
        if name in taken:
            raise WeightsMismatch(
                f"{taken[name]!r} and {key!r} both name the parameter "
                f"{written_name(spec, name)!r}; keep one of them in the file"
            )
        taken[name] = key
        named[name] = found.shaped(spec, name, state[key])
    return named


def stated(spec: Spec, state: State) -> tuple[Tensor | None, Tensor | None]:
    """The head's weight (K, C) and the first convolution's (O, C, k, k) in a file, if there.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    named = internal_state(state, spec)
    return named.get(HEAD[0]), named.get(first_conv(spec))


def first_weight(state: State) -> Tensor | None:
    """A residual net's first convolution (O, C, k, k), under internal names, if it is there."""
    return next((state[name] for name in FIRST if name in state), None)


def load_weights(
    model: Classifier, state: State, *, origin: str, adapt: bool = True
) -> tuple[str, ...]:
    """Load a state dict into ``model``; all or nothing.

    A head for another number of classes is left out (the model keeps its own), and a first
    convolution for another number of input channels is adapted. Weights of timm's that have no
    classifier at all leave the network its own. Whether a bottleneck net strides its 1x1 (v1), its
    3x3 (v1.5) or by a blur cannot be seen in names and shapes: the model's spec decides.

    Args:
        model: loaded in place; its spec says what must fit.
        state: names as on disk or plusx's, with or without wrappers' prefixes.
        origin: where the state comes from, for messages.
        adapt: False refuses a changed head or first convolution as well.

    Returns:
        What was adapted, one line each.

    Raises:
        WeightsMismatch: anything else is missing, unexpected or of another shape.
    """
    spec = model.spec
    named, own = internal_state(state, spec), model.state_dict()
    notes = _adapt_head(spec, named, own) + _adapt_first(spec, named, own) if adapt else []
    complete = {k: v for k, v in own.items() if k.endswith(OPTIONAL)} | named
    if problem := _misfit(spec, complete, own):
        raise WeightsMismatch(f"{origin} does not fit {spec.name}: {problem}; {_hint(spec, state)}")
    model.load_state_dict(complete)
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


def _adapt_head(spec: Spec, state: dict[str, Tensor], own: State) -> list[str]:
    weight, bias = (state.get(name) for name in HEAD)
    want = own[HEAD[0]].shape
    fresh = {name: own[name] for name in HEAD}
    if weight is None and bias is None and isinstance(spec, TimmSpec):
        state.update(fresh)
        return [f"the weights have no head: a fresh one for {want[0]} classes"]
    if weight is None or bias is None or weight.shape == want:
        return []
    if weight.shape[1:] != want[1:] or bias.shape != weight.shape[:1]:
        return []
    state.update(fresh)
    return [f"head for {weight.shape[0]} classes replaced by a fresh one for {want[0]}"]


def _adapt_first(spec: Spec, state: dict[str, Tensor], own: State) -> list[str]:
    name = first_conv(spec)
    weight, target = state.get(name), own.get(name)
    if weight is None or target is None or weight.ndim != 4 or weight.shape == target.shape:
        return []
    want = target.shape
    if (weight.shape[0], *weight.shape[2:]) != (want[0], *want[2:]):
        return []
    state[name] = adapt_channels(weight, want[1])
    how = "summed" if want[1] == 1 else "repeated in turn and rescaled"
    return [f"first convolution for {weight.shape[1]} channels {how} for {want[1]}"]


def _misfit(spec: Spec, state: State, own: State) -> str:
    """What is missing, unexpected or of another shape; empty if nothing is."""
    kinds = {
        "missing": [written_name(spec, name) for name in own if name not in state],
        "unexpected": [written_name(spec, name) for name in state if name not in own],
        "of another shape": [
            f"{written_name(spec, name)} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for kind, names in kinds.items()
        if names
    )


def _hint(spec: Spec, state: State) -> str:
    """What to do about weights that do not fit."""
    fits = looks_like(state)
    if fits and spec.name not in fits:
        return f"these look like {' or '.join(fits)} weights, so ask for that model"
    return "give the model they were made for (a variant's name or a SPEC.json)"
