"""What ``plusx train`` and ``plusx scan`` can be told; every default stands here."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from plusx.data.ordered import MOST_THREADS
from plusx.data.reading import Limits, Reading, ResizeMode, parse_bands, parse_colour, parse_range
from plusx.errors import UsageError
from plusx.evaluate.wish import Wish
from plusx.jobs.recipe_options import RecipeOptions
from plusx.jobs.recipes import with_recipe

_PATHS = ("out", "model", "weights", "teacher", "init", "config")

T = TypeVar("T", "TrainOptions", "ScanOptions")


@dataclass(frozen=True)
class TrainOptions(RecipeOptions):
    """Options of a training run, as asked for; ``None`` is resolved from the data and said.

    How it trains is told by ``RecipeOptions``.

    Attributes:
        data: a folder of images or a CSV file.
        out: the run folder; by default a new one under ``runs/``.
        overwrite: replace a run that is already at ``out``.
        model: a variant, a baseline, ``timm:NAME`` or SPEC.json; by default what the weights are
            for, else resnet50.
        weights: ``auto``, ``bundled``, ``none``, a file, a run, or a hub id.
        unfreeze: how many last blocks to fine-tune, or ``all``; 0 is the probe alone. By default
            2, and ``all`` where ``weights`` is ``none``.
        image_size: pixels that the network sees; by default what its weights were made for.
        resize_mode: how an image becomes a square: ``short`` (short side resized, centre cropped),
            ``squish`` or ``pad`` (all of it is seen); by default what the weights were made for.
        channels: of the input; by default as many as ``bands``, else what the weights were made
            for.
        bands: of TIFF files, from 1, in the network's order: ``4,3,2`` or a sequence.
        range: what becomes 0 and 1: ``LOW,HIGH`` for all bands, or such a pair for each.
        depth: of grey images with more than 8 bits: ``full-range``, or ``window`` (each image's
            own 0.5 to 99.5 percent).
        background: of transparent images: ``white``, ``grey``, ``black`` or ``#rrggbb``.
        max_pixels: images with more are refused; by default 178,956,970.
        views: views per training image to cache: the plain one and augmented ones.
        cache_gib: at most this much disk for cached activations; above it they are streamed.
        val_fraction: share of the images for validation, where the data names none.
        folds: train this many times for out-of-fold figures before the model that ships; 0 or
            at least 2.
        allow_leaks: train though identical images lie in two given splits, and leave copies where
            they fall in a split that plusx makes.
        thumbnails: show images in the report and the audit; False for images of patients.
        decide: what the model's decisions shall promise, such as ``precision=0.95,sets=0.9``; by
            default sets of classes that hold the right one 9 times in 10, and images unlike the
            training images called unknown, at the price of 1 in 20 of the others.
        neighbours: keep features, names and labels of the training images in the run folder, so
            that an explanation can name those nearest to an image.
        checkpoint_minutes: between checkpoints within an epoch; each epoch ends with one as well.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        precision: of training: ``auto``, ``float32`` or ``bfloat16``.
        compile: run the steps of the training through ``torch.compile``.
        threads: for decoding.
    """

    data: str
    out: str | None = None
    overwrite: bool = False
    model: str | None = None
    weights: str = "auto"
    unfreeze: int | Literal["all"] | None = None
    image_size: int | None = None
    resize_mode: ResizeMode | None = None
    channels: int | None = None
    bands: str | Sequence[int] | None = None
    range: str | Sequence[float] | None = None
    depth: str = "full-range"
    background: str = "white"
    max_pixels: int | None = None
    views: int | None = None
    cache_gib: float = 8.0
    val_fraction: float = 0.2
    folds: int = 0
    allow_leaks: bool = False
    thumbnails: bool = True
    decide: str | None = None
    neighbours: bool = True
    checkpoint_minutes: float = 5.0
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self.check_recipe()
        for name in ("weights", "device"):
            if getattr(self, name) is None:
                raise UsageError(f"--{name} None must be a name; leave it out for the default")
        if type(self.folds) is not int or self.folds < 0 or self.folds == 1:
            raise UsageError(f"--folds {self.folds} must be at least 2 (or 0 for none)")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"--val-fraction {self.val_fraction} must lie between 0 and 1")
        if not 0 <= self.cache_gib < math.inf:
            raise UsageError(f"--cache-gib {self.cache_gib} must be at least 0")
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise UsageError(f"--checkpoint-minutes {self.checkpoint_minutes} must be at least 0")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UsageError(
                f"--precision {self.precision!r} is not one of auto, float32, bfloat16 for training"
            )
        if self.resize_mode not in (None, *get_args(ResizeMode)):
            raise UsageError(f"--resize-mode {self.resize_mode!r} is not one of short, squish, pad")
        blocks = self.unfreeze
        if blocks not in (None, "all") and (type(blocks) is not int or blocks < 0):
            raise UsageError(f"--unfreeze {blocks} must be 'all' or a number of at least 0")
        if (mixing := next((n for n in ("mixup", "cutmix") if getattr(self, n)), "")) and (
            self.unfreeze == 0
        ):
            raise UsageError(
                f"--{mixing} {getattr(self, mixing)} mixes images while blocks are fine-tuned, and "
                "--unfreeze 0 fine-tunes none; leave one of them out"
            )
        if self.weights == "none" and self.unfreeze not in (None, "all"):
            raise UsageError(
                f"--unfreeze {self.unfreeze} would freeze random weights; with --weights none "
                "leave it out, or give --unfreeze all"
            )

        _check_bands(self)
        Wish.parse(self.decide)  # which complains

    def _check_numbers(self) -> None:
        least = {"image_size": 8, "channels": 1, "views": 1, "threads": 1, "seed": 0,
                 "max_pixels": 1}  # fmt: skip
        most: dict[str, float] = {
            "image_size": 2**14, "channels": 2**10, "threads": MOST_THREADS,
            "seed": 2**63 - 1}  # fmt: skip
        may_lack = {field.name for field in dataclasses.fields(self) if field.default is None}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is None and name in may_lack:
                continue
            if type(value) is not int:
                raise UsageError(f"--{name.replace('_', '-')} {value!r} must be a whole number")
            if value < bound:
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {bound}")
            if value > (limit := most.get(name, math.inf)):
                raise UsageError(f"--{name.replace('_', '-')} {value} must be at most {limit}")
        for name in (
            "val_fraction",
            "cache_gib",
            "checkpoint_minutes",
        ):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number and not (value is None and name in may_lack):
                raise UsageError(f"--{name.replace('_', '-')} {value!r} must be a number")

    @classmethod
    def of(cls, data: str | os.PathLike[str], **options: Any) -> TrainOptions:
        """From keyword arguments, over those of a file ``config``, over those of ``recipe``.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        return _of(cls, data, with_recipe(options), _PATHS)

    @classmethod
    def as_resolved(cls, asked: Mapping[str, Any]) -> TrainOptions:
        """From all options of a run that began; recipe and file had their say then.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        options = dict(asked)
        return _of(cls, options.pop("data"), options, _PATHS)

    @property
    def reading(self) -> Reading:
        """How files are decoded."""
        return _reading(self)

    @property
    def from_scratch(self) -> bool:
        """Whether training starts from random weights."""
        return self.weights == "none"


@dataclass(frozen=True)
class ScanOptions:
    """Options of a scan, as asked for.

    Attributes:
        data: a folder of images, a CSV or Parquet file, or a saved data set.
        weights: a network whose features find label errors, outliers and look-alikes: a file, a
            run, or a hub id, as ``plusx train --weights`` takes them. Without it, these are not
            looked for.
        model: the variant that the weights are for, where they don't say.
        cache: folder where facts are kept by path, size and mtime; ``auto`` is the user's cache
            folder; None keeps none.
        processes: that read images; by default one a core.
        channels, bands, range, depth, background, max_pixels: how images are read, as
            ``TrainOptions`` has them.
        device: for the network.
        seed: of folds and samples.
    """

    data: str
    weights: str | None = None
    model: str | None = None
    cache: str | os.PathLike[str] | None = "auto"
    processes: int | None = None
    channels: int | None = None
    bands: str | Sequence[int] | None = None
    range: str | Sequence[float] | None = None
    depth: str = "full-range"
    background: str = "white"
    max_pixels: int | None = None
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("processes", "channels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value!r} must be a whole number of at least 1")
        _check_bands(self)

    @classmethod
    def of(cls, data: str | os.PathLike[str], **options: Any) -> ScanOptions:
        """From keyword arguments.

        Raises:
            UsageError: an option is unknown or has an impossible value.
        """
        return _of(cls, data, options, ("model", "weights"))

    @property
    def reading(self) -> Reading:
        """How files are decoded."""
        return _reading(self)

    @property
    def as_channels(self) -> int:
        """Channels that images are read with."""
        bands = self.reading.bands
        return self.channels or (3 if bands is None else len(bands))


def _reading(options: TrainOptions | ScanOptions) -> Reading:
    if options.depth not in ("full-range", "window"):
        raise UsageError(f"--depth {options.depth!r} is not one of full-range, window")
    most = options.max_pixels
    return Reading(
        background=parse_colour(options.background),
        depth=options.depth,  # type: ignore[arg-type]
        bands=parse_bands(options.bands),
        range=parse_range(options.range),
        limits=Limits() if most is None else Limits(pixels=most),
    )


def _check_bands(options: TrainOptions | ScanOptions) -> None:
    bands = parse_bands(options.bands)
    if bands is not None and options.channels not in (None, len(bands)):
        raise UsageError(f"--bands names {len(bands)} bands, --channels is {options.channels}")
    _ = options.reading  # which complains


def _of(
    kind: type[T], data: str | os.PathLike[str], options: dict[str, Any], paths: Sequence[str]
) -> T:
    known = {field.name for field in dataclasses.fields(kind)} - {"data"}
    if unknown := sorted(set(options) - known):
        legal = ", ".join(sorted(known))
        raise UsageError(f"unknown option {', '.join(unknown)}; known: {legal}")
    plain = {name: os.fspath(options[name]) for name in paths if options.get(name) is not None}
    return kind(os.fspath(data), **(options | plain))
