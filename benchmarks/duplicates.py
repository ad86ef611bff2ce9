"""Near duplicates found among real images: recall and precision per kind of copy, with n.

    python benchmarks/duplicates.py [FOLDER] [--images 60] [--sets eurosat_rgb,...]

FOLDER (default: $PLUSX_TEST_DATA) holds ``data/<set>/``. Of each set, exact duplicates and pairs
that full-size pixels confirm are removed first. Then a random half of the images gets four copies
each: resized to 50-80% of its sides, recompressed (JPEG quality 40-70), cropped by 5% of each side,
mirrored (all but the second saved at JPEG quality 90). A reported pair is right where both show the
same original. Recall is the share of (copy, its original) pairs reported; precision counts all
reported pairs. The thresholds were set on imagenet_val10, penn_fudan and levir_cd_samples; the
other sets are a check. Chest X-rays look alike without being copies and are said apart.
Exit code 1 if a photograph or tile set has recall or precision below 0.95.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from plusx.data.duplicates import exact_groups, near_pairs
from plusx.data.facts import gather_facts

SETS = {
    "hymenoptera": "check",
    "eurosat_rgb": "check",
    "imagenet_1000": "check",
    "imagenet_val10": "tuned on",
    "penn_fudan/images": "tuned on",
    "chest_xray": "apart",
}
KINDS = ("resized", "recompressed", "cropped", "mirrored")
LEAST = 0.95


def plant(image: Image.Image, kind: str, target: Path, rng: random.Random) -> None:
    """Write one changed copy."""
    width, height = image.size
    quality = 90
    if kind == "resized":
        scale = rng.uniform(0.5, 0.8)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = image.resize(size, Image.Resampling.BICUBIC)
    elif kind == "recompressed":
        quality = rng.randint(40, 70)
    elif kind == "cropped":
        x, y = round(width * 0.05), round(height * 0.05)
        image = image.crop((x, y, width - x, height - y))
    elif kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(target, "JPEG", quality=quality)


def confirmed(one: str, other: str) -> bool:
    """Two files hold the same picture: their pixels at 128 x 128 correlate by 0.995 or more."""
    views = []
    for path in (one, other):
        with Image.open(path) as image:
            small = np.asarray(image.convert("L").resize((128, 128)), dtype=np.float64)
        views.append((small - small.mean()) / max(float(small.std()), 1e-6))
    return max(float((views[0] * view).mean()) for view in (views[1], views[1][:, ::-1])) >= 0.995


def without_duplicates(paths: list[str], processes: int) -> list[str]:
    """The images less the second and further of each group of true duplicates."""
    table = gather_facts(paths, processes=processes)
    gone = {i for group in exact_groups(table) for i in group[1:]}
    for one, other in near_pairs(table).pairs.tolist():
        if one not in gone and other not in gone and confirmed(paths[one], paths[other]):
            gone.add(other)
    gone |= set(np.flatnonzero(~table.readable).tolist())
    return [path for i, path in enumerate(paths) if i not in gone]


def measure(paths: list[str], folder: Path, rng: random.Random, processes: int) -> dict[str, Any]:
    """Plant, look, count."""
    source, kind = list(range(len(paths))), ["original"] * len(paths)
    everything = list(paths)
    for i in sorted(rng.sample(range(len(paths)), len(paths) // 2)):
        with Image.open(paths[i]) as image:
            image = image.convert("RGB")
        for name in KINDS:
            target = folder / f"{len(everything)}.jpg"
            plant(image, name, target, rng)
            everything.append(str(target))
            source.append(i)
            kind.append(name)
    table = gather_facts(everything, processes=processes)
    clock = time.perf_counter()
    found = near_pairs(table)
    seconds = time.perf_counter() - clock
    same = np.array(source)[found.pairs]
    right = same[:, 0] == same[:, 1]
    reported = {(a, b) for a, b in found.pairs.tolist()}
    recall = {}
    for name in KINDS:
        copies = [i for i, item in enumerate(kind) if item == name]
        recall[name] = float(np.mean([(source[i], i) in reported for i in copies]))
    wrong = [tuple(everything[i] for i in pair) for pair in found.pairs[~right].tolist()]
    return {"recall": recall, "precision": float(right.mean()) if len(right) else 1.0,
            "pairs": len(right), "copies": len(copies), "n": len(everything), "wrong": wrong,
            "seconds": seconds}  # fmt: skip


def main() -> int:
    """Print the table; 1 where a figure is too low."""
    parser = argparse.ArgumentParser(description="near duplicates: recall and precision")
    parser.add_argument("folder", nargs="?", default=os.environ.get("PLUSX_TEST_DATA"), type=Path)
    parser.add_argument("--images", type=int, default=10**9, help="at most so many of each set")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="name the wrong pairs")
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name the folder with data/, or set PLUSX_TEST_DATA")
    processes = os.cpu_count() or 1
    print(f"{platform.machine()}, {processes} cores, seed {arguments.seed}")
    print(f"{'set':18} {'role':9} {'images':>6} {'removed':>7} {'copies':>7} "
          + " ".join(f"{name:>12}" for name in KINDS)
          + f" {'recall':>7} {'precision':>9} {'pairs':>6} {'seconds':>7}")  # fmt: skip
    low = False
    for name in arguments.sets.split(","):
        rng = random.Random(arguments.seed)
        place = arguments.folder / "data" / name
        paths = sorted(str(path) for path in place.rglob("*") if path.is_file()
                       and path.suffix.lower() in (".jpg", ".jpeg", ".png"))  # fmt: skip
        paths = sorted(rng.sample(paths, min(arguments.images, len(paths))))
        kept = without_duplicates(paths, processes)
        with tempfile.TemporaryDirectory() as folder:
            found = measure(kept, Path(folder), rng, processes)
        recall = found["recall"]
        mean = sum(recall.values()) / len(recall)
        print(f"{name:18} {SETS.get(name, ''):9} {len(kept):6} {len(paths) - len(kept):7} "
              f"4x{found['copies']:5} " + " ".join(f"{recall[kind]:12.4f}" for kind in KINDS)
              + f" {mean:7.4f} {found['precision']:9.4f} {found['pairs']:6}"
              f" {found['seconds']:7.2f}", flush=True)  # fmt: skip
        for pair in found["wrong"] if arguments.show else ():
            print("   wrong:", *pair)
        if SETS.get(name) != "apart":
            low |= mean < LEAST or found["precision"] < LEAST
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
