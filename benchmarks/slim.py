"""A ResNet-50 without some of its blocks: how much faster, and what is lost, over several seeds.

For each data set and seed the images are split anew (half to train, a fifth to choose, the rest to
report), a ResNet-50 from ImageNet is fine-tuned with ``plusx train``, and ``plusx slim`` takes out
``--blocks`` of the 12 blocks that can go. Nothing is refused here (``max_drop`` is 100), so that
every seed counts. Printed a seed: the ratio of times at 1 and 16 images with its interval, top-1 of
parent and child on the images that report, and there, before tuning, top-1 of the ranked choice and
of random choices of as many blocks: just removed, and with what stays fitted to it. At the end: the
change of top-1 over all seeds with a 95% interval, and in how many seeds the ranking beats the mean
of the random choices.

    python benchmarks/slim.py --data hymenoptera/ eurosat_rgb/ --weights resnet50.safetensors

Expected: at least 1.25 times as fast at no more than 0.5 points lost on both sets; the ranking
ahead of the random choices in every seed.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import plusx
from plusx.data import read_listing
from plusx.jobs.talk import Talk

ROOT = os.environ.get("PLUSX_TEST_DATA", "")
SHARES = {"train": 0.5, "val": 0.2}


def manifest(data: str, seed: int, most: int, target: Path) -> None:
    """A CSV of at most ``most`` images, split anew within each class."""
    listing = read_listing(data)
    random = np.random.default_rng(seed)
    a_class = most // len(listing.classes)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for number, name in enumerate(listing.classes):
            paths = sorted(str(Path(s.path).resolve()) for s in listing.samples
                           if s.target == number)  # fmt: skip
            chosen = random.permutation(paths)[:a_class].tolist()
            train = round(SHARES["train"] * len(chosen))
            val = train + round(SHARES["val"] * len(chosen))
            for place, path in enumerate(chosen):
                split = "train" if place < train else "val" if place < val else "test"
                writer.writerow([path, name, split])


def one_seed(data: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune, slim, and give what ``slim`` found, with the gains of the images that report."""
    quiet = Talk(quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.csv")
        manifest(data, seed, asked.images, file)
        began = time.perf_counter()
        small = "eurosat" in Path(data).name
        parent = plusx.train(
            file, out=Path(folder, "parent"), model="resnet50", weights=asked.weights, seed=seed,
            epochs=asked.train_epochs, views=2, neighbours=False, thumbnails=False, talk=quiet,
            image_size=asked.small if small else None,
        )  # fmt: skip
        trained = time.perf_counter()
        made = plusx.slim(
            parent.path, out=Path(folder, "child"), blocks=asked.blocks, max_drop=100, seed=seed,
            epochs=asked.epochs, compare_random=asked.random, talk=quiet,
        )  # fmt: skip
        ended = time.perf_counter()
        found = dict(made.found)
        found["seconds"] = (trained - began, ended - trained)
        if made.run is not None:
            paths = (parent.path / "predictions" / "test.npz",
                     made.run.path / "predictions" / "test.npz")  # fmt: skip
            before, after = (plusx.Predictions.load(path) for path in paths)
            right = [one.predicted == one.targets for one in (before, after)]
            found["gains"] = right[1].astype(float) - right[0]
        return found


def tell(data: str, seed: int, found: dict[str, Any]) -> None:
    """One line."""
    times = "  ".join(f"x{s['ratio']:.3f} ({s['low']:.3f} to {s['high']:.3f}) at {s['batch']}"
                      for s in found["speed"])  # fmt: skip
    report, random = found["report"], found["random"]
    beside = []
    for what, key in (("removed", "top1_bare"), ("fitted", "top1")):
        chance = [one[key] for one in random["random"]]
        beside.append(f"{what}: ranked {random['ranked'][key]:.4f}, random {np.mean(chance):.4f} "
                      f"(sd {np.std(chance, ddof=1):.4f}, {len(chance)})")  # fmt: skip
    top1 = "nothing shipped" if report is None else (
        f"top-1 {report['top1_parent']:.4f} -> {report['top1_child']:.4f}")  # fmt: skip
    print(
        f"{Path(data).name} seed {seed}: without {found['removed']}  {times}  {top1}  n "
        f"{found['settings']['reporting_images']}  before tuning, {'; '.join(beside)}  train "
        f"{found['seconds'][0]:.0f} s, slim {found['seconds'][1]:.0f} s",
        flush=True,
    )


def summary(data: str, every: list[dict[str, Any]]) -> None:
    """Over all seeds."""
    for place, batch in enumerate((1, 16)):
        ratios = [found["speed"][place]["ratio"] for found in every]
        print(f"{Path(data).name}: x{np.mean(ratios):.3f} at {batch} (lowest {min(ratios):.3f}, "
              f"highest {max(ratios):.3f}, {len(ratios)} seeds)")  # fmt: skip
    gains = [found["gains"] for found in every if "gains" in found]
    pooled = np.concatenate(gains)
    random = np.random.default_rng(0)
    draws = [
        np.concatenate([random.choice(gains[s], len(gains[s]))
                        for s in random.integers(len(gains), size=len(gains))]).mean()
        for _ in range(4_000)
    ]  # fmt: skip
    low, high = np.quantile(draws, [0.025, 0.975])
    ahead = [
        sum(found["random"]["ranked"][key] > np.mean([r[key] for r in found["random"]["random"]])
            for found in every)
        for key in ("top1_bare", "top1")
    ]  # fmt: skip
    print(
        f"{Path(data).name}: child minus parent {100 * pooled.mean():+.2f} points (95% interval "
        f"{100 * low:+.2f} to {100 * high:+.2f} over seeds and images), n {len(pooled)}, spread "
        f"over seeds {100 * np.std([g.mean() for g in gains], ddof=1) if len(gains) > 1 else 0:.2f}"
        f"; ranking ahead of the mean random choice in {ahead[0]} of {len(every)} seeds just "
        f"removed, in {ahead[1]} fitted"
    )


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    sets = [str(Path(ROOT, "data", name)) for name in ("hymenoptera", "eurosat_rgb")]
    parser.add_argument("--data", nargs="+", default=sets)
    default = Path(ROOT, "weights", "resnet50_imagenet_pq.safetensors")
    parser.add_argument("--weights", default=str(default))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--images", type=int, default=1_000, help="of a set, at most")
    parser.add_argument("--train-epochs", type=int, default=4)
    parser.add_argument("--epochs", type=int, help="of the tuning [default: as plusx slim]")
    parser.add_argument("--small", type=int, default=128, help="pixels of EuroSAT's tiles")
    parser.add_argument("--random", type=int, default=4, help="random choices a seed")
    asked = parser.parse_args()
    for data in asked.data:
        every = []
        for seed in range(asked.seeds):
            every.append(one_seed(data, seed, asked))
            tell(data, seed, every[-1])
        summary(data, every)


if __name__ == "__main__":
    main()
