"""All that a training is at one moment: named parts that are saved, and restored, together.

Whatever the next step depends on is a part: a new one is one more entry in the loop's table.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from plusx.errors import ArtifactError
from plusx.fit.distributed import Processes

T = TypeVar("T")

EXPLODED = 1e4
"""Loss, in nats an image, from which no training comes back."""

_EVERY = 25
"""Steps after which a GPU's loss is looked at: looking waits until it is known."""


class Part(Protocol):
    """What can be saved as plain data and tensors."""

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """The inverse."""
        ...


def collect(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The state of every part, by name."""
    return {name: part.state_dict() for name, part in parts.items()}


def restore(parts: Mapping[str, Part], state: Mapping[str, Any]) -> None:
    """The inverse of ``collect``.

    Raises:
        ArtifactError: a part is missing, or does not fit.
    """
    if lacking := sorted(set(parts) - set(state)):
        raise ArtifactError(
            f"the checkpoint has no {', '.join(lacking)}: it is that of another kind of training; "
            "train anew, without --resume"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"the checkpoint's {name} does not fit ({str(error).splitlines()[0]}); train anew, "
                "without --resume"
            ) from error


class Position:
    """Where a training stands, and what the epoch in hand has been so far.

    Attributes:
        epoch: the one in hand, from 1.
        step: steps of it that are done.
        images: of these steps, of all processes.
        lr: learning rate of the last step.
        shown: the last loss that was looked at.
        waited: seconds of the epoch that this process has waited for its images.
    """

    def __init__(self, processes: Processes, device: torch.device, lr: float) -> None:
        self._processes, self._device = processes, device
        self.lr, self.shown = lr, math.nan
        self._begin(1)

    def _begin(self, epoch: int) -> None:
        self.epoch, self.step, self.images = epoch, 0, 0
        kind = torch.float32 if self._device.type == "mps" else torch.float64
        self._loss = torch.zeros((), dtype=kind, device=self._device)
        self._last: tuple[Tensor, Tensor] | None = None
        self._before, self._since = 0.0, time.perf_counter()
        self.waited = 0.0

    def awaiting(self, steps: Iterator[T]) -> Iterator[T]:
        """The same steps; what passes until each is there is counted in ``waited``."""
        while True:
            began = time.perf_counter()
            step = next(steps, None)
            self.waited += time.perf_counter() - began
            if step is None:
                return
            yield step

    @property
    def seconds(self) -> float:
        """That the epoch has taken, without the time between a stop and its resume."""
        return self._before + time.perf_counter() - self._since

    def loss(self) -> float | None:
        """Mean loss of the epoch's steps, over all processes; None before the first."""
        total = self._processes.totals(float(self._loss))[0]
        return total / self.step if self.step else None

    @property
    def looks(self) -> bool:
        """Whether the loss is looked at after this step: on a CPU after every one."""
        return self._device.type == "cpu" or self.step % _EVERY == 0

    def add(self, loss: Tensor, norm: Tensor, images: int) -> None:
        """Count what a step did.

        Args:
            loss: this process's share of the step's loss.
            norm: of the step's gradient.
            images: of the step, in all processes.
        """
        self.images += images
        self._loss += loss.detach()
        self._last = loss.detach(), norm

    def diverged(self) -> str:
        """What is wrong with the losses so far; nothing where training can go on."""
        if self._last is None:
            return ""
        self.shown, norm = (float(value) for value in self._last)
        fine = math.isfinite(norm) and math.isfinite(float(self._loss))
        if not self._processes.any(not fine or self.shown > EXPLODED):
            return ""
        what = f"the loss became {self.shown:.4g}"
        if math.isfinite(self.shown) and self.shown <= EXPLODED:
            what = f"the gradient became {norm:.4g} at a loss of {self.shown:.4g}"
        where = f"in epoch {self.epoch}, step {self.step + 1}"
        return f"{what} {where}, at learning rate {self.lr:g}"

    def next_epoch(self) -> None:
        """Begin the next one."""
        self._begin(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """For all processes together."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "images": self.images,
            "loss": self._processes.totals(float(self._loss))[0],
            "lr": self.lr,
            "shown": self.shown,
            "seconds": self.seconds,
            "waited": self.waited,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse: the first process carries on the sum of all."""
        self._begin(int(state["epoch"]))
        self.step, self.images = int(state["step"]), int(state["images"])
        self.lr, self.shown = float(state["lr"]), float(state["shown"])
        self._before, self.waited = float(state["seconds"]), float(state["waited"])
        if self._processes.world.is_main:
            self._loss.fill_(float(state["loss"]))


class Generators:
    """Every random generator that a library may draw from: torch's, numpy's and Python's."""

    def state_dict(self) -> dict[str, Any]:
        """Their states."""
        kind, key, at, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": (str(kind), torch.from_numpy(np.asarray(key, np.int64)), at, has_gauss, gauss),
            "python": random.getstate(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse; GPUs that there are no longer are passed over."""
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
        kind, key, at, has_gauss, gauss = state["numpy"]
        np.random.set_state((kind, key.numpy().astype(np.uint32), at, has_gauss, gauss))  # noqa: NPY002
        version, words, extra = state["python"]
        random.setstate((version, tuple(words), extra))


def seed_step(seed: int, epoch: int, step: int, rank: int) -> None:
    """Seed torch for one step (its dropout), so that it is a function of where the step stands."""
    words = np.random.SeedSequence([seed, epoch, step, rank]).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]) >> 1)
