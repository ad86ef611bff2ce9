"""What ``plusx compare DATA --with ...`` can be told; every default stands here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any, Literal

from plusx.errors import UsageError
from plusx.jobs.options import TrainOptions

USUAL = "pretrained,scratch,plain,cnn"

_LEAST = {"epochs": 1, "seeds": 1, "batch_size": 1, "image_size": 8, "shift_images": 0, "seed": 0}


@dataclass(frozen=True)
class ContestOptions:
    """Options of a comparison, as asked for.

    Attributes:
        data: as for ``plusx train``.
        contestants: names with commas between; see ``plusx.jobs.contest_entrants``.
        out: the folder; by default ``compare-NAME``.
        weights: of ``pretrained``.
        model: the residual net; by default what the weights are for, else resnet50.
        unfreeze: last blocks to train of what starts from weights, or ``all``.
        budget: ``EPOCHSxTRIALS`` to find each contestant's learning rate.
        epochs: of each training that counts; by default as many as a net from scratch needs.
        seeds: trainings of each contestant that count.
        batch_size: images per step.
        image_size: pixels that all networks see; by default what the weights were made for.
        shift_images: at most so many of the reporting images are harmed to measure the shift.
        seed: of the split, and of the first training.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: of training: ``auto``, ``float32`` or ``bfloat16``.
        threads: for decoding.
    """

    data: str
    contestants: str = USUAL
    out: str | None = None
    weights: str = "auto"
    model: str | None = None
    unfreeze: int | Literal["all"] = "all"
    budget: str = "5x3"
    epochs: int | None = None
    seeds: int = 3
    batch_size: int = 32
    image_size: int | None = None
    shift_images: int = 200
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("epochs", "image_size"):
                continue
            if type(value) is not int or value < least:
                raise UsageError(
                    f"--{name.replace('_', '-')} {value!r} must be a whole number of at least "
                    f"{least}"
                )
        if self.unfreeze != "all" and (type(self.unfreeze) is not int or self.unfreeze < 1):
            raise UsageError(f"--unfreeze {self.unfreeze!r} must be all, or at least 1 block")
        _ = self.trial_epochs
        self.training(self.weights)  # which complains

    @property
    def trial_epochs(self) -> int:
        """Epochs of a trial."""
        return self._budget[0]

    @property
    def trials(self) -> int:
        """Learning rates that are tried for each contestant."""
        return self._budget[1]

    @property
    def _budget(self) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d?)", self.budget)
        if found is None:
            raise UsageError(
                f"--budget {self.budget!r} must be EPOCHSxTRIALS, such as 5x3: three learning "
                "rates for five epochs each"
            )
        return int(found[1]), int(found[2])

    def training(self, weights: str) -> TrainOptions:
        """The same as options of a training that starts from ``weights``."""
        return TrainOptions(
            self.data,
            weights=weights,
            unfreeze=None if weights == "none" else self.unfreeze,
            epochs=self.epochs,
            batch_size=self.batch_size,
            image_size=self.image_size,
            seed=self.seed,
            device=self.device,
            precision=self.precision,
            threads=self.threads,
        )

    @classmethod
    def of(cls, data: str | os.PathLike[str], **options: Any) -> ContestOptions:
        """From keyword arguments.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        known = {field.name for field in fields(cls)} - {"data"}
        if unknown := sorted(set(options) - known):
            legal = ", ".join(sorted(known))
            raise UsageError(f"unknown option {', '.join(unknown)}; known: {legal}")
        paths = {name: os.fspath(options[name]) for name in ("out", "model", "weights")
                 if options.get(name) is not None}  # fmt: skip
        return cls(os.fspath(data), **(options | paths))
