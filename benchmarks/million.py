"""Duplicates among a million images: seconds and memory, on planted thumbnails without files.

    python benchmarks/million.py [--rows 1000000]

A table of so many synthetic rows is made, its thumbnails in a temporary file, a thousandth of them
copies of others (noise added, every other one mirrored) and as many exact duplicates. Printed: bytes
a row, seconds for exact and for near duplicates, the share of the planted pairs that was found, wrong
pairs, peak resident memory (mapped file pages included). Exit code 1 if a row takes more than 200
bytes or less than 0.95 of the near duplicates are found.
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from plusx.data.duplicates import exact_groups, near_pairs
from plusx.data.facts import ROW, THUMB, FactTable


def planted(rows: int, copies: int, folder: Path) -> FactTable:
    """A table whose last ``copies`` rows copy the first, and the ``copies`` before those exactly
    the next."""
    rng = np.random.default_rng(0)
    thumbs = np.memmap(folder / "thumbs", np.uint8, "w+", shape=(rows, THUMB, THUMB))
    for start in range(0, rows, 20_000):
        stop = min(start + 20_000, rows)
        coarse = rng.normal(size=(stop - start, THUMB // 2, THUMB // 2)).astype(np.float32)
        thumbs[start:stop] = (coarse.repeat(2, 1).repeat(2, 2) * 30 + 128).clip(0, 255)
    noise = rng.integers(-3, 4, (copies, THUMB, THUMB))
    thumbs[rows - copies :] = (thumbs[:copies].astype(int) + noise).clip(0, 255)
    thumbs[rows - copies :: 2] = thumbs[rows - copies :: 2, :, ::-1].copy()
    table = np.zeros(rows, dtype=ROW)
    table["readable"], table["thumb_gain"] = True, 1
    number = np.arange(rows)
    number[rows - 2 * copies : rows - copies] = number[copies : 2 * copies]
    hashes = np.stack([number, number], 1).astype("<u8").view("V16").ravel()
    table["file_hash"] = table["content_hash"] = hashes
    return FactTable([f"/images/{i:07}.jpg" for i in range(rows)], table, thumbs, {})


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _took(clock: list[tuple[float, float]]) -> str:
    wall, cpu = (end - start for start, end in zip(*clock, strict=True))
    return f"{wall:.1f} s ({cpu:.1f} s of CPU)"


def main() -> int:
    """Print the figures; 1 where one is not met."""
    parser = argparse.ArgumentParser(description="duplicates among a million synthetic rows")
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    copies = max(rows // 1000, 2)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        table = planted(rows, copies, Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        clock = [_now()]
        exact = exact_groups(table)
        clock.append(_now())
        pairs = near_pairs(table).pairs
        clock.append(_now())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wanted = {(i, rows - copies + i) for i in range(copies)}
    found = {(a, b) for a, b in pairs.tolist()}
    share = len(wanted & found) / copies
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, {rows:,} rows")
    print(f"bytes a row besides path and thumbnail: {ROW.itemsize}")
    print(f"exact duplicates: {_took(clock[:2])}, {len(exact)} of {copies} groups")
    print(f"near duplicates: {_took(clock[1:])}, {share:.4f} of {copies} pairs found, "
          f"{len(found - wanted)} others")  # fmt: skip
    print(f"peak memory {peak:.0f} MiB ({before:.0f} MiB with the table made)")
    return int(ROW.itemsize > 200 or share < 0.95 or len(exact) != copies)


if __name__ == "__main__":
    sys.exit(main())
