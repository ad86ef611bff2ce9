"""Is the default command below its own probe on images that took no part in any choice?

For each seed the photographs are split anew: 30% to report, the rest to train and choose. On the
same split run ``plusx train --unfreeze 0`` (the probe) and ``plusx train`` (which fine-tunes two
blocks and ships what wins on its validation images). Printed: both top-1 figures per seed, and the
paired difference over the pooled images with a 95% bootstrap interval over images.

    python benchmarks/finetuned.py --data hymenoptera/ --weights resnet50.safetensors

Expected: the interval of the difference reaches zero or lies above it.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path

import numpy as np

import plusx
from plusx.data import read_listing
from plusx.jobs.talk import Talk

ROOT = os.environ.get("PLUSX_TEST_DATA", "")
REPORT = 0.3


def manifest(data: str, seed: int, target: Path) -> None:
    """A CSV of all photographs, ``REPORT`` of each class as test, the rest as train."""
    listing = read_listing(data)
    random = np.random.default_rng(seed)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for number, name in enumerate(listing.classes):
            paths = sorted(
                {str(Path(s.path).resolve()) for s in listing.samples if s.target == number}
            )
            order = random.permutation(len(paths))
            held = round(REPORT * len(paths))
            for place, index in enumerate(order):
                writer.writerow([paths[index], name, "test" if place < held else "train"])


def main() -> None:
    """Run all seeds and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(Path(ROOT, "data", "hymenoptera")))
    parser.add_argument("--model", default="resnet50")
    default = Path(ROOT, "weights", "resnet50_imagenet_pq.safetensors")
    parser.add_argument("--weights", default=str(default))
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    differences: list[np.ndarray] = []
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "photographs.csv")
            manifest(asked.data, seed, file)
            right, took, ships = {}, {}, ""
            for name, options in (("probe", {"unfreeze": 0}), ("default", {})):
                started = time.perf_counter()
                run = plusx.train(
                    file,
                    out=Path(folder, name),
                    model=asked.model,
                    weights=asked.weights,
                    seed=seed,
                    talk=Talk(quiet=True),
                    **options,
                )
                took[name] = time.perf_counter() - started
                found = plusx.Predictions.load(run.path / "predictions" / "test.npz")
                right[name] = (found.predicted == found.targets).astype(float)
                ships = run.metrics["chosen"]["name"]
        differences.append(right["default"] - right["probe"])
        print(
            f"seed {seed}: n {len(right['probe'])}  probe {right['probe'].mean():.4f} "
            f"({took['probe']:.0f} s)  default {right['default'].mean():.4f} "
            f"({took['default']:.0f} s), ships {ships}",
            flush=True,
        )
    pooled = np.concatenate(differences)
    random = np.random.default_rng(0)
    draws = [random.choice(pooled, len(pooled)).mean() for _ in range(10_000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    print(
        f"default minus probe: {100 * pooled.mean():+.2f} points (95% interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}), n {len(pooled)}, spread over seeds "
        f"{100 * np.std([d.mean() for d in differences], ddof=1):.2f}"
    )


if __name__ == "__main__":
    main()
