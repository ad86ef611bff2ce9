"""What a training leaves behind while it runs: checkpoints, and word to whoever watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from plusx.errors import Diverged
from plusx.fit.checkpoint import Checkpoints, save_checkpoint
from plusx.fit.choice import Choice
from plusx.fit.distributed import Processes
from plusx.fit.inputs import Inputs
from plusx.fit.state import Part, Position, collect, restore
from plusx.fit.stop import Stop
from plusx.fit.trackers import Tracker

CALMER = "try a smaller --lr, or --unfreeze 0 for the probe alone"


@dataclass(frozen=True)
class Step:
    """What a progress display may show after a step; ``best`` is the best validation figure."""

    epoch: int
    images: int
    loss: float
    best: float


@dataclass(frozen=True)
class Keeping:
    """How a training is kept, watched and stopped.

    Attributes:
        folder: the run folder: ``history.csv``, ``tensorboard/`` and ``checkpoints/``, from which
            an interrupted training goes on.
        minutes: between checkpoints within an epoch; there is one after each epoch as well.
        stop: asked after every step.
        tick: called after every step.
        note: told what a person should know.
        trackers: told every epoch's row as well.
    """

    folder: Path
    minutes: float = 5.0
    stop: Stop = field(default_factory=Stop)
    tick: Callable[[Step], None] = lambda step: None
    note: Callable[[str], None] = lambda text: None
    trackers: tuple[Tracker, ...] = ()


class Kept:
    """The checkpoints of a training in hand."""

    def __init__(
        self, keeping: Keeping, processes: Processes, parts: dict[str, Part],
        position: Position, choice: Choice,
    ) -> None:  # fmt: skip
        self._files = Checkpoints(keeping.folder / "checkpoints")
        self._keeping, self._processes, self._parts = keeping, processes, parts
        self._position, self._choice = position, choice
        self._saved = time.monotonic()
        self._best = ""
        self._where = "nothing is kept"

    @property
    def due(self) -> bool:
        """Whether it is time for one within the epoch."""
        late = time.monotonic() - self._saved >= 60 * self._keeping.minutes
        return late and self._processes.world.is_main

    def restore(self) -> bool:
        """Go back to the last one; False where there is none."""
        state = self._processes.first_says(lambda: self._files.load(self._keeping.note))
        if state is None:
            return False
        restore(self._parts, state)
        self._mark()
        return True

    def save(self) -> None:
        """Write one; every process takes part, the first one writes."""
        state = collect(self._parts)
        best = self._choice.best
        if self._processes.world.is_main:
            self._files.save(state)
            if best.state is not None and best.name != self._best:
                about = {"name": best.name, "epoch": best.epoch, "score": best.score}
                save_checkpoint(self._files.best, about | {"net": dict(best.state)})
        self._mark()

    def _mark(self) -> None:
        at = self._position
        self._saved, self._best = time.monotonic(), self._choice.best.name
        self._where = f"{self._files.last} keeps the state of epoch {at.epoch}, step {at.step}"

    def check(self, inputs: Inputs = ()) -> None:
        """Look whether training can go on.

        Args:
            inputs: of the step.

        Raises:
            Diverged: a loss or gradient is not finite, or the loss exploded; with the likely cause.
        """
        what = self._position.diverged()
        if not what:
            return
        broken = any(not bool(x.isfinite().all()) for x in inputs)
        if self._processes.any(broken):
            cause = "images of this step have values that are not finite: mend or leave them out"
        else:
            cause = f"the learning rate is probably too high: {CALMER}"
        raise Diverged(f"{what}; {cause} ({self._where})")
