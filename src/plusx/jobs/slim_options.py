"""Options of ``plusx slim``."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any

from plusx.errors import UsageError

_WHOLE = {"blocks": 1, "epochs": 1, "batch_size": 1, "images": 2, "tune_images": 1, "views": 1,
          "compare_random": 0, "seed": 0, "threads": 1}  # fmt: skip
"""Whole numbers and the least each may be."""


@dataclass(frozen=True)
class SlimOptions:
    """As asked for.

    Attributes:
        run: the run, or model folder, to slim; it stays as it is.
        data: labelled images; by default those that the run was trained on.
        out: the folder of the new run; by default a new one under ``runs/``.
        overwrite: replace a run that is already at ``out``.
        max_drop: points of top-1 that may be lost, on the images that choose.
        blocks: remove exactly so many, instead of as many as ``max_drop`` permits.
        epochs: of the tuning; by default as many as make 150 steps, 4 at least and 40 at most.
        lr: peak learning rate of the tuning; by default as fine-tuning has it.
        batch_size: images per step.
        images: at most so many choose.
        tune_images: at most so many training images are tuned on.
        views: of each of them, the plain one and augmented ones; by default as many as make 4,000
            in all: 2 at least and 8 at most.
        cache_gib: at most so much disk for activations.
        curve: tune every number of blocks, for the whole curve.
        compare_random: judge so many random choices of as many blocks, too.
        seed: of the halves, the samples and the tuning.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: ``auto``, ``float32`` or ``bfloat16``; of ranking, tuning and timing.
        threads: for decoding.
    """

    run: str
    data: str | None = None
    out: str | None = None
    overwrite: bool = False
    max_drop: float = 0.5
    blocks: int | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int = 32
    images: int = 1_000
    tune_images: int = 4_000
    views: int | None = None
    cache_gib: float = 8.0
    curve: bool = False
    compare_random: int = 0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is None and name in ("blocks", "epochs", "threads", "views"):
                continue
            if type(value) is not int or value < least:
                raise UsageError(
                    f"--{name.replace('_', '-')} {value!r} must be a whole number of at least "
                    f"{least}"
                )
        for name, most in (("max_drop", 100.0), ("cache_gib", math.inf), ("lr", math.inf)):
            value = getattr(self, name)
            if value is None and name == "lr":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not (0 <= value <= most and value < math.inf):
                top = "" if most == math.inf else f" and at most {most:g}"
                unit = " (points of top-1)" if name == "max_drop" else ""
                raise UsageError(
                    f"--{name.replace('_', '-')} {value!r} must be a number of at least 0{top}"
                    f"{unit}"
                )
        if self.curve and self.blocks is not None:
            raise UsageError("--curve tunes every number of blocks; leave out --blocks")

    @classmethod
    def of(cls, run: str | os.PathLike[str], **options: Any) -> SlimOptions:
        """From keyword arguments.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        known = {field.name for field in dataclasses.fields(cls)} - {"run"}
        if unknown := sorted(set(options) - known):
            legal = ", ".join(sorted(known))
            raise UsageError(f"unknown option {', '.join(unknown)}; known: {legal}")
        plain = {k: os.fspath(options[k]) for k in ("data", "out") if options.get(k) is not None}
        return cls(os.fspath(run), **(options | plain))
