"""One training: a probe, then fine-tuning from it, on one split of the listing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from plusx.data import Listing, groups_of
from plusx.errors import PlusxError, UsageError
from plusx.evaluate import Predictions
from plusx.fit.choice import Choice
from plusx.fit.criterion import recipe_criterion
from plusx.fit.history import Epoch
from plusx.fit.kept import Keeping, Step
from plusx.fit.loop import copy_state, train_network
from plusx.fit.trackers import Tracker, check_trackers, open_trackers
from plusx.fit.trunk import Rows
from plusx.jobs.batch_picture import pictured
from plusx.jobs.beginning import Fitted, begin, targets_of, training_source
from plusx.jobs.material import Material, source
from plusx.jobs.resolving import resolve_norm
from plusx.jobs.run import read_json, write_json
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk

WAITING = 0.25
"""Share of the training time spent waiting for images from which on it is said."""


def fit(setup: Setup, material: Material, listing: Listing, folder: Path, talk: Talk) -> Fitted:
    """Train on ``listing``'s train split, choose on its val split.

    Args:
        setup: inputs and numbers; its network is left as it is.
        material: what was computed once for all of ``setup.listing``.
        listing: ``setup.listing``, perhaps with other splits.
        folder: takes checkpoints, history and events.
        talk: where progress is said.
    """
    fitted, weights = begin(setup, material, listing, talk)
    if setup.unfreeze == 0:
        return fitted
    net, probe = fitted.net, fitted.probe
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
        changed = {name: getattr(setup.recipe, name)
                   for name in ("batch_size", "norm", "accumulate")}  # fmt: skip
        write_json(kept, changed)
        net.load_state_dict(start)
    assert fitted.choice is not None
    if probe is None and not fitted.went_on and fitted.choice.best.epoch == 0:
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
    parts = min(setup.recipe.accumulate, smaller)
    talk.note(f"out of memory at {setup.recipe.batch_size} images a step: going on with {smaller}")
    norm = resolve_norm(setup.options.norm, smaller, setup.unfreeze, talk)
    recipe = replace(setup.recipe, batch_size=smaller, norm=norm, accumulate=parts)
    return replace(setup, recipe=recipe)


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
        targets=targets_of(listing, positions),
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
    inputs = training_source(setup, material, listing, train, talk)
    inputs = pictured(setup, material, inputs, listing=listing, train=train, folder=folder)
    epochs = recipe.epochs
    label = "training" if fitted.probe is None else "fine-tuning"
    trackers = _trackers(setup, folder, talk)
    if setup.hardware.compiles:
        talk.note("--compile: the first step takes a minute or two")
    with talk.phase(label, epochs * len(train)) as tick, _compiling(setup):

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
            criterion=recipe_criterion(
                recipe,
                listing.task,
                class_weights=class_weights,
                taught=setup.options.teacher is not None,
            ),
            keeping=Keeping(
                folder,
                minutes=setup.options.checkpoint_minutes,
                stop=setup.stop,
                tick=show,
                note=talk.note,
                trackers=trackers,
            ),
        )
    if recipe.max_seconds and sum(row.seconds for row in fitted.history) >= recipe.max_seconds:
        talk.note(
            f"--max-time {setup.options.max_time}: stopped in epoch {fitted.history[-1].epoch} of "
            f"at most {epochs}; the best so far ships"
        )
    if text := waiting(fitted.history):
        talk.note(text)


def waiting(history: Sequence[Epoch]) -> str:
    """What to say where the network stood idle for want of images; empty where it did not."""
    told = [row for row in history if row.waited and row.images_per_s]
    waited = sum((row.waited or 0.0) * row.seconds for row in told)
    share = waited / (sum(row.seconds for row in told) or 1.0)
    if share < WAITING or waited < 1:
        return ""
    return (
        f"the network waited for images {share:.0%} of the training time (waited in history.csv): "
        "smaller files, more cores or fewer augmentations would make it faster"
    )


@contextmanager
def _compiling(setup: Setup) -> Iterator[None]:
    """What ``torch.compile`` refuses, in one line."""
    try:
        yield
    except RuntimeError as error:
        if setup.hardware.compiles:
            from torch._dynamo.exc import TorchDynamoException

            if isinstance(error, TorchDynamoException):
                lines = [line.strip() for line in str(error).splitlines() if line.strip()]
                raise UsageError(
                    "--compile: torch.compile cannot compile the network here "
                    f"({' '.join(lines[:2])}); leave it out"
                ) from error
        raise


def _trackers(setup: Setup, folder: Path, talk: Talk) -> tuple[Tracker, ...]:
    """Those asked for, of the first process; of folds there are too many to tell."""
    here = setup.hardware.processes.world.is_main and folder.parent.name != "folds"
    names = check_trackers(setup.options.track) if here else ()
    return open_trackers(names, folder, asdict(setup.recipe), note=talk.note)
