"""One training of a small net on images in memory, the same way every time.

The recipe is that of He et al. 2015 (arXiv 1512.03385), section 4.2: SGD with momentum, weight
decay on every parameter, random crops and flips. Order and augmentation depend on the seed alone,
never on the net: nets of one seed see the same pixels in the same steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.data import epoch_order
from plusx.fit.checkpoint import load_checkpoint, save_checkpoint
from plusx.runtime import fast_dtype
from plusx.science.cifar import Part, SmallImages, augment

EVALUATED = 256
"""Images a forward pass of evaluation."""

Decay = Literal["steps", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """How a training goes.

    Attributes:
        iterations: steps in all.
        batch_size: images a step; an epoch's last, smaller batch is left out.
        lr: the highest learning rate.
        decay: ``steps``: a tenth after each of ``milestones``; ``cosine``: half a cosine to zero.
        milestones: iterations, of ``steps``.
        warmup: iterations at the start; with ``steps`` at a tenth of ``lr`` (the paper's .01 for
            110 layers), with ``cosine`` rising linearly.
        momentum, weight_decay: of SGD.
    """

    iterations: int
    batch_size: int = 128
    lr: float = 0.1
    decay: Decay = "cosine"
    milestones: tuple[int, ...] = ()
    warmup: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if self.decay == "steps":
            if step < self.warmup:
                return self.lr / 10
            return float(self.lr / 10 ** sum(step >= end for end in self.milestones))
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        share = (step - self.warmup) / max(1, self.iterations - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * share))

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self) | {"milestones": list(self.milestones)}


@dataclass(frozen=True)
class Watch:
    """What is looked at along the way.

    Attributes:
        every: iterations between two points of the curve; the last one is always a point.
        images: training and test images of a point, each.
        last: the same of the last point; None takes all.
    """

    every: int
    images: int = 1000
    last: int | None = None


@dataclass
class Curve:
    """How a training went; lists of one value a point.

    Attributes:
        iteration, epoch, seconds: when; seconds are of training, not of looking.
        loss: mean of the training losses since the point before, augmented images.
        train_error, test_error: fractions of the images as they are, in evaluation mode.
        cpu_seconds: of this process, over training and looking.
        diverged: the loss was no number any more; the curve ends there.
    """

    iteration: list[int] = field(default_factory=list)
    epoch: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train_error: list[float] = field(default_factory=list)
    test_error: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    diverged: bool = False

    def add(self, iteration: int, epoch: float, seconds: float, loss: float) -> None:
        """One more point; its errors stand already. ``seconds`` are those since the last one."""
        self.iteration.append(iteration)
        self.epoch.append(epoch)
        self.seconds.append((self.seconds[-1] if self.seconds else 0.0) + seconds)
        self.loss.append(loss)
        self.diverged = not math.isfinite(loss)

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Course:
    """One training, said in full but for the net and the images.

    Attributes:
        schedule, watch: see there.
        seed: of order and augmentation.
        tick: gets the number of images trained on, step by step.
        checkpoint: a file that each point of the curve replaces; a training that finds it goes on
            from there, and it is removed at the end. None keeps nothing.
        prepare: puts the net into training mode.
    """

    schedule: Schedule
    watch: Watch
    seed: int
    tick: Callable[[int], None] = lambda images: None
    checkpoint: Path | None = None
    prepare: Callable[[nn.Module], object] = nn.Module.train


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A net with the weights of that seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def train(net: nn.Module, data: SmallImages, course: Course) -> Curve:
    """Train ``net`` in place, on the device where it is.

    It is trained in float32, with products in bfloat16 where the device is fast at them.

    Returns:
        The curve; where the loss stops being finite it ends early, ``diverged``.

    Raises:
        ArtifactError: the checkpoint is damaged or cannot be written.
    """
    device = next(net.parameters()).device
    net.to(memory_format=torch.channels_last)
    schedule, watch = course.schedule, course.watch
    optimizer = torch.optim.SGD(
        [p for p in net.parameters() if p.requires_grad], lr=schedule.lr,
        momentum=schedule.momentum, weight_decay=schedule.weight_decay,
    )  # fmt: skip
    curve, losses = _begin(net, optimizer, course.checkpoint), list[Tensor]()
    first = curve.iteration[-1] if curve.iteration else 0
    per_epoch = max(1, len(data.train) // schedule.batch_size)
    if first:
        course.tick(first * schedule.batch_size)
    course.prepare(net)
    cpu, began = time.process_time(), time.perf_counter()
    for step, (images, targets) in _steps(data, schedule, course.seed, first):
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr_at(step)
        logits = logits_of(net, data.normalise(images), device)
        loss = functional.cross_entropy(logits, targets.to(device))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
        course.tick(len(images))
        last = step + 1 == schedule.iterations
        if not last and (step + 1) % watch.every:
            continue
        mean = float(torch.stack(losses).mean())
        losses.clear()
        seconds = time.perf_counter() - began
        seen = watch.last if last else watch.images
        _look(net, data.at_most(seen, seen), curve)
        curve.add(step + 1, (step + 1) / per_epoch, seconds, mean)
        curve.cpu_seconds += time.process_time() - cpu
        if curve.diverged or last:
            break
        if course.checkpoint:
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(course.checkpoint, state | {"curve": curve.to_dict()})
        course.prepare(net)
        cpu, began = time.process_time(), time.perf_counter()
    if course.checkpoint:
        course.checkpoint.unlink(missing_ok=True)
        with suppress(OSError):  # others are under way there, or there was none to keep
            course.checkpoint.parent.rmdir()
    return curve


def _begin(net: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path | None) -> Curve:
    """What the checkpoint holds, put back; else nothing yet."""
    state = load_checkpoint(checkpoint) if checkpoint else None
    if state is None:
        return Curve()
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return Curve(**state["curve"])


def error_of(net: nn.Module, part: Part, data: SmallImages) -> float:
    """The share of ``part`` that ``net`` gets wrong, in evaluation mode; the mode stays so."""
    net.eval()
    device = next(net.parameters()).device
    wrong = 0
    with torch.no_grad():
        for start in range(0, len(part), EVALUATED):
            images = data.normalise(part.images[start : start + EVALUATED])
            said = logits_of(net, images, device).argmax(1).cpu()
            wrong += int((said != part.targets[start : start + EVALUATED]).sum())
    return wrong / len(part)


def _look(net: nn.Module, data: SmallImages, curve: Curve) -> None:
    curve.train_error.append(error_of(net, data.train, data))
    curve.test_error.append(error_of(net, data.test, data))


def _steps(
    data: SmallImages, schedule: Schedule, seed: int, first: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Steps from ``first`` on, each with an augmented batch: (N, 3, 32, 32) uint8, (N,) int64."""
    size = min(schedule.batch_size, len(data.train))
    per_epoch = len(data.train) // size
    order, ordered = torch.empty(0), -1
    for step in range(first, schedule.iterations):
        epoch, batch = divmod(step, per_epoch)
        if epoch != ordered:
            found = epoch_order(len(data.train), seed=seed, epoch=epoch)
            order, ordered = torch.from_numpy(found), epoch
        at = order[batch * size : (batch + 1) * size]
        # a stream of its own for every step: what is left out does not shift what follows
        rng = np.random.Generator(np.random.PCG64([seed, step, 1]))
        yield step, (augment(data.train.images[at], rng), data.train.targets[at])


def logits_of(net: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """(N, 3, H, W) float32 -> (N, classes) float32."""
    x = images.to(device, memory_format=torch.channels_last)
    dtype = fast_dtype(device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits: Tensor = net(x)
    return logits.float()
