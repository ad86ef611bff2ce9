"""One training: a probe, then fine-tuning from it, on one split of the listing."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plusx.data import SPLITS, Listing, Task, groups_of
from plusx.data.records import Targets, target_array
from plusx.decide import Decision
from plusx.errors import PlusxError
from plusx.evaluate import Predictions
from plusx.fit.choice import Choice, State
from plusx.fit.criterion import make_criterion
from plusx.fit.history import Epoch
from plusx.fit.kept import Keeping, Step
from plusx.fit.loop import copy_state, train_network
from plusx.fit.mix import Mixed
from plusx.fit.probe import Head, Probe, fit_probe
from plusx.fit.recipe import Recipe
from plusx.fit.trunk import Rows
from plusx.jobs.material import Material, source
from plusx.jobs.run import read_json, write_json
from plusx.jobs.setup import Setup, check_learnable, class_weights, resolve_norm
from plusx.jobs.talk import Talk
from plusx.model.classifier import Classifier
from plusx.model.surgery import split_trunk, unfreeze_last_blocks


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
    decision: Decision = field(default_factory=Decision)
    worth: dict[str, Any] | None = None

    @property
    def ships(self) -> str:
        """``probe`` or ``epoch N``."""
        if self.choice is None or (self.choice.best.epoch == 0 and self.probe is not None):
            return "probe"
        return f"epoch {self.choice.best.epoch}"

    def take(self, state: State | None) -> None:
        """Put a winner's state into ``model``."""
        if state is not None:
            self.net.load_state_dict(state)


def fit(setup: Setup, material: Material, listing: Listing, folder: Path, talk: Talk) -> Fitted:
    """Train on ``listing``'s train split, choose on its val split.

    Args:
        setup: inputs and numbers; its network is left as it is.
        material: what was computed once for all of ``setup.listing``.
        listing: ``setup.listing``, perhaps with other splits.
        folder: takes checkpoints, history and events.
        talk: where progress is said.
    """
    positions = {split: material.positions(listing, split) for split in SPLITS}
    model = copy.deepcopy(setup.network.model)
    targets = _targets(listing, positions["train"])
    if listing.task == "multi":
        check_learnable(listing, targets.astype(bool))
    weights = class_weights(setup.options, targets, talk)
    probe = None
    if material.first is not None:
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
    if setup.unfreeze == 0:
        return Fitted(model, model, probe, None, [], positions, setup.recipe, listing.task)
    net = _trainable_part(model, setup, material)
    fitted = Fitted(model, net, probe, None, [], positions, setup.recipe, listing.task)
    start = copy_state(net)
    kept = folder / "checkpoints" / "smaller.json"
    setup = _as_small_as_before(setup, kept)
    fitted.recipe = setup.recipe
    while True:
        try:
            _fine_tune(
                fitted,
                setup,
                material=material,
                listing=listing,
                folder=folder,
                class_weights=weights,
                talk=talk,
            )
            break
        except (RuntimeError, MemoryError) as error:
            alone = not setup.hardware.processes.several
            if not out_of_memory(error) or setup.recipe.batch_size == 1 or not alone:
                raise
        setup = smaller_steps(setup, talk)
        fitted.recipe = setup.recipe
        shutil.rmtree(kept.parent, ignore_errors=True)  # of steps of another size
        kept.parent.mkdir()
        changed = {"batch_size": setup.recipe.batch_size, "norm": setup.recipe.norm}
        write_json(kept, changed)
        net.load_state_dict(start)
    assert fitted.choice is not None
    if probe is None and fitted.choice.best.epoch == 0:
        talk.note(
            "no epoch was better than the random weights that training began with, so these ship: "
            "they know nothing; give more --epochs, another --lr, or start from --weights"
        )
    fitted.take(fitted.choice.best.state)
    return fitted


def _as_small_as_before(setup: Setup, kept: Path) -> Setup:
    """With steps as small as they became where memory ran out before a resume."""
    changed = setup.hardware.processes.first_says(lambda: read_json(kept))
    return replace(setup, recipe=replace(setup.recipe, **changed))


def smaller_steps(setup: Setup, talk: Talk) -> Setup:
    """The same with half as many images a step, BatchNorm's mode decided anew; said."""
    smaller = setup.recipe.batch_size // 2
    talk.note(f"out of memory at {setup.recipe.batch_size} images a step: going on with {smaller}")
    norm = resolve_norm(setup.options.norm, smaller, setup.unfreeze, talk)
    return replace(setup, recipe=replace(setup.recipe, batch_size=smaller, norm=norm))


def out_of_memory(error: BaseException) -> bool:
    """Whether it says so: torch has a class of its own on GPUs and only words on CPUs."""
    if isinstance(error, PlusxError):
        return False
    words = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        said in words for said in ("out of memory", "not enough memory", "can't allocate memory")
    )


def validation(listing: Listing, positions: Rows) -> Predictions:
    """The images at ``positions`` as predictions without answers."""
    samples = [listing.samples[p] for p in positions]
    return Predictions(
        logits=np.zeros((len(samples), len(listing.classes)), np.float32),
        targets=_targets(listing, positions),
        paths=tuple(sample.path for sample in samples),
        classes=listing.classes,
        task=listing.task,
        groups=groups_of(samples),
    )


def _fine_tune(
    fitted: Fitted,
    setup: Setup,
    *,
    material: Material,
    listing: Listing,
    folder: Path,
    class_weights: torch.Tensor | None,
    talk: Talk,
) -> None:
    train, val = fitted.positions["train"], fitted.positions["val"]
    recipe = setup.recipe
    fitted.choice = Choice(validation(listing, val), seed=recipe.seed)
    inputs = source(setup, material, train, feed=setup.feed, talk=talk)
    if recipe.mixup:
        classes = len(listing.classes)
        inputs = Mixed(inputs, classes, alpha=recipe.mixup, seed=recipe.seed)
    epochs = recipe.epochs
    label = "training" if fitted.probe is None else "fine-tuning"
    with talk.phase(label, epochs * len(train)) as tick:

        def show(step: Step) -> None:
            text = f"epoch {step.epoch}/{epochs} loss {step.loss:.3f} val {step.best:.3f}"
            tick(step.images, text)

        fitted.history = train_network(
            fitted.net,
            inputs,
            source(setup, material, val, feed=setup.feed, talk=talk),
            recipe=recipe,
            hardware=setup.hardware,
            choice=fitted.choice,
            criterion=make_criterion(
                listing.task,
                class_weights=class_weights,
                label_smoothing=recipe.label_smoothing,
            ),
            keeping=Keeping(
                folder,
                minutes=setup.options.checkpoint_minutes,
                stop=setup.stop,
                tick=show,
                note=talk.note,
            ),
        )


def _trainable_part(model: Classifier, setup: Setup, material: Material) -> nn.Module:
    if setup.unfreeze is None:
        model.requires_grad_(True)
        return model
    unfreeze_last_blocks(model, setup.unfreeze)
    return split_trunk(model, setup.unfreeze)[1]


def _set_head(model: Classifier, head: Head) -> None:
    with torch.no_grad():
        model.head.fc.weight.copy_(torch.from_numpy(head.weight))
        model.head.fc.bias.copy_(torch.from_numpy(head.bias))


def _targets(listing: Listing, positions: Rows) -> Targets:
    samples = [listing.samples[p] for p in positions]
    return target_array(samples, len(listing.classes), listing.task)
