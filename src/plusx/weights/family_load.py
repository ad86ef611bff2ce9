"""Weights into a network of any family: what ``load.py`` does for residual nets, for all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from plusx.errors import WeightsMismatch
from plusx.model import ResNet, ResNetSpec
from plusx.model.baselines import VGGSpec
from plusx.model.classifier import Classifier, Spec
from plusx.weights import load
from plusx.weights.families import family, first_conv, written_name
from plusx.weights.names import OPTIONAL, strip_prefixes
from plusx.weights.timm_net import TimmSpec

State = Mapping[str, Tensor]


def disk_state(model: Classifier) -> dict[str, Tensor]:
    """The model's state under the names it has in files, contiguous, on the CPU."""
    if isinstance(model, ResNet):
        return load.disk_state(model)
    return {
        written_name(model.spec, name): value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def stated(spec: Spec, state: State) -> tuple[Tensor | None, Tensor | None]:
    """The head's weight (K, C) and the first convolution's (O, C, k, k) in a file, if there.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    named = internal_state(spec, state)
    if family(spec) is None:
        return named.get(load.HEAD[0]), load.first_weight(named)
    return named.get(load.HEAD[0]), named.get(first_conv(spec))


def internal_state(spec: Spec, state: State) -> dict[str, Tensor]:
    """The state of a file under internal names, whatever tongue and wrapper it came in.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    found = family(spec)
    if found is None:
        return load.internal_state(state, spec if isinstance(spec, ResNetSpec) else None)
    keys = strip_prefixes(state)
    if isinstance(spec, TimmSpec) and any(key.startswith(spec.classifier + ".") for key in state):
        keys = {key: key for key in state}  # its own names may begin like a wrapper's
    named: dict[str, Tensor] = {}
    for key, stripped in keys.items():
        name = found.read(spec, stripped)
        if name in named:
            raise WeightsMismatch(
                f"{key!r} names the parameter {written_name(spec, name)!r}, as another entry "
                "does; keep one of them in the file"
            )
        named[name] = _shaped(spec, name, state[key])
    return named


def _shaped(spec: Spec, name: str, value: Tensor) -> Tensor:
    """A hidden layer of torchvision's VGG, (O, I * 7 * 7), as the convolution it is."""
    if not isinstance(spec, VGGSpec) or value.ndim != 2:
        return value
    hidden = f"stages.{len(spec.depths)}."
    if name == f"{hidden}0.conv.weight" and value.shape[1] == 49 * spec.widths[-1]:
        return value.reshape(len(value), spec.widths[-1], 7, 7)
    return value[:, :, None, None] if name == f"{hidden}1.conv.weight" else value


def load_weights(
    model: Classifier, state: State, *, origin: str, adapt: bool = True
) -> tuple[str, ...]:
    """Load a state dict into a network of any family; all or nothing. See ``load.load_weights``.

    Weights of timm's that have no classifier at all leave the network its own.

    Returns:
        What was adapted, one line each.

    Raises:
        WeightsMismatch: anything else is missing, unexpected or of another shape.
    """
    if isinstance(model, ResNet):
        return load.load_weights(model, state, origin=origin, adapt=adapt)
    named, own = internal_state(model.spec, state), model.state_dict()
    notes = _adapt(model.spec, named, own) if adapt else []
    complete = {k: v for k, v in own.items() if k.endswith(OPTIONAL)} | named
    _check(model.spec, complete, own, origin)
    model.load_state_dict(complete)
    return tuple(notes)


def _adapt(spec: Spec, state: dict[str, Tensor], own: State) -> list[str]:
    """Another number of classes or channels than the network's, in place."""
    notes = []
    weight, want = state.get(load.HEAD[0]), own[load.HEAD[0]]
    if weight is None and isinstance(spec, TimmSpec) and load.HEAD[1] not in state:
        state.update({name: own[name] for name in load.HEAD})
        notes.append(f"the weights have no head: a fresh one for {len(want)} classes")
    elif weight is not None and weight.shape[1:] == want.shape[1:] and len(weight) != len(want):
        state.update({name: own[name] for name in load.HEAD})
        notes.append(f"head for {len(weight)} classes replaced by a fresh one for {len(want)}")
    name = first_conv(spec)
    first, target = state.get(name), own.get(name)
    if first is None or target is None or first.ndim != 4 or first.shape == target.shape:
        return notes
    if (len(first), *first.shape[2:]) == (len(target), *target.shape[2:]):
        state[name] = load.adapt_channels(first, target.shape[1])
        how = "summed" if target.shape[1] == 1 else "repeated in turn and rescaled"
        notes.append(f"first convolution for {first.shape[1]} channels {how} for {target.shape[1]}")
    return notes


def _check(spec: Spec, state: State, own: State, origin: str) -> None:
    kinds = {
        "missing": [written_name(spec, name) for name in own if name not in state],
        "unexpected": [written_name(spec, name) for name in state if name not in own],
        "of another shape": [
            f"{written_name(spec, name)} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
            for name, value in state.items()
            if name in own and value.shape != own[name].shape
        ],
    }
    listed = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[: load.SHOWN])}"
        + (", ..." if len(names) > load.SHOWN else "")
        for kind, names in kinds.items()
        if names
    )
    if listed:
        raise WeightsMismatch(
            f"{origin} does not fit {spec.name}: {listed}; give the model they were made for (a "
            "variant's name or a SPEC.json)"
        )
