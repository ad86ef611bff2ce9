"""Nets with blocks removed or in another order, run without doing anything twice.

A plan says which block stands at each place of the net, -1 for none. Plans that begin alike share
all that they have in common: they are run as one tree, depth first, so that the memory needed is
one activation a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.model.baselines import ConvBlock
from plusx.model.blocks import PreActivationBlock, ResidualBlock
from plusx.model.classifier import Classifier, average

Plan = tuple[int, ...]
GONE = -1


@dataclass(frozen=True)
class Place:
    """Where a block stands.

    Attributes:
        number: from 0, over all stages.
        stage, position: from 0.
        removable: whether the net has a way round it: a shortcut, or the layer keeps the shape.
        common: removable, and no residual block that changes the shape.
        movable: it keeps the shape, so that others of its stage may stand in its place.
        parameters: of the block.
    """

    number: int
    stage: int
    position: int
    removable: bool
    common: bool
    movable: bool
    parameters: int


@dataclass(frozen=True)
class State:
    """Half-way through the net: the activation, and the stages pooled so far."""

    x: Tensor
    pooled: tuple[Tensor, ...] = ()


class Line:
    """A net as the straight line it is: stem, blocks, head.

    Raises:
        UsageError: it has no blocks that could be removed.
    """

    def __init__(self, model: Classifier) -> None:
        self._model = model
        stages = [cast("nn.Sequential", stage) for stage in model.stages]
        self.blocks = list(chain.from_iterable(stages))
        self.places = [
            _place(block, number, stage, position)
            for number, (stage, position, block) in enumerate(
                (s, p, block) for s, blocks in enumerate(stages) for p, block in enumerate(blocks)
            )
        ]
        if not any(place.removable for place in self.places):
            raise UsageError(
                f"{model.spec.name}: has no block with a shortcut and no layer that keeps the "
                "shape, so none can be removed; give a residual net or a VGG"
            )
        self._first_pooled = model.spec.stages - model.spec.feature_stages
        self._last = {
            place.number
            for place, after in zip(self.places, [*self.places[1:], None], strict=True)
            if after is None or after.stage != place.stage
        }

    @property
    def whole(self) -> Plan:
        """The net as it is."""
        return tuple(range(len(self.blocks)))

    def start(self, images: Tensor) -> State:
        """(N, C, H, W) -> what the first block gets."""
        return State(self._model.stem(images))

    def step(self, state: State, at: int, block: int) -> State:
        """Through the place ``at``, where ``block`` stands, or GONE."""
        x = bypass(self.blocks[at], state.x) if block == GONE else self.blocks[block](state.x)
        place, pooled = self.places[at], state.pooled
        if at in self._last and place.stage >= self._first_pooled:
            final = at == len(self.blocks) - 1
            pooled = (*pooled, average(self._model.norm(x) if final else x))
        return State(x, pooled)

    def finish(self, state: State) -> Tensor:
        """Logits (N, classes)."""
        logits: Tensor = self._model.head(torch.cat(state.pooled, dim=1))
        return logits


def bypass(block: nn.Module, x: Tensor) -> Tensor:
    """What is left where a block's learned branch is taken away: its shortcut (Veit et al. 2016,
    figure 2), or what came in, pooled where the layer pools."""
    if isinstance(block, ConvBlock):
        return cast(Tensor, block.pool(x))
    if isinstance(block, PreActivationBlock) and block.shortcut is not None:
        return cast(Tensor, block.shortcut(block.preact(x) if block.projects else x))
    if isinstance(block, ResidualBlock) and block.shortcut is not None:
        return cast(Tensor, block.act(block.shortcut(x).clone()))  # it may write in place
    return x


def right_answers(
    line: Line, plans: Sequence[Plan], images: Tensor, targets: Tensor
) -> npt.NDArray[np.bool_]:
    """Which images each plan answers rightly: (plans, N)."""
    found = np.zeros((len(plans), len(targets)), np.bool_)
    for at, logits in walk(line, plans, images):
        found[at] = (logits.float().argmax(1) == targets).cpu().numpy()
    return found


def walk(line: Line, plans: Sequence[Plan], images: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(position in ``plans``, logits), in the order in which least is run."""
    with torch.inference_mode():
        states = [line.start(images)]
        before: Plan = ()
        for at in sorted(range(len(plans)), key=lambda at: plans[at]):
            plan = plans[at]
            shared = _shared(plan, before)
            del states[shared + 1 :]
            for place in range(shared, len(plan)):
                states.append(line.step(states[-1], place, plan[place]))
            before = plan
            yield at, line.finish(states[-1])


def steps(plans: Sequence[Plan]) -> int:
    """How many blocks ``walk`` runs."""
    ordered = sorted(plans)
    pairs = zip(ordered, [(), *ordered[:-1]], strict=True)
    return sum(len(plan) - _shared(plan, before) for plan, before in pairs)


def without(line: Line, numbers: Sequence[int]) -> Plan:
    """The net without those blocks."""
    gone = set(numbers)
    return tuple(GONE if number in gone else number for number in line.whole)


def shuffled(line: Line, swaps: int, random: np.random.Generator) -> Plan:
    """The net after so many swaps of two random blocks of one stage that keep the shape."""
    stages: dict[int, list[int]] = {}
    for place in line.places:
        if place.movable:
            stages.setdefault(place.stage, []).append(place.number)
    pairs = [(a, b) for found in stages.values() for a in found for b in found if a < b]
    order = list(line.whole)
    for which in random.integers(len(pairs), size=swaps) if pairs else ():
        a, b = pairs[which]
        order[a], order[b] = order[b], order[a]
    return tuple(order)


def kendall_tau(plan: Plan) -> float:
    """Of an order of blocks against the net's own: 1 for the same, -1 for the reverse."""
    n = len(plan)
    wrong = sum(plan[a] > plan[b] for a in range(n) for b in range(a + 1, n))
    return 1 - 4 * wrong / (n * (n - 1)) if n > 1 else 1.0


def _shared(plan: Plan, before: Plan) -> int:
    for at, (one, other) in enumerate(zip(plan, before, strict=False)):
        if one != other:
            return at
    return min(len(plan), len(before))


def _place(block: nn.Module, number: int, stage: int, position: int) -> Place:
    droppable = bool(getattr(block, "droppable", False))
    removable = common = droppable
    if isinstance(block, ResidualBlock | PreActivationBlock):
        removable = droppable or block.shortcut is not None
    elif isinstance(block, ConvBlock):
        removable = common = block.conv.in_channels == block.conv.out_channels
    return Place(
        number, stage, position, removable, common, droppable,
        sum(p.numel() for p in block.parameters()),
    )  # fmt: skip
