"""``plusx cache``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plusx.jobs.cache import Kept

EXAMPLES = """\b
Examples:
  plusx cache ls
  plusx cache ls --json
  plusx cache clear --older-than 30d
  plusx cache clear
"""


def cache(
    action: Annotated[str, typer.Argument(help="ls or clear.")] = "ls",
    older_than: Annotated[
        str | None, typer.Option(help="Clear: what was last used so long ago (12h, 30d, 2w).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """List or remove what is kept from run to run: activations and features of frozen networks,
    facts of scanned images. All of it can be made again."""
    from plusx.errors import UsageError
    from plusx.jobs.cache import clear_cache, list_cache
    from plusx.runtime import cache_folder, cache_gib

    if action not in ("ls", "clear"):
        raise UsageError(f"plusx cache {action!r} is not one of ls, clear")
    if action == "ls" and older_than is not None:
        raise UsageError("--older-than belongs to plusx cache clear")
    if action == "ls":
        kept = list_cache()
        said = {"folder": str(cache_folder()), "bound_gib": cache_gib(),
                "total_bytes": _total(kept),
                "entries": [one.to_json() for one in kept]}  # fmt: skip
        if as_json:
            print(json.dumps(said, ensure_ascii=False))
            return
        _table(kept)
        print(f"{cache_folder()}: {_size(_total(kept))} in all; activations and features are "
              f"kept below {cache_gib():g} GiB (PLUSX_CACHE_GIB)")  # fmt: skip
        return
    went, stays = clear_cache(older_than)
    if as_json:
        print(json.dumps({"folder": str(cache_folder()),
                          "removed": [one.to_json() for one in went],
                          "in_use": [one.to_json() for one in stays]}))  # fmt: skip
        return
    _table(went)
    print(f"{cache_folder()}: removed {len(went)}, {_size(_total(went))}")
    for one in stays:
        print(f"{one.name}: stays: in use, or not ours to remove")


def _total(kept: list[Kept]) -> int:
    """Bytes of all of them."""
    return sum(one.size_bytes for one in kept)


def _table(kept: list[Kept]) -> None:
    import time

    heads = ("what", "size", "images", "views", "network", "data", "last used")
    rows = [
        (one.kind, _size(one.size_bytes), _or_dash(one.images), _or_dash(one.views),
         _or_dash(one.net), _or_dash(one.data),
         time.strftime("%Y-%m-%d %H:%M", time.localtime(one.used)))
        for one in kept
    ]  # fmt: skip
    if not rows:
        return
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for cells in [heads, *rows]:
        line = [cell.rjust(width) if 0 < i < 4 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))]  # fmt: skip
        print("  ".join(line).rstrip())


def _or_dash(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _size(size_bytes: int) -> str:
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= least:
            return f"{size_bytes / least:.1f} {unit}"
    return f"{size_bytes} B"
