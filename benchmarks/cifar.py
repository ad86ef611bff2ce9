"""The CIFAR recipe beside the public implementation of it: same images, same epochs, same net.

The peer is akamaster/pytorch_resnet_cifar10's trainer as it stands: ResNet-20 (option A), float32,
SGD with momentum 0.9 and weight decay 1e-4, 128 images a step, a rate of 0.1 that falls to a tenth
after half and after three quarters of the epochs, 4 pixels of padding, crop and flip, He's
initialisation, two loader workers. Ours is ``plusx train --recipe cifar``. Both learn from the same
images, the rest of the training images choose plusx's epoch (the peer has no choice: its last one
counts), and the test images judge both. One training after the other, each a process of its own.

    python benchmarks/cifar.py --data cifar/ --epochs 20 --seeds 0 1

``cifar/`` holds ``train/<class>/`` and ``test/<class>/``. Printed: test error of each, seconds, and
the paired difference over seeds and images with its 95% interval (bootstrap over images).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BATCH = 128


def manifest(data: Path, file: Path, *, val: float) -> None:
    """Every image with its class and split; the same share of each class chooses."""
    with file.open("w", newline="", encoding="utf-8") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "label", "split"])
        for split in ("train", "test"):
            for folder in sorted((data / split).iterdir()):
                paths = sorted(str(path.resolve()) for path in folder.iterdir())
                random.Random(0).shuffle(paths)
                held = round(val * len(paths)) if split == "train" else 0
                for number, path in enumerate(paths):
                    rows.writerow([path, folder.name, "val" if number < held else split])


def peer(file: str, epochs: int, seed: int) -> None:
    """Train, and print which test images are right, by path."""
    import torch
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from plusx.model import ResNet, variant

    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    plain = [transforms.ToTensor(), normalise]
    varied = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, 4), *plain]

    class Listed(Dataset[tuple[torch.Tensor, int]]):
        def __init__(self, split: str, steps: list[object]) -> None:
            with open(file, newline="", encoding="utf-8") as given:
                rows = list(csv.DictReader(given))
            names = sorted({row["label"] for row in rows})
            self.items = [(row["path"], names.index(row["label"])) for row in rows
                          if row["split"] == split]  # fmt: skip
            self.steps = transforms.Compose(steps)

        def __len__(self) -> int:
            return len(self.items)

        def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
            path, target = self.items[place]
            with Image.open(path) as image:
                return self.steps(image.convert("RGB")), target

    torch.manual_seed(seed)
    net = ResNet(variant("resnet20_cifar_a"))
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    train = Listed("train", varied)
    loader = DataLoader(train, BATCH, shuffle=True, num_workers=2)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    falls = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs // 2, epochs * 3 // 4])
    began = time.perf_counter()
    for _ in range(epochs):
        net.train()
        for images, targets in loader:
            loss = criterion(net(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        falls.step()
    took = time.perf_counter() - began
    test = Listed("test", plain)
    net.eval()
    right: list[bool] = []
    with torch.no_grad():
        for images, targets in DataLoader(test, BATCH, num_workers=2):
            right += (net(images).argmax(1) == targets).tolist()
    paths = [path for path, _ in test.items]
    print(json.dumps({"seconds": took, "right": dict(zip(paths, right, strict=True))}))


def run_peer(file: Path, epochs: int, seed: int) -> tuple[float, dict[str, bool]]:
    """Seconds of its epochs, and right answers by path."""
    command = [sys.executable, __file__, "--peer", "--data", str(file), "--epochs", str(epochs)]
    done = subprocess.run([*command, "--seeds", str(seed)], check=True, capture_output=True,
                          text=True)  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    return found["seconds"], found["right"]


def run_plusx(file: Path, epochs: int, seed: int) -> tuple[float, dict[str, bool]]:
    """The same; the seconds hold validation after every epoch, too."""
    from plusx import Predictions

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        command = [sys.executable, "-m", "plusx", "train", str(file), "--out", str(out), "--json"]
        asked = ["--recipe", "cifar", "--epochs", str(epochs), "--seed", str(seed)]
        subprocess.run([*command, *asked], check=True, capture_output=True, text=True)
        found = Predictions.load(out / "predictions" / "test.npz")
        right = (found.predicted == found.targets).tolist()
        with (out / "history.csv").open(newline="") as history:
            took = sum(float(row["seconds"]) for row in csv.DictReader(history))
    return took, dict(zip(found.paths, right, strict=True))


def main() -> None:
    """Train all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--val", type=float, default=0.1, help="share that chooses")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        peer(asked.data, asked.epochs, asked.seeds[0])
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores; ResNet-20, {asked.epochs} epochs")
    gains = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.csv")
        manifest(Path(asked.data), file, val=asked.val)
        for seed in asked.seeds:
            runs = {"plusx": run_plusx(file, asked.epochs, seed),
                    "public": run_peer(file, asked.epochs, seed)}  # fmt: skip
            for name, (took, right) in runs.items():
                wrong = 1 - sum(right.values()) / len(right)
                print(f"seed {seed}, {name:<6} test error {wrong:.2%} of {len(right)}, "
                      f"{took / 60:.1f} min", flush=True)  # fmt: skip
            ours, theirs = runs["plusx"][1], runs["public"][1]
            gains.append([int(ours[path]) - int(theirs[path]) for path in sorted(theirs)])
    mean = np.mean(gains, axis=0)
    draws = np.random.default_rng(0).integers(0, len(mean), (2_000, len(mean)))
    low, high = np.quantile(mean[draws].mean(axis=1), [0.025, 0.975])
    print(f"plusx less public: {100 * mean.mean():+.2f} points of top-1 (95% {100 * low:+.2f} to "
          f"{100 * high:+.2f}, {len(gains)} seeds, {len(mean)} images)")  # fmt: skip


if __name__ == "__main__":
    main()
