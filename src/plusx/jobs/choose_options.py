"""What ``plusx choose`` can be told; every default stands here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any

from plusx.errors import UsageError
from plusx.jobs.bench_engines import ENGINES
from plusx.runtime import PRECISIONS

MOST_IMAGES = 8_192
"""Of which features are compared: more would not change what is found, and take memory."""


@dataclass(frozen=True)
class ChooseOptions:
    """Options of a choice, as asked for.

    Attributes:
        data: as for ``plusx train``; one label an image.
        models: names with commas between, each with ``=WEIGHTS`` where it shall be these; by
            default the ladder (``plusx.jobs.choose_candidates.LADDER``) and all of ``weights_dir``.
        weights_dir: a folder of weights files and model folders.
        download: fetch weights from the hub that are not at hand.
        latency_ms: the most that one image may take.
        engine: that is timed: one of ``ENGINES``.
        precision: that is timed: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        seconds: of timing for each net.
        images: at most so many training images are used, every class in proportion.
        val_fraction: where the data names no splits, this share is left alone, as training does.
        out: the folder; by default ``choose-NAME``.
        cache: the folder where features are kept; by default in the user's cache folder.
        seed: of splits, folds and samples.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        threads: for decoding.
    """

    data: str
    models: str | None = None
    weights_dir: str | None = None
    download: bool = False
    latency_ms: float | None = None
    engine: str = "torch"
    precision: str = "auto"
    seconds: float = 2.0
    images: int = 2_000
    val_fraction: float = 0.2
    out: str | None = None
    cache: str | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise UsageError(f"--engine {self.engine!r} is not one of {', '.join(ENGINES)}")
        if self.precision not in ("auto", *PRECISIONS):
            raise UsageError(
                f"--precision {self.precision!r} is not one of auto, {', '.join(PRECISIONS)}"
            )
        if not 0 < self.seconds <= 600:
            raise UsageError(f"--seconds {self.seconds:g} must be above 0, and at most 600")
        if not 20 <= self.images <= MOST_IMAGES:
            raise UsageError(f"--images {self.images} must be from 20 to {MOST_IMAGES:,}")
        if self.latency_ms is not None and not 0 < self.latency_ms < 1e6:
            raise UsageError(f"--latency {self.latency_ms:g} ms must be above 0")

    @classmethod
    def of(cls, data: str | os.PathLike[str], **options: Any) -> ChooseOptions:
        """From keyword arguments; ``latency`` may be ``20ms``, ``0.1s`` or a number of ms.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        if "latency" in options:
            options["latency_ms"] = parse_latency(options.pop("latency"))
        known = {field.name for field in fields(cls)} - {"data"}
        if unknown := sorted(set(options) - known):
            legal = ", ".join(sorted(known))
            raise UsageError(f"unknown option {', '.join(unknown)}; known: {legal}")
        paths = {name: os.fspath(options[name]) for name in ("out", "cache", "weights_dir")
                 if options.get(name) is not None}  # fmt: skip
        return cls(os.fspath(data), **(options | paths))


def parse_latency(text: str | float | None) -> float | None:
    """``20ms``, ``20``, ``0.02s`` -> milliseconds.

    Raises:
        UsageError: it is no time.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|)\s*", str(text))
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--latency {text!r} is no time above 0; write it as 20ms or 0.1s")
    return float(found[1]) * (1000 if found[2] == "s" else 1)
