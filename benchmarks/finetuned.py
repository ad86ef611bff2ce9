"""The probe, the last two blocks and the whole network: what each gets right, and its time.

For each set, network and seed the images are split anew: so many to train and choose, so many to
report. On the same split run ``plusx train --unfreeze 0`` (the probe), ``plusx train`` (the probe,
then its last two blocks; ships what wins on its validation images) and ``plusx train --recipe
full``. Printed: a line a training, and a table with top-1 in the mean and its range over seeds, the
paired difference from the first way with a 95% interval (bootstrap over images, all seeds of an
image together), and the median seconds of the whole command.

    python benchmarks/finetuned.py --data hymenoptera/ chest_xray/ --seeds 5

Expected: no interval of the default's difference from the probe lies below zero.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import plusx
from plusx.data import read_listing
from plusx.jobs.talk import Talk

ROOT = Path(os.environ.get("PLUSX_TEST_DATA", ""))
WAYS: dict[str, dict[str, Any]] = {
    "probe": {"unfreeze": 0},
    "last 2": {},
    "full": {"recipe": "full"},
}


def manifest(data: str, seed: int, target: Path, *, train: int, report: int) -> None:
    """A CSV: so many images to train and choose, classes in proportion, so many of the rest to
    report."""
    listing = read_listing(data)
    random = np.random.default_rng(seed)
    names = dict(enumerate(listing.classes))
    files = {}  # of equal files, of which chest_xray has some, one
    for sample in listing.samples:
        path = Path(sample.path).resolve()
        files[hashlib.sha256(path.read_bytes()).hexdigest()] = path, names[int(str(sample.target))]
    paths = np.array(sorted((str(path), name) for path, name in files.values()))
    paths = paths[random.permutation(len(paths))]
    learnt: list[int] = []
    for name in listing.classes:
        own = np.flatnonzero(paths[:, 1] == name)
        learnt += own[: round(train * len(own) / len(paths))].tolist()
    rest = np.setdiff1d(np.arange(len(paths)), learnt)[:report].tolist()
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, rows in (("train", learnt), ("test", rest)):
            writer.writerows([*paths[row], split] for row in rows)


def trainings(data: str, net: str, asked: argparse.Namespace) -> Iterator[tuple[str, float, Any]]:
    """Way, seconds, and path -> right of each training."""
    small = "eurosat" in Path(data).name
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "images.csv")
            manifest(data, seed, file, train=asked.train, report=asked.report)
            for way in asked.ways:
                started = time.perf_counter()
                run = plusx.train(
                    file, out=Path(folder, way), model=net, seed=seed, epochs=asked.epochs,
                    weights=str(ROOT / "weights" / f"{net}_imagenet_pq.safetensors"),
                    image_size=asked.small if small else None, talk=Talk(quiet=True), **WAYS[way],
                )  # fmt: skip
                took = time.perf_counter() - started
                found = plusx.Predictions.load(run.path / "predictions" / "test.npz")
                right = (found.predicted == found.targets).astype(float)
                print(f"{Path(data).name} {net} seed {seed} {way}: {right.mean():.4f} of "
                      f"{len(right)}, {took:.0f} s, ships {run.metrics['chosen']['name']}",
                      flush=True)  # fmt: skip
                yield way, took, dict(zip(found.paths, right.tolist(), strict=True))


def difference(every: list[dict[str, float]], base: list[dict[str, float]]) -> tuple[float, ...]:
    """Mean and 95% interval in points, images drawn with all their seeds."""
    apart: dict[str, list[float]] = {}
    for mine, other in zip(every, base, strict=True):
        for path, right in mine.items():
            apart.setdefault(path, []).append(right - other[path])
    sums = np.array([sum(one) for one in apart.values()])
    counts = np.array([len(one) for one in apart.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (10_000, len(sums)), dtype=np.int32)
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return 100 * sums.sum() / counts.sum(), 100 * low, 100 * high


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    sets = [str(ROOT / "data" / name) for name in ("hymenoptera", "chest_xray", "eurosat_rgb")]
    parser.add_argument("--data", nargs="+", default=sets)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=200, help="images to train and choose")
    parser.add_argument("--report", type=int, default=600, help="images to report, at most")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--small", type=int, default=96, help="pixels of EuroSAT's tiles")
    asked = parser.parse_args()
    base = asked.ways[0]
    rows = [f"| images | network | way | top-1 (range) | less {base}, points (95%) | seconds |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for net in asked.models:
        for data in asked.data:
            seconds: dict[str, list[float]] = {}
            right: dict[str, list[dict[str, float]]] = {}
            for way, took, found in trainings(data, net, asked):
                seconds.setdefault(way, []).append(took)
                right.setdefault(way, []).append(found)
            for way, every in right.items():
                shares = [sum(one.values()) / len(one) for one in every]
                mean, low, high = difference(every, right[base])
                less = "" if way == base else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
                rows.append(
                    f"| {Path(data).name} | {net} | {way} | {np.mean(shares):.1%} "
                    f"({min(shares):.1%} to {max(shares):.1%}) | {less} | "
                    f"{statistics.median(seconds[way]):.0f} |"
                )
    print(f"\n{platform.machine()}, {os.cpu_count()} cores; {asked.seeds} seeds, {asked.train} "
          f"images to train and choose, {asked.epochs} epochs\n")  # fmt: skip
    print("\n".join(rows))


if __name__ == "__main__":
    main()
