"""``plusx cache``: what is kept from run to run, and how to be rid of it."""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.errors import UsageError
from plusx.jobs.kept_features import user_cache
from plusx.runtime import cache_folder

UNITS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class CacheItem:
    """One thing that is kept.

    Attributes:
        name: of its file or folder, below the cache folder.
        kind: ``features``, ``plain`` or ``views`` (of a trunk), ``facts`` (of a scan),
            ``datasets`` (images written out of a saved data set) or ``shards`` (where images lie in
            tar files).
        size_bytes: on disk.
        used: when it was last used, seconds since 1970.
        images: it holds; None where that is not known without reading it.
        views: of each image; None but for activations.
        net: the network; None for what no network gave.
        data: the data set's name; None where it is not known.
    """

    name: str
    kind: str
    size_bytes: int
    used: float
    images: int | None = None
    views: int | None = None
    net: str | None = None
    data: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``--json``."""
        return vars(self)


def list_cache() -> list[CacheItem]:
    """All that is kept, the last used first."""
    found = []
    for entry in user_cache().entries():
        with suppress(OSError):  # a run may remove it meanwhile
            images, views = entry.counts
            said = {key: str(entry.about.get(key, "?")) for key in ("kind", "net", "data")}
            name = f"trunk/{entry.folder.name}"
            found.append(CacheItem(name, said["kind"], entry.size_bytes, entry.used, images, views,
                              said["net"], said["data"]))  # fmt: skip
    for kind in ("facts", "datasets", "shards"):
        for place in (cache_folder() / kind).glob("*"):
            with suppress(OSError):
                if place.suffix in ("", ".sqlite"):
                    found.append(CacheItem(f"{kind}/{place.name}", kind, _size(place),
                                      place.stat().st_mtime))  # fmt: skip
    return sorted(found, key=lambda one: -one.used)


def clear_cache(older_than: str | None = None) -> tuple[list[CacheItem], list[CacheItem]]:
    """Remove what was last used so long ago; all of it where nothing is said.

    Args:
        older_than: such as ``30d``, ``12h`` or ``2w``.

    Returns:
        What went, and what stays because a run uses it.

    Raises:
        UsageError: ``older_than`` is no such time.
    """
    least = 0.0 if older_than is None else _seconds(older_than)
    went: list[CacheItem] = []
    stays: list[CacheItem] = []
    trunk = {entry.folder.name: entry for entry in user_cache().entries()}
    for one in list_cache():
        if time.time() - one.used < least:
            continue
        kind, name = one.name.split("/", 1)
        if kind == "trunk":
            gone = trunk[name].remove() if name in trunk else False
        else:
            gone = _remove(cache_folder() / kind / name)
        (went if gone else stays).append(one)
    return went, stays


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text)
    if found is None:
        raise UsageError(f"--older-than {text!r} must be a number with h, d or w, such as 30d")
    return float(found[1]) * UNITS[found[2]]


def _parts(place: Path) -> list[Path]:
    """A folder, or an SQLite file with its journal."""
    return [place] if place.is_dir() else list(place.parent.glob(f"{place.name}*"))


def _size(place: Path) -> int:
    files = [file for part in _parts(place) for file in ([part, *part.rglob("*")])]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(place: Path) -> bool:
    for part in _parts(place):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):
                part.unlink()
    return not place.exists()
