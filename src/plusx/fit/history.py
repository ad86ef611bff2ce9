"""What happened in each epoch: ``history.csv`` and TensorBoard events."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from plusx.atomic import replacing
from plusx.fit.trackers import Tracker


@dataclass(frozen=True)
class Epoch:
    """One row of ``history.csv``.

    Attributes:
        epoch: from 1; 0 is the state before the first step.
        train_loss: mean over the epoch's steps; None before the first.
        val_top1: fraction of validation images that are right; None for task multi.
        val_nll: mean negative log likelihood on validation, in nats.
        lr: learning rate of the last step.
        seconds: the epoch's time, validation included.
        images_per_s: training images per second of training time.
        val_map: mean average precision on validation; None for task single.
        waited: share of the training time that passed in waiting for images.
    """

    epoch: int
    train_loss: float | None
    val_top1: float | None
    val_nll: float
    lr: float
    seconds: float
    images_per_s: float | None
    val_map: float | None = None
    waited: float | None = None

    @property
    def score(self) -> float:
        """The figure that chooses: top1 or mean average precision, 0..1."""
        found = self.val_top1 if self.val_map is None else self.val_map
        assert found is not None
        return found


class History:
    """Rows so far; each is written when it is added. Close it, or use it in a ``with``.

    Args:
        folder: the run folder; ``history.csv`` and ``tensorboard/`` are written there. None writes
            nothing: of several processes one does.
        rows: those that were there before.
        trackers: told of each new row; closed with the history. Where there is no folder, they are
            told nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        rows: list[Epoch] | None = None,
        *,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self._csv = None if folder is None else folder / "history.csv"
        self.rows: list[Epoch] = []
        self._board: Any = None
        if folder is not None:
            # Imported here: it costs half a second that a probe need not pay.
            from torch.utils.tensorboard import SummaryWriter

            events = folder / "tensorboard"
            shutil.rmtree(events, ignore_errors=True)  # of the part before: its rows come again
            self._board = SummaryWriter(str(events), flush_secs=10)
        self._trackers = () if folder is None else tuple(trackers)
        self._set(rows or [])

    @property
    def seconds(self) -> float:
        """Of all epochs so far."""
        return sum(row.seconds for row in self.rows)

    def add(self, row: Epoch) -> None:
        """Write one epoch."""
        self._set([*self.rows, row])
        known = {name: value for name, value in asdict(row).items()
                 if name != "epoch" and value is not None}  # fmt: skip
        for tracker in self._trackers:
            tracker.log(known, row.epoch)

    def state_dict(self) -> dict[str, Any]:
        """The rows as plain data."""
        return {"rows": [asdict(row) for row in self.rows]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse."""
        self.rows = []
        self._set([Epoch(**row) for row in state["rows"]])

    def _set(self, rows: list[Epoch]) -> None:
        fresh, self.rows = rows[len(self.rows) :], rows
        if self._csv is None:
            return
        with (
            replacing(self._csv) as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file)
            table.writerow([field.name for field in fields(Epoch)])
            table.writerows(asdict(row).values() for row in rows)
        for row in fresh:
            for name, value in asdict(row).items():
                if name != "epoch" and value is not None:
                    self._board.add_scalar(name, value, row.epoch)

    def __enter__(self) -> History:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush the events, and end the trackers."""
        for tracker in self._trackers:
            tracker.close()
        if self._board is not None:
            self._board.close()
