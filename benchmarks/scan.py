"""Images a second that are scanned, against cleanvision, on the same folder, in one run.

    python benchmarks/scan.py [FOLDER] [--repeats 5] [--images 1000]

FOLDER: images at any depth (default: data/hymenoptera below $PLUSX_TEST_DATA). Both do the same
checks, without a model and on all cores: exact duplicates, near duplicates, dark, light, blurry,
low information, odd aspect ratio, odd size, greyscale. plusx also finds what cannot be read, near
duplicates that are cropped or mirrored, and reads EXIF, border and hashes; it starts its worker
processes anew and keeps no cache. The two take turns. Needs ``pip install cleanvision`` (a peer,
not a dependency). Printed: images/s of each (median, least, most), the ratio of the medians, what
each found. Exit code 1 if the ratio is below 3.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import PIL

from plusx.data.duplicates import exact_groups, near_groups
from plusx.data.facts import FactTable, gather_facts

EXPECTED = 3.0
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tiff", ".webp")


def odd(table: FactTable) -> dict[str, int]:
    """How many images each of the checks on single images finds; the bounds are cleanvision's
    where the quantities agree."""
    rows = table.rows[table.readable]
    side = np.sqrt(rows["width"].astype(float) * rows["height"])
    low, high = np.percentile(side, (25, 75)) if len(side) else (0.0, 0.0)
    aspect = rows["width"] / np.maximum(rows["height"], 1)
    found = {
        "dark": rows["dark_level"] < 0.32 * 255,
        "light": rows["light_level"] > 0.95 * 255,
        "blurry": rows["sharpness"] < 4,
        "low_information": rows["entropy"] < 3,
        "odd_aspect_ratio": np.minimum(aspect, 1 / np.maximum(aspect, 1e-9)) < 0.35,
        "odd_size": (side < low - 3 * (high - low)) | (side > high + 3 * (high - low)),
        "grayscale": rows["grey"],
    }
    return {name: int(flags.sum()) for name, flags in found.items()}


def ours(folder: Path, processes: int) -> dict[str, int]:
    """plusx: facts, duplicates, checks."""
    paths = sorted(str(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    table = gather_facts(paths, processes=processes)
    exact = sum(len(group) for group in exact_groups(table))
    near = sum(len(group.members) for group in near_groups(table))
    return {"exact_duplicates": exact, "near_duplicates": near, **odd(table)}


def theirs(folder: Path, processes: int) -> dict[str, int]:
    """cleanvision with all its default checks."""
    from cleanvision import Imagelab

    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        lab = Imagelab(data_path=str(folder))
        lab.find_issues(n_jobs=processes, verbose=False)
    summary = lab.issue_summary.set_index("issue_type")["num_images"]
    return {str(name): int(count) for name, count in summary.items()}


def chosen(folder: Path, most: int, place: Path) -> Path:
    """The folder itself, or one with links to its first images."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(paths) <= most:
        return folder
    for number, path in enumerate(paths[:most]):
        shutil.copyfile(path, place / f"{number:07}{path.suffix}")
    return place


def main() -> int:
    """Print the table; 1 where the ratio is too low."""
    parser = argparse.ArgumentParser(description="images scanned a second, against cleanvision")
    shared = os.environ.get("PLUSX_TEST_DATA")
    default = Path(shared, "data", "hymenoptera") if shared else None
    parser.add_argument("folder", nargs="?", default=default, type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=10**9, help="at most so many")
    arguments = parser.parse_args()
    if arguments.folder is None or not arguments.folder.is_dir():
        parser.error("name a folder of images, or set PLUSX_TEST_DATA")
    import cleanvision

    processes = len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {"plusx": [], "cleanvision": []}
    found: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = chosen(arguments.folder, arguments.images, Path(place))
        n = sum(p.suffix.lower() in SUFFIXES for p in folder.rglob("*"))
        for turn in range(arguments.repeats + 1):
            for name, scan in (("plusx", ours), ("cleanvision", theirs)):
                started = time.perf_counter()
                found[name] = scan(folder, processes)
                if turn:  # the first turn warms the files
                    seconds[name].append(time.perf_counter() - started)
    version = getattr(cleanvision, "__version__", "of unknown version")
    print(f"{platform.machine()}, {processes} cores, Pillow {PIL.__version__}, "
          f"cleanvision {version}; {arguments.folder.name}, n = {n} images, "
          f"{arguments.repeats} turns each")  # fmt: skip
    print(f"{'':12} {'images/s':>9} {'least':>8} {'most':>8} {'seconds':>8}")
    for name, took in seconds.items():
        middle = statistics.median(took)
        print(f"{name:12} {n / middle:9.0f} {n / max(took):8.0f} {n / min(took):8.0f}"
              f" {middle:8.2f}")  # fmt: skip
    ratio = statistics.median(seconds["cleanvision"]) / statistics.median(seconds["plusx"])
    print(f"ratio {ratio:.2f} (expected at least {EXPECTED:g})")
    for check in sorted(set(found["plusx"]) | set(found["cleanvision"])):
        print(f"  {check:18} plusx {found['plusx'].get(check, '-'):>5}"
              f"   cleanvision {found['cleanvision'].get(check, '-'):>5}")  # fmt: skip
    return int(ratio < EXPECTED)


if __name__ == "__main__":
    sys.exit(main())
