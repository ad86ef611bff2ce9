"""Which known variants a state could be of, from its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plusx.errors import UsageError, WeightsMismatch
from plusx.model import VARIANTS, ResNet, ResNetSpec, cifar, cifar_preact, wrn
from plusx.weights.families import FIRST, HEAD, head_shaped, tongue_of
from plusx.weights.names import OPTIONAL, strip_prefixes, to_internal


def looks_like(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The known variants that have just these names and shapes, but for classes and channels.

    Args:
        state: in any tongue, with or without wrappers' prefixes.
    """
    shapes = {name: state[key].shape for key, name in strip_prefixes(state).items()}
    try:
        found = [spec for spec in _candidates(nearest_state(state)) if _fits(spec, shapes)]
    except WeightsMismatch:
        return ()
    return tuple(spec.name for spec in found)


def depths_of(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Residual blocks in each stage of a state under internal names."""
    depths: dict[int, int] = {}
    for name in state:
        if found := re.fullmatch(r"stages\.(\d+)\.(\d+)\.residual\.conv1\.weight", name):
            depths[int(found[1])] = max(depths.get(int(found[1]), 0), int(found[2]) + 1)
    return tuple(depths[stage] for stage in sorted(depths))


def nearest_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A residual net's state under internal names, by the tongue that knows the most of its names.

    Raises:
        WeightsMismatch: two entries mean the same parameter.
    """
    names = to_internal(state)
    return {name: head_shaped(name, state[key]) for key, name in names.items()}


def _candidates(state: Mapping[str, Tensor]) -> list[ResNetSpec]:
    """Variants with as many blocks per stage as ``state`` (internal names) has."""
    seen = depths_of(state)
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
    theirs = {name: shapes[key] for key, name in to_internal(shapes, tongue_of(spec)).items()}
    wanted = {name for name in own if not name.endswith(OPTIONAL)}
    if wanted != {name for name in theirs if not name.endswith(OPTIONAL)}:
        return False
    return all(theirs[name] == own[name].shape for name in wanted - {*HEAD, *FIRST})
