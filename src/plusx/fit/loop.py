"""The training loop, top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import Diverged, PlusxError
from plusx.evaluate.selection import figure_then_nll
from plusx.fit.checkpoint import load_checkpoint, save_checkpoint
from plusx.fit.choice import Choice, State
from plusx.fit.history import Epoch, History
from plusx.fit.inputs import Inputs, Source
from plusx.fit.recipe import Recipe
from plusx.model.surgery import training_mode

_CALMER = "try a smaller --lr, or --unfreeze 0 for the probe alone"


@dataclass(frozen=True)
class Hardware:
    """Where and in which precision the loop computes."""

    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Step:
    """What a progress display may show after a step; ``best`` is the best validation figure."""

    epoch: int
    images: int
    loss: float
    best: float


class Progress:
    """One epoch so far."""

    def __init__(self, epoch: int, lr: float) -> None:
        self.epoch, self.lr = epoch, lr
        self.losses: list[float] = []
        self.images = 0
        self.started = time.perf_counter()

    def add(self, loss: float, images: int) -> None:
        """Count a step.

        Raises:
            Diverged: the loss is not finite.
        """
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss became {loss} in epoch {self.epoch} at learning rate {self.lr:g}; "
                f"{_CALMER}"
            )
        self.losses.append(loss)
        self.images += images


def train_network(
    net: nn.Module,
    train: Source,
    val: Source,
    *,
    recipe: Recipe,
    hardware: Hardware,
    criterion: nn.Module,
    choice: Choice,
    folder: Path,
    tick: Callable[[Step], None] = lambda step: None,
) -> list[Epoch]:
    """Train what is trainable in ``net``; every epoch is a candidate for ``choice``.

    Args:
        net: takes what ``train`` and ``val`` give; parameters with ``requires_grad`` are trained.
        train: images to learn from.
        val: images that choose.
        recipe: all numbers.
        hardware: device and precision.
        criterion: logits (N, K) and targets, as the sources give them -> loss.
        choice: keeps the best; the state before the first step is its first candidate.
        folder: the run folder: ``history.csv``, ``tensorboard/`` and ``checkpoints/last.pt``, from
            which an interrupted run goes on.
        tick: called after every step.

    Returns:
        The epochs; the first is the state before training.

    Raises:
        Diverged: the loss, or what the network answers, is not finite.
    """
    net.to(hardware.device).to(memory_format=torch.channels_last)
    criterion.to(hardware.device)
    optimizer = make_optimizer(net, recipe)
    parameters = [p for p in net.parameters() if p.requires_grad]
    checkpoint = folder / "checkpoints" / "last.pt"
    done, rows = _resume(checkpoint, net, optimizer, choice)
    with History(folder, rows) as history:
        if not rows:
            history.add(_candidate(net, val, hardware, choice, Progress(0, recipe.lr)))
        steps_per_epoch = max(1, train.images // recipe.batch_size)

        for epoch in range(done + 1, recipe.epochs + 1):
            if recipe.patience and epoch - 1 - choice.last_gain >= recipe.patience:
                break
            progress = Progress(epoch, recipe.lr)
            training_mode(net, norm_statistics=recipe.norm == "train")
            torch.manual_seed((recipe.seed + epoch) % 2**63)  # of dropout: the same on resume
            steps = enumerate(train.shuffled(epoch), start=(epoch - 1) * steps_per_epoch)
            for number, (inputs, targets, _) in steps:
                progress.lr = recipe.lr_at(number, recipe.epochs * steps_per_epoch)
                for group in optimizer.param_groups:
                    group["lr"] = progress.lr
                logits = forward(net, inputs, hardware)
                loss = criterion(logits.float(), targets.to(hardware.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, recipe.clip)
                optimizer.step()
                progress.add(loss.item(), len(targets))
                tick(Step(epoch, len(targets), progress.losses[-1], choice.best.score[0]))
            history.add(_candidate(net, val, hardware, choice, progress))
            save_checkpoint(
                checkpoint,
                {
                    "epoch": epoch,
                    "net": net.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "choice": choice.state_dict(),
                    "history": [vars(row) for row in history.rows],
                },
            )
    return history.rows


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
    """Logits (n, K) of a whole set, in evaluation mode."""
    net.eval()
    found: npt.NDArray[np.float32] | None = None
    for inputs, _, index in source.ordered():
        logits = forward(net, inputs, hardware).float().cpu().numpy()
        if found is None:
            found = np.zeros((source.images, logits.shape[1]), dtype=np.float32)
        found[index] = logits
    if found is None:
        raise PlusxError("none of the validation images can be read any more")
    return found


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
    net: nn.Module, val: Source, hardware: Hardware, choice: Choice, progress: Progress
) -> Epoch:
    """Score the net as it is on validation and offer it."""
    rate = progress.images / (time.perf_counter() - progress.started)
    epoch, losses = progress.epoch, progress.losses
    logits = all_logits(net, val, hardware)
    if not np.isfinite(logits).all():
        raise Diverged(f"the network's answers are not finite after epoch {epoch}; {_CALMER}")
    name = f"epoch {epoch}" if epoch else "start"
    found = choice.offer(name, epoch, logits, lambda: copy_state(net))
    score, likelihood = figure_then_nll(found)
    return Epoch(
        epoch=epoch,
        train_loss=float(np.mean(losses)) if losses else None,
        val_top1=score if found.task == "single" else None,
        val_nll=-likelihood,
        lr=progress.lr,
        seconds=time.perf_counter() - progress.started,
        images_per_s=rate if losses else None,
        val_map=score if found.task == "multi" else None,
    )


def _resume(
    checkpoint: Path, net: nn.Module, optimizer: torch.optim.Optimizer, choice: Choice
) -> tuple[int, list[Epoch]]:
    state = load_checkpoint(checkpoint)
    if state is None:
        return 0, []
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    choice.load_state_dict(state["choice"])
    return int(state["epoch"]), [Epoch(**row) for row in state["history"]]
