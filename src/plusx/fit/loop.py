"""The training loop, top to bottom."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import Diverged, PlusxError
from plusx.evaluate.selection import figure_then_nll
from plusx.fit.choice import Choice, State
from plusx.fit.criterion import weight_of
from plusx.fit.distributed import Processes, joint_norms
from plusx.fit.history import Epoch, History
from plusx.fit.inputs import Inputs, Source
from plusx.fit.kept import CALMER, Keeping, Kept, Step
from plusx.fit.recipe import Recipe
from plusx.fit.state import Generators, Part, Position, seed_step
from plusx.model.surgery import training_mode


@dataclass(frozen=True)
class Hardware:
    """Where, in which precision and in how many processes the loop computes."""

    device: torch.device
    dtype: torch.dtype
    processes: Processes = field(default_factory=Processes)


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
    optimizer = make_optimizer(net, recipe)
    position = Position(processes, hardware.device, recipe.lr)
    history = History(keeping.folder if processes.world.is_main else None)
    parts: dict[str, Part] = {  # all that a resumed training needs
        "net": net, "optimizer": optimizer, "position": position, "choice": choice,
        "history": history, "generators": Generators(),
    }  # fmt: skip
    kept = Kept(keeping, processes, parts, position, choice)
    norms = joint_norms(net, processes) if recipe.norm == "train" else nullcontext()
    with history, norms, keeping.stop.patiently():
        if not kept.restore():
            history.add(_candidate(net, val, hardware, choice, position))
        while not _enough(recipe, position, choice):
            training_mode(net, norm_statistics=recipe.norm == "train")
            for inputs, targets, _ in train.shuffled(position.epoch, position.step):
                seed_step(recipe.seed, position.epoch, position.step, processes.world.rank)
                done = (position.epoch - 1) * train.steps + position.step
                position.lr = recipe.lr_at(done, recipe.epochs * train.steps)
                counts = weight_of(criterion, targets) if processes.several else 1.0
                asked = keeping.stop.asked, kept.due
                images, whole, stop, save = processes.totals(len(targets), counts, *asked)
                if images:  # else none of the step's files can be read any more
                    logits = forward(net, inputs, hardware).float()
                    loss = _share_of_loss(criterion, logits, targets, counts / whole)
                    norm = _update(optimizer, loss, position.lr, recipe.clip, processes)
                    position.add(loss, norm, int(images))
                    if position.looks or save or stop:
                        kept.check(inputs)
                position.step += 1
                if save or stop:
                    kept.save()
                best = choice.best.score[0]
                keeping.tick(Step(position.epoch, int(images), position.shown, best))
                if stop:
                    raise KeyboardInterrupt
            kept.check()
            history.add(_candidate(net, val, hardware, choice, position))
            position.next_epoch()
            kept.save()
    if processes.any(keeping.stop.asked):
        raise KeyboardInterrupt
    return history.rows


def _enough(recipe: Recipe, position: Position, choice: Choice) -> bool:
    """Whether all epochs are done, or the last ones brought no gain."""
    idle = position.epoch - 1 - choice.last_gain
    return position.epoch > recipe.epochs or 0 < recipe.patience <= idle


def _update(
    optimizer: torch.optim.Optimizer, loss: Tensor, lr: float, clip: float, processes: Processes
) -> Tensor:
    """One step down the gradient of ``loss``, summed over the processes; its norm before it was
    clipped."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    processes.add_up_gradients(parameters)
    norm: Tensor = nn.utils.clip_grad_norm_(parameters, clip)
    for group in optimizer.param_groups:
        group["lr"] = lr
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


def _share_of_loss(criterion: nn.Module, logits: Tensor, targets: Tensor, share: float) -> Tensor:
    """This process's part of the mean loss over a step; 0 where it has none of the images."""
    if not len(targets):
        return logits.sum() * 0.0
    loss: Tensor = criterion(logits, targets.to(logits.device))
    return loss * share


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


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the trainable parameters.

    Biases and norms are not decayed (He et al. 2018, arXiv 1812.01187, section 3.1).
    """
    trainable = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.lr)


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
    )
