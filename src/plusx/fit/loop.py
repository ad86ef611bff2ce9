"""The training loop, top to bottom."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import Diverged, PlusxError
from plusx.evaluate.selection import figure_then_nll
from plusx.fit.choice import Choice, State
from plusx.fit.criterion import weight_of
from plusx.fit.depth import by_distance, thaw
from plusx.fit.distributed import Processes, joint_norms
from plusx.fit.ema import Average
from plusx.fit.history import Epoch, History
from plusx.fit.inputs import Inputs, Source
from plusx.fit.kept import CALMER, Keeping, Kept, Step
from plusx.fit.optimizers import make_optimizer, set_lr
from plusx.fit.recipe import Recipe
from plusx.fit.state import Generators, Part, Position, seed_step
from plusx.model.surgery import training_mode


@dataclass(frozen=True)
class Hardware:
    """Where, in which precision, in how many processes and how the loop computes.

    Attributes:
        device, dtype, processes: see there.
        compiles: whether the steps run through ``torch.compile``; scoring does not.
    """

    device: torch.device
    dtype: torch.dtype
    processes: Processes = field(default_factory=Processes)
    compiles: bool = False


def train_network(
    net: nn.Module,
    train: Source,
    val: Source,
    *,
    recipe: Recipe,
    hardware: Hardware,
    criterion: nn.Module,
    choice: Choice,
    keeping: Keeping,
) -> list[Epoch]:
    """Train what is trainable in ``net``; every epoch is a candidate for ``choice``.

    Where ``keeping.folder`` holds a checkpoint, training goes on from it, to the same weights as if
    it had never stopped.

    Args:
        net: takes what ``train`` and ``val`` give; parameters with ``requires_grad`` are trained.
        train: images to learn from.
        val: images that choose.
        recipe: all numbers.
        hardware: device, precision, processes.
        criterion: logits (N, K) and targets, as the sources give them -> loss.
        choice: keeps the best; the state before the first step is its first candidate.
        keeping: where, and who is told.

    Returns:
        The epochs; the first is the state before training.

    Raises:
        Diverged: the loss, or what the network answers, is not finite.
        ArtifactError: a checkpoint cannot be written, or all are damaged.
        KeyboardInterrupt: ``keeping.stop`` was asked; a checkpoint has been written.
    """
    processes = hardware.processes
    net.to(hardware.device).to(memory_format=torch.channels_last)
    criterion.to(hardware.device)
    running = cast("nn.Module", torch.compile(net)) if hardware.compiles else net
    optimizer = make_optimizer(net, recipe)
    layers, average = by_distance(net), Average(net, recipe.ema) if recipe.ema else None
    judged = net if average is None else average.net
    position = Position(processes, hardware.device, recipe.lr)
    history = History(
        keeping.folder if processes.world.is_main else None, trackers=keeping.trackers
    )
    parts: dict[str, Part] = {  # all that a resumed training needs
        "net": net, "optimizer": optimizer, "position": position, "choice": choice,
        "history": history, "generators": Generators(),
        **({} if average is None else {"average": average}),
    }  # fmt: skip
    kept = Kept(keeping, processes, parts, position, choice)
    norms = joint_norms(net, processes) if recipe.norm == "train" else nullcontext()
    with history, norms, keeping.stop.patiently():
        if not kept.restore():
            history.add(_candidate(judged, val, hardware, choice, position))
        while not _enough(recipe, position, choice, history.seconds, processes):
            _begin_epoch(net, layers, recipe, position.epoch)
            steps = train.shuffled(position.epoch, position.step)
            for inputs, targets, _ in position.awaiting(steps):
                seed_step(recipe.seed, position.epoch, position.step, processes.world.rank)
                done = (position.epoch - 1) * train.steps + position.step
                counts = len(targets), weight_of(criterion, targets)
                asked = keeping.stop.asked, kept.due, history.seconds + position.seconds
                images, whole, stop, save, spent = processes.totals(*counts, *asked)
                gone = recipe.time_gone(spent / processes.world.size)  # the same in all of them
                position.lr = recipe.lr_at(done, recipe.epochs * train.steps, gone)
                if images:  # else none of the step's files can be read any more
                    optimizer.zero_grad(set_to_none=True)
                    loss = backward(running, (inputs, targets), criterion=criterion, whole=whole,
                                    parts=recipe.accumulate, hardware=hardware)  # fmt: skip
                    norm = update(optimizer, position.lr, recipe.clip, processes)
                    position.add(loss, norm, int(images))
                    if position.looks or save or stop:
                        kept.check(inputs)
                    if average is not None:
                        average.update(net)
                position.step += 1
                if save or stop:
                    kept.save()
                best = choice.best.score[0]
                keeping.tick(Step(position.epoch, int(images), position.shown, best))
                if stop:
                    raise KeyboardInterrupt
                if gone >= 1:
                    break
            kept.check()
            history.add(_candidate(judged, val, hardware, choice, position))
            position.next_epoch()
            kept.save()
    if processes.any(keeping.stop.asked):
        raise KeyboardInterrupt
    return history.rows


def _begin_epoch(net: nn.Module, layers: list[list[nn.Module]], recipe: Recipe, epoch: int) -> None:
    """Thaw what is to learn by now, and put it in training mode."""
    if recipe.gradual:
        thaw(layers, 1 + (epoch - 1) // recipe.gradual)
    training_mode(net, norm_statistics=recipe.norm == "train")


def _enough(
    recipe: Recipe, position: Position, choice: Choice, seconds: float, processes: Processes
) -> bool:
    """Whether all epochs are done, the last ones brought no gain, or the time is up."""
    idle = position.epoch - 1 - choice.last_gain
    late = position.epoch > 1 and recipe.time_gone(seconds) >= 1
    return position.epoch > recipe.epochs or 0 < recipe.patience <= idle or processes.any(late)


def backward(
    net: nn.Module,
    step: tuple[Inputs, Tensor],
    *,
    criterion: nn.Module,
    whole: float,
    parts: int,
    hardware: Hardware,
) -> Tensor:
    """Add the gradient of this process's share of the step's mean loss, which is given back.

    The images run in ``parts`` parts, each counted by what it is of ``whole``: their sum is the
    gradient of the step in one part, where no BatchNorm takes statistics.
    """
    inputs, targets = step
    size = max(1, -(-len(targets) // parts))
    total = torch.zeros((), device=hardware.device)
    for start in range(0, max(1, len(targets)), size):
        part = tuple(x[start : start + size] for x in inputs)
        wanted = targets[start : start + size]
        logits = forward(net, part, hardware).float()
        if len(wanted):
            share = weight_of(criterion, wanted) / whole
            loss = criterion(logits, wanted.to(logits.device)) * share
        else:  # none of this process's: it takes part in the step with a gradient of zero
            loss = logits.sum() * 0.0
        loss.backward()
        total += loss.detach()
    return total


def update(
    optimizer: torch.optim.Optimizer, lr: float, clip: float, processes: Processes
) -> Tensor:
    """One step down the gradient, summed over the processes; its norm before it was clipped."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    processes.add_up_gradients(parameters)
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
    set_lr(optimizer, lr)
    optimizer.step()
    return norm


def forward(net: nn.Module, inputs: Inputs, hardware: Hardware) -> Tensor:
    """Logits (N, K) of what a ``Source`` gave, under autocast where the precision is reduced."""
    moved = [
        x.to(hardware.device, hardware.dtype, memory_format=torch.channels_last)
        if x.ndim == 4
        else x.to(hardware.device)
        for x in inputs
    ]
    reduced = hardware.dtype != torch.float32
    precision = torch.autocast(hardware.device.type, hardware.dtype) if reduced else nullcontext()
    with precision:
        logits: Tensor = net(*moved)
    return logits


@torch.inference_mode()
def all_logits(net: nn.Module, source: Source, hardware: Hardware) -> npt.NDArray[np.float32]:
    """Logits (n, K) of a whole set, in evaluation mode; each process computes a part of them."""
    net.eval()
    parts: list[tuple[npt.NDArray[np.int64], Tensor]] = []
    for inputs, _, index in source.ordered():
        if len(index):
            parts.append((index, forward(net, inputs, hardware).float().cpu()))
    here = float(parts[0][1].shape[1]) if parts else 0.0
    having, together = hardware.processes.totals(float(bool(parts)), here)
    if not having:
        raise PlusxError("none of the validation images can be read any more")
    found = torch.zeros(source.images, round(together / having))
    for index, logits in parts:
        found[torch.from_numpy(index)] = logits
    hardware.processes.add_up(found)
    return found.numpy()


def copy_state(net: nn.Module) -> State:
    """A copy of all parameters and buffers, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def _candidate(
    net: nn.Module, val: Source, hardware: Hardware, choice: Choice, position: Position
) -> Epoch:
    """Score the net as it is on validation and offer it."""
    epoch, loss, took = position.epoch, position.loss(), position.seconds
    if loss is None:
        epoch = 0
    logits = all_logits(net, val, hardware)
    if not np.isfinite(logits).all():
        raise Diverged(f"the network's answers are not finite after epoch {epoch}; {CALMER}")
    name = f"epoch {epoch}" if epoch else "start"
    found = choice.offer(name, epoch, logits, lambda: copy_state(net))
    score, likelihood = figure_then_nll(found)
    return Epoch(
        epoch=epoch,
        train_loss=loss,
        val_top1=score if found.task == "single" else None,
        val_nll=-likelihood,
        lr=position.lr,
        seconds=position.seconds,
        images_per_s=None if loss is None else position.images / took,
        val_map=score if found.task == "multi" else None,
        waited=None if loss is None else position.waited / took,
    )
