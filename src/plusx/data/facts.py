"""What a scan knows of each image: readable or why not, size, light, sharpness, hashes.

Needs numpy and Pillow only. ``gather_facts`` reads many files in isolated worker processes; what
one file says is found in ``plusx.data.fact_reading``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.filebytes import Refused, locate
from plusx.data.isolated import Crashed, map_isolated
from plusx.data.reading import Reading
from plusx.data.records import BadImage

_PLAIN = Reading()

THUMB = 32
"""Side of the grey thumbnail by which near duplicates are found."""

ROW = np.dtype(
    [
        ("size_bytes", "<i8"),
        ("mtime_ns", "<i8"),
        ("taken", "<M8[s]"),
        ("width", "<i4"),
        ("height", "<i4"),
        ("frames", "<i4"),
        ("camera", "<i4"),
        ("remark", "<i4"),
        ("mean", "<f4"),
        ("std", "<f4"),
        ("entropy", "<f4"),
        ("sharpness", "<f4"),
        ("thumb_gain", "<f4"),
        ("border", "<f4", (3,)),
        ("dark_level", "u1"),
        ("light_level", "u1"),
        ("orientation", "u1"),
        ("bit_depth", "u1"),
        ("format", "S8"),
        ("mode", "S8"),
        ("readable", "?"),
        ("has_icc", "?"),
        ("grey", "?"),
        ("file_hash", "V16"),
        ("content_hash", "V16"),
    ]
)
"""One row of a :class:`FactTable`; the columns mean what :class:`ImageFacts` says of them."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a scan knows of one image. Levels are 0..255; of an unreadable one only the first four
    are known, the rest is empty or 0.

    Attributes:
        path: as given.
        error: why it cannot be read; None where it can.
        size_bytes: of the file, -1 where it is not there.
        mtime_ns: when it was last changed, as the file system says.
        format: as Pillow calls it (JPEG, PNG, ...); empty where another decoder read it.
        mode: Pillow's mode as stored (RGB, L, P, CMYK, I;16, ...).
        width, height: pixels, upright.
        orientation: EXIF orientation as stored, 1..8; 1 where nothing is said.
        frames: pages or frames in the file.
        bit_depth: bits a channel.
        has_icc: an ICC profile is embedded.
        camera: EXIF make and model.
        remarks: what was read otherwise than a person might think (``plusx.data.remarks``).
        taken: EXIF date, ISO 8601; None where absent.
        mean, std: of the grey level.
        entropy: of the histogram of grey levels, in bits, 0..8.
        sharpness: standard deviation of the Laplacian with the longer side at 256 pixels or less.
        dark_level: 99% of the pixels are no lighter (of a dark image it is low).
        light_level: 95% of the pixels are no darker (of a light image it is high).
        grey: the channels are equal, or nearly.
        border: mean red, green and blue of the rim.
        file_hash: BLAKE2b of the file's bytes.
        content_hash: BLAKE2b of the size and the decoded pixels; a large JPEG is decoded at a
            reduced scale, and so are copies of it that are JPEGs.
        thumb: (32, 32) bytes: grey levels less their mean, times ``thumb_gain``, plus 128.
        thumb_gain: how far the levels were stretched.
    """

    path: str
    error: str | None = None
    size_bytes: int = -1
    mtime_ns: int = 0
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1
    bit_depth: int = 8
    has_icc: bool = False
    camera: str = ""
    remarks: tuple[str, ...] = ()
    taken: str | None = None
    mean: float = 0.0
    std: float = 0.0
    entropy: float = 0.0
    sharpness: float = 0.0
    dark_level: int = 0
    light_level: int = 0
    grey: bool = False
    border: tuple[float, float, float] = (0.0, 0.0, 0.0)
    file_hash: bytes = bytes(16)
    content_hash: bytes = bytes(16)
    thumb: bytes = bytes(THUMB * THUMB)
    thumb_gain: float = 1.0

    @property
    def aspect(self) -> float:
        """Width over height; 0 where unknown."""
        return self.width / self.height if self.height else 0.0


_APART = ("path", "error", "camera", "remarks", "taken", "thumb")
_COPIED = [field.name for field in fields(ImageFacts) if field.name not in _APART]


@dataclass(frozen=True)
class FactTable:
    """Facts of n images in the order they were asked for, about 140 bytes each besides the path.

    Attributes:
        paths: (n,) as given.
        rows: (n,) of dtype ``ROW``; read-only. ``rows["width"]`` is a column.
        thumbs: (n, 32, 32) uint8, grey; memory-mapped, so that it may be larger than memory.
        reasons: position -> why that image cannot be read.
        cameras: names that ``rows["camera"]`` counts; 0 is the empty one.
        remark_sets: what ``rows["remark"]`` counts; 0 is the empty one.
    """

    paths: Sequence[str]
    rows: npt.NDArray[Any]
    thumbs: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    cameras: tuple[str, ...] = ("",)
    remark_sets: tuple[tuple[str, ...], ...] = ((),)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageFacts:
        """All that is known of one image."""
        row = self.rows[index]
        known = {name: row[name].tolist() for name in _COPIED}
        for name in ("format", "mode"):
            known[name] = known[name].decode("ascii")
        known["border"] = tuple(known["border"])
        for name in ("file_hash", "content_hash"):
            known[name] = row[name].tobytes()
        taken = None if np.isnat(row["taken"]) else str(row["taken"])
        return ImageFacts(
            path=self.paths[index],
            error=self.reasons.get(int(index)),
            camera=self.cameras[row["camera"]],
            remarks=self.remark_sets[row["remark"]],
            taken=taken,
            thumb=self.thumbs[index].tobytes(),
            **known,
        )

    def __iter__(self) -> Iterator[ImageFacts]:
        return (self[i] for i in range(len(self)))

    def keys(self, paths: Sequence[str]) -> npt.NDArray[np.bytes_]:
        """(m,) 16 bytes that name the content of each file; all of ``paths`` are in the table."""
        place = {path: number for number, path in enumerate(self.paths)}
        hashes = np.ascontiguousarray(self.rows["file_hash"][[place[path] for path in paths]])
        return hashes.view("S16").reshape(-1)

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        """(n,) True where the image can be read."""
        found: npt.NDArray[np.bool_] = self.rows["readable"]
        return found

    @property
    def remarks(self) -> Iterator[tuple[str, ...]]:
        """What is to be said of each image of which something is to be said."""
        return (self.remark_sets[i] for i in self.rows["remark"] if i)

    @property
    def errors(self) -> list[BadImage]:
        """The unreadable ones, in order."""
        return [BadImage(self.paths[i], self.reasons[i]) for i in sorted(self.reasons)]


def gather_facts(
    paths: Iterable[str],
    *,
    processes: int,
    cache: Path | None = None,
    channels: int = 3,
    reading: Reading = _PLAIN,
    timeout_s: float = 60.0,
    tick: Callable[[int], None] = lambda n: None,
) -> FactTable:
    """Read every image once, in full, and keep its facts.

    Each file is decoded in a worker process without torch (see ``map_isolated``): one that crashes
    or hangs its decoder is an unreadable image with that reason. Whether a file is good is what
    ``read_image`` says. Files that change or vanish meanwhile are unreadable for that reason.
    Memory holds the rows and the paths; thumbnails lie in a temporary file.

    Args:
        paths: image files; any iterable.
        processes: how many read at once.
        cache: file that keeps facts by path, size and mtime (made where it is absent); unchanged
            files are not read again, and a scan that was stopped goes on where it was. Only
            readable images are kept. Name a file of its own for each folder of images.
        channels: as the model wants them.
        reading: the choices by which files are decoded.
        timeout_s: an image that takes longer to read is unreadable.
        tick: called in this thread with the number of images done since the last call.

    Raises:
        DataError: the cache cannot be opened or written.
    """
    from plusx.data.fact_reading import read_facts
    from plusx.data.facts_cache import FactsCache, FactsSink

    store = FactsCache(cache, f"{channels} {reading}") if cache is not None else None
    sink = FactsSink(None if cache is None else cache.parent)

    def unknown() -> Iterator[tuple[int, str]]:
        for index, path in enumerate(paths):
            known = store.find(path) if store is not None else None
            sink.extend(path)
            if known is None:
                yield index, path
            else:
                sink.put_known(index, known)
                tick(1)

    read = partial(read_facts, channels=channels, reading=reading)
    results = map_isolated(read, unknown(), processes=processes, timeout_s=timeout_s)
    try:
        for result in results:
            if isinstance(result, Crashed):
                index, path = result.item
                result = index, ImageFacts(path, error=result.reason, size_bytes=_size(path))
            index, facts = result
            sink.put(index, facts)
            if store is not None and facts.error is None:
                store.add(facts)
            tick(1)
        return sink.table()
    finally:
        sink.close()
        if store is not None:
            store.close()


def _size(path: str) -> int:
    try:
        return locate(path).size
    except (Refused, OSError, ValueError):
        return -1
