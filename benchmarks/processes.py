"""One process with all cores beside one process a core: training images a second.

ResNet-20 from scratch (``--recipe cifar``) and the last two blocks of ResNet-18 from kept
activations (``--weights``, if given), the same images and seed, in turn. Each is a process group of
its own, started as a user does: ``plusx train`` and ``torchrun --nproc-per-node=N -m plusx train``.
Printed: images a second in each epoch but the first, as history.csv has them, and the ratio.

    python benchmarks/processes.py --data cifar/ [--weights resnet18.safetensors --photos photos/]

Expected: at least 0.9 of one process's images a second.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from train import subset  # type: ignore[import-not-found]


def rates(data: Path, count: int, options: list[str], cache: str) -> list[float]:
    """Images a second in each epoch but the first."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *(launcher if count > 1 else []), "plusx", "train",
                   str(data), "--out", f"{folder}/run", "--patience", "0", *options]  # fmt: skip
        own = os.environ | {"OMP_NUM_THREADS": str(cores // count), "PLUSX_CACHE": cache}
        subprocess.run(command, check=True, capture_output=True, env=own)
        with Path(folder, "run", "history.csv").open(newline="") as file:
            rows = [row["images_per_s"] for row in csv.DictReader(file)]
    return [float(rate) for rate in rows[2:]]  # the first row is the state before training


def compare(name: str, data: Path, options: list[str], *, count: int, turns: int) -> None:
    """Both in turn; prints."""
    took: dict[int, list[float]] = {1: [], count: []}
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(turns):
            for processes, found in took.items():
                found += rates(data, processes, options, cache)
    for processes, found in took.items():
        print(f"{name}, processes: {processes}: {statistics.median(found):.1f} images/s "
              f"({min(found):.1f} to {max(found):.1f}, {len(found)} epochs)")  # fmt: skip
    ratio = statistics.median(took[count]) / statistics.median(took[1])
    print(f"{name}: {ratio:.2f} of one process; wanted 0.9", flush=True)


def main() -> None:
    """Both jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder with train/<class>/")
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--weights", help="of ResNet-18: times the last blocks too")
    parser.add_argument("--photos", help="a folder of images for that")
    asked = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores")
    epochs = ["--epochs", str(asked.epochs)]
    both = {"count": asked.processes, "turns": asked.turns}
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "photos")
        subset(Path(asked.data), few, asked.images)
        compare("from scratch", few, ["--recipe", "cifar", *epochs], **both)
    if asked.weights:
        last = ["--model", "resnet18", "--weights", asked.weights, "--unfreeze", "2"]
        compare("last two blocks", Path(asked.photos), [*last, *epochs], **both)


if __name__ == "__main__":
    main()
