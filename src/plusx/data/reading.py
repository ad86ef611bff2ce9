"""The rules by which an image file becomes an array: stated once, shipped with the model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from plusx.errors import UsageError

Depth = Literal["full-range", "window"]
ResizeMode = Literal["short", "squish", "pad"]
"""How an array becomes a square; see ``Preprocessing``."""

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
    | {".avif", ".heic", ".heif", ".hif", ".dcm", ".dicom"}
)
"""Of files that are taken for images where a folder or a tar file is listed."""

COLOURS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
"""Backgrounds that have a name."""


@dataclass(frozen=True)
class Limits:
    """What is refused before it can fill the memory.

    Frames and pages after the first are never unpacked, so they need no limit of their own.

    Attributes:
        pixels: width times height.
        file_bytes: of the file.
        decoded_bytes: pixels times channels times bytes per value, before any conversion.
        profile_bytes: of an embedded colour profile; a larger one is ignored.

    Raises:
        UsageError: a limit is no whole number of at least 1.
    """

    pixels: int = 178_956_970
    file_bytes: int = 2**30
    decoded_bytes: int = 2**32
    profile_bytes: int = 2**22

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is not int or value < 1:
                raise UsageError(f"limit {item.name} {value!r} must be a whole number, at least 1")


@dataclass(frozen=True)
class Reading:
    """The choices by which files are decoded; see docs/images.md.

    Attributes:
        profiles: convert embedded colour profiles to sRGB.
        background: (R, G, B) that transparent images are laid on, 0..255.
        depth: of grey images with more than 8 bits: ``full-range`` takes what the format can
            hold, ``window`` the image's own values between two percentiles.
        percentiles: those two, 0..100.
        bands: of TIFF files, from 1, in the order in which the network takes them. None reads
            TIFF files as photographs.
        range: (low, high) of each band, or one pair for all: what becomes 0 and 1.
        frame: of DICOM files with several, from 0.
        limits: see ``Limits``.

    Raises:
        UsageError: values that cannot work.
    """

    profiles: bool = True
    background: tuple[int, int, int] = COLOURS["white"]
    depth: Depth = "full-range"
    percentiles: tuple[float, float] = (0.5, 99.5)
    bands: tuple[int, ...] | None = None
    range: tuple[tuple[float, float], ...] | None = None
    frame: int = 0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("background", "percentiles", "bands"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.range is not None:
            pairs = tuple((float(low), float(high)) for low, high in self.range)
            object.__setattr__(self, "range", pairs)
        if len(self.background) != 3 or not all(
            type(v) is int and 0 <= v <= 255 for v in self.background
        ):
            raise UsageError(f"background {self.background!r} must be three numbers 0..255")
        if self.depth not in get_args(Depth):
            raise UsageError(f"depth {self.depth!r} is not one of full-range, window")
        if len(self.percentiles) != 2 or not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise UsageError(f"percentiles {self.percentiles!r} must rise within 0..100")
        if type(self.frame) is not int or self.frame < 0:
            raise UsageError(f"frame {self.frame!r} must be a whole number of at least 0")
        self._check_bands()

    def _check_bands(self) -> None:
        bands, pairs = self.bands, self.range
        if bands is not None and not (bands and all(type(b) is int and b >= 1 for b in bands)):
            raise UsageError(f"bands {bands!r} must be whole numbers from 1, such as 4,3,2")
        for low, high in pairs or ():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise UsageError(f"range {low:g},{high:g} must rise, such as 0,10000")
        if pairs is not None and bands is not None and len(pairs) not in (1, len(bands)):
            raise UsageError(
                f"range names {len(pairs)} pairs for {len(bands)} bands; give one pair LOW,HIGH "
                "for all, or one for each"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` gives an equal object back."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reading:
        """The reverse of :meth:`to_dict`; what is left out (as TOML leaves out None) has its
        default.

        Raises:
            UsageError: a key is unknown or a value cannot work.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UsageError(f"reading: unknown keys {unknown}")
        given = dict(values)
        try:
            if "limits" in given:
                given["limits"] = Limits(**given["limits"])
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise UsageError(f"reading: {error}") from error

    @classmethod
    def before_profiles(cls) -> Reading:
        """How models were trained whose artifact states no reading: profiles were ignored."""
        return cls(profiles=False)


def parse_bands(given: str | Sequence[int] | None) -> tuple[int, ...] | None:
    """``4,3,2`` or a sequence -> (4, 3, 2).

    Raises:
        UsageError: something else.
    """
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else list(given)
    try:
        return tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        raise UsageError(f"--bands {given!r} must be numbers from 1, such as 4,3,2") from None


def parse_range(given: str | Sequence[float] | None) -> tuple[tuple[float, float], ...] | None:
    """``LOW,HIGH`` for all bands, or ``LOW,HIGH,LOW,HIGH,...``, a pair for each -> pairs.

    Raises:
        UsageError: something else.
    """
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else list(given)
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or len(numbers) % 2:
        raise UsageError(f"--range {given!r} must be LOW,HIGH, or such a pair for each band")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def parse_colour(given: str) -> tuple[int, int, int]:
    """``white``, ``grey``, ``black`` or ``#rrggbb`` -> (R, G, B).

    Raises:
        UsageError: something else.
    """
    if given in COLOURS:
        return COLOURS[given]
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(given)):
        raise UsageError(f"--background {given!r} is not one of {', '.join(COLOURS)}, #rrggbb")
    red, green, blue = bytes.fromhex(given[1:])
    return red, green, blue


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
