"""How a training begins: network, head, and the images as the recipe shows them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from plusx.data import SPLITS, Listing, Task, groups_of
from plusx.data.records import Targets, target_array
from plusx.decide import Decision
from plusx.fit.choice import Choice, State
from plusx.fit.history import Epoch
from plusx.fit.inputs import Source
from plusx.fit.mix import Mixed
from plusx.fit.probe import Head, Probe, fit_probe
from plusx.fit.recipe import Recipe
from plusx.fit.sampling import Sampling
from plusx.fit.teacher import Taught
from plusx.fit.trunk import Rows
from plusx.jobs.lineage import keep_head, open_teacher
from plusx.jobs.material import Material, source
from plusx.jobs.resolving import class_weights
from plusx.jobs.setup import Setup, check_learnable
from plusx.jobs.talk import Talk
from plusx.model.classifier import Classifier
from plusx.model.surgery import set_drop_path, split_trunk, unfreeze_last_blocks


@dataclass
class Fitted:
    """What one training gave.

    Attributes:
        model: the assembled network; holds the state that ships.
        net: the part that was trained; shares its modules with ``model``.
        probe: the head fitted on frozen features; None from scratch.
        choice: among the probe and the epochs; None where there was nothing to choose.
        history: the epochs; empty for a probe alone.
        positions: of each split's readable images in the listing.
        went_on: training began with the head of an earlier run.
        recipe: as it was used; differs from the setup's where memory ran out.
        task: of the data.
        decision: of what ships, once it is known.
        worth: what it is worth, as ``metrics.json`` states it; None for task multi.
    """

    model: Classifier
    net: nn.Module
    probe: Probe | None
    choice: Choice | None
    history: list[Epoch]
    positions: dict[str, Rows]
    recipe: Recipe
    task: Task = "single"
    went_on: bool = False
    decision: Decision = field(default_factory=Decision)
    worth: dict[str, Any] | None = None

    @property
    def ships(self) -> str:
        """``probe``, ``epoch N``, or ``start`` where an earlier run was not bettered."""
        if self.choice is None or (self.choice.best.epoch == 0 and self.probe is not None):
            return "probe"
        if self.choice.best.epoch == 0 and self.went_on:
            return "start"
        return f"epoch {self.choice.best.epoch}"

    def take(self, state: State | None) -> None:
        """Put a winner's state into ``model``."""
        if state is not None:
            self.net.load_state_dict(state)


def begin(
    setup: Setup, material: Material, listing: Listing, talk: Talk
) -> tuple[Fitted, Tensor | None]:
    """The network as its training begins, with the probe's head or that of an earlier run, and the
    (K,) weights of classes, where they are wanted.

    Args:
        setup: inputs and numbers; its network is left as it is.
        material: what was computed once for all of ``setup.listing``.
        listing: ``setup.listing``, perhaps with other splits.
        talk: where progress is said.
    """
    positions = {split: material.positions(listing, split) for split in SPLITS}
    model = copy.deepcopy(setup.network.model)
    targets = targets_of(listing, positions["train"])
    if listing.task == "multi":
        check_learnable(listing, targets.astype(bool))
    weights = class_weights(setup.options, targets, talk)
    if setup.recipe.drop_path:
        set_drop_path(model, setup.recipe.drop_path)
    probe, went_on = None, setup.options.init is not None
    if went_on:
        keep_head(model, setup, talk)
    elif material.first is not None:
        with talk.phase("probe"):
            probe = fit_probe(
                material.first.features[positions["train"]],
                targets,
                classes=len(listing.classes),
                seed=setup.recipe.seed,
                groups=groups_of([listing.samples[p] for p in positions["train"]]),
                class_weights=None if weights is None else weights.double().numpy(),
            )
        _set_head(model, probe.head)
    net = _trainable_part(model, setup)
    recipe, task = setup.recipe, listing.task
    fitted = Fitted(model, net, probe, None, [], positions, recipe, task, went_on=went_on)
    return fitted, weights


def training_source(
    setup: Setup, material: Material, listing: Listing, train: Rows, talk: Talk
) -> Source:
    """The training images as the recipe shows them: sampled, augmented, mixed, taught."""
    recipe, classes = setup.recipe, len(listing.classes)
    drawn = targets_of(listing, train) if recipe.balanced else None
    feed = replace(setup.feed, sampling=Sampling(recipe.repeats, drawn))
    inputs = source(setup, material, train, feed=feed, talk=talk)
    if recipe.mixup or recipe.cutmix:
        inputs = Mixed(inputs, classes, alpha=recipe.mixup, cut=recipe.cutmix, seed=recipe.seed)
    teacher = open_teacher(setup, talk)
    return inputs if teacher is None else Taught(inputs, classes, teacher)


def _trainable_part(model: Classifier, setup: Setup) -> nn.Module:
    if setup.unfreeze == 0:
        return model
    if setup.unfreeze is None:
        model.requires_grad_(True)
        return model
    unfreeze_last_blocks(model, setup.unfreeze)
    return split_trunk(model, setup.unfreeze)[1]


def _set_head(model: Classifier, head: Head) -> None:
    with torch.no_grad():
        model.head.fc.weight.copy_(torch.from_numpy(head.weight))
        model.head.fc.bias.copy_(torch.from_numpy(head.bias))


def targets_of(listing: Listing, positions: Rows) -> Targets:
    """Of the images at ``positions``: (n,) int64 or (n, K) bool."""
    samples = [listing.samples[p] for p in positions]
    return target_array(samples, len(listing.classes), listing.task)
