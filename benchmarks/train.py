"""Training from scratch: plusx's loop beside the plain float32 loop of public CIFAR repositories.

The peer is the loop as they write it (kuangliu/pytorch-cifar, akamaster/pytorch_resnet_cifar10):
float32, contiguous tensors, ``zero_grad``, forward, cross-entropy, backward, SGD with momentum, the
loss and the number of right answers read after every step. Both train the same network on images of
32 pixels, 128 a step, with as many threads as there are cores.

**Steps.** The same batches from memory, in turn in one process, the order alternating: ResNet-20 of
He et al. (section 4.2) and the ResNet-18 of 64 to 512 channels with a 3x3 stem. Printed: images a
second (median, least and most over turns) and the ratio.

**End to end.** A folder of JPEG files, decoded, padded, cropped, flipped and normalised anew each
epoch: ``plusx train --recipe cifar`` and ``ImageFolder`` + ``DataLoader`` (one worker a core), each
a process of its own, in turn. Printed: training images a second in each epoch but the first, and
how many times the peer's.

    python benchmarks/train.py --data cifar/

``cifar/`` holds ``train/<class>/``. Expected with native bfloat16: at least 1.5 times (ResNet-20)
and 1.8 times (ResNet-18) the steps, 1.5 times end to end. ``--smoke`` is as little as runs at all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from plusx.fit.distributed import Processes
from plusx.fit.loop import Hardware, backward, update
from plusx.fit.optimizers import make_optimizer
from plusx.fit.recipe import Recipe
from plusx.model import ResNet, variant
from plusx.model.surgery import training_mode
from plusx.runtime import fast_dtype

BATCH = 128
WANTED = {"resnet20": 1.5, "resnet18": 1.8, "end to end": 1.5}
RECIPE = Recipe(
    epochs=1, batch_size=BATCH, optimizer="sgd", lr=0.05, weight_decay=1e-4, warmup=0.0,
    label_smoothing=0.0, patience=0, norm="train", clip=0.0, seed=0, nesterov=False,
    decay_norms=True,
)  # fmt: skip

Step = Callable[[Tensor, Tensor], None]


def network(name: str) -> nn.Module:
    """For 10 classes of 32 pixels, the same weights every time."""
    torch.manual_seed(0)
    if name == "resnet20":
        return ResNet(variant("resnet20_cifar_a"))
    small = {"stem": "3x3", "stem_stride": 1, "stem_pool": "none", "image_size": 32, "classes": 10}
    return ResNet(variant("resnet18").replace(name="resnet18_small", **small))


def peer_step(net: nn.Module) -> Step:
    """As public repositories write it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    net.train()

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        _ = loss.item(), outputs.max(1)[1].eq(targets).sum().item()

    return step


def plusx_step(net: nn.Module) -> Step:
    """What ``plusx.fit.loop.train_network`` does in a step."""
    hardware = Hardware(torch.device("cpu"), fast_dtype(torch.device("cpu")))
    net.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(net, RECIPE)
    training_mode(net, norm_statistics=True)
    criterion = nn.CrossEntropyLoss()

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = backward(net, ((inputs,), targets), criterion=criterion, whole=len(targets),
                        parts=1, hardware=hardware)  # fmt: skip
        norm = update(optimizer, 0.05, 0.0, Processes())
        _ = float(loss), float(norm)

    return step


def steps(name: str, *, turns: int, count: int) -> float:
    """Both in turn from memory; prints, and gives the ratio."""
    loops = {"plain float32": peer_step(network(name)), "plusx": plusx_step(network(name))}
    random_images = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 3, 32, 32, generator=random_images)
    targets = torch.randint(10, (BATCH,), generator=random_images)
    took: dict[str, list[float]] = {loop: [] for loop in loops}
    for turn in range(turns + 1):  # the first warms up
        for loop in sorted(loops, reverse=turn % 2 == 0):
            began = time.perf_counter()
            for _ in range(count if turn else 1):
                loops[loop](images, targets)
            if turn:
                took[loop].append(count * BATCH / (time.perf_counter() - began))
    pairs = zip(took["plusx"], took["plain float32"], strict=True)
    ratios = [ours / theirs for ours, theirs in pairs]
    for loop, rates in took.items():
        print(
            f"{name}, {loop:<13} {statistics.median(rates):7.1f} images/s ({min(rates):.1f} "
            f"to {max(rates):.1f}, {turns} turns of {count} steps)"
        )
    middle = statistics.median(ratios)
    print(f"{name}: {middle:.2f} times ({min(ratios):.2f} to {max(ratios):.2f}); "
          f"wanted {WANTED[name]}", flush=True)  # fmt: skip
    return middle


def peer(data: str, epochs: int) -> None:
    """ResNet-20 over a folder as public repositories write it; prints seconds of each epoch."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    prepared = transforms.Compose([
        transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    ])  # fmt: skip
    found = datasets.ImageFolder(str(Path(data, "train")), prepared)
    workers = os.cpu_count() or 1
    loader = DataLoader(found, BATCH, shuffle=True, num_workers=workers, drop_last=True)
    step, seconds = peer_step(network("resnet20")), []
    for _ in range(epochs):
        began = time.perf_counter()
        for inputs, targets in loader:
            step(inputs, targets)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"rates": [len(loader) * BATCH / s for s in seconds]}))


def rates_of_peer(data: Path, epochs: int) -> list[float]:
    """Images a second in each epoch but the first."""
    command = [sys.executable, __file__, "--peer", "--data", str(data), "--epochs", str(epochs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rates: list[float] = json.loads(done.stdout.splitlines()[-1])["rates"]
    return rates[1:]


def rates_of_plusx(data: Path, epochs: int) -> list[float]:
    """The same, of ``plusx train``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "plusx", "train", str(data), "--recipe", "cifar",
                   "--epochs", str(epochs), "--out", f"{folder}/run", "--json"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        with Path(folder, "run", "history.csv").open(newline="") as file:
            rows = [row["images_per_s"] for row in csv.DictReader(file)]
    return [float(rate) for rate in rows[2:]]  # the first row is the state before training


def subset(data: Path, folder: Path, images: int) -> None:
    """Links to so many images to train on and a few that choose."""
    every = sorted(path for path in (data / "train").rglob("*") if path.is_file())
    random.Random(0).shuffle(every)
    for number, path in enumerate(every[: images + BATCH]):
        split = "train" if number < images else "val"
        place = folder / split / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())


def end_to_end(data: Path, *, images: int, epochs: int, turns: int) -> float:
    """Both in turn from files; prints, and gives the ratio."""
    took: dict[str, list[float]] = {"ImageFolder": [], "plusx train": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photos")
        subset(data, folder, images)
        for _ in range(turns):
            took["plusx train"] += rates_of_plusx(folder, epochs)
            took["ImageFolder"] += rates_of_peer(folder, epochs)
    for name, rates in took.items():
        print(f"end to end, {name:<11} {statistics.median(rates):7.1f} images/s ({min(rates):.1f} "
              f"to {max(rates):.1f}, {len(rates)} epochs of {images} images)")  # fmt: skip
    ratio = statistics.median(took["plusx train"]) / statistics.median(took["ImageFolder"])
    print(f"end to end: {ratio:.2f} times; wanted {WANTED['end to end']}")
    return ratio


def main() -> int:
    """Time both; 1 where a ratio is below what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a folder with train/<class>/")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of each turn end to end")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        peer(asked.data, asked.epochs)
        return 0
    turns, epochs, images = asked.turns, asked.epochs, 6400
    if asked.smoke:
        turns, epochs, images = 1, 2, 2 * BATCH
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    found = {
        name: steps(name, turns=turns, count=1 if asked.smoke else count)
        for name, count in (("resnet20", 20), ("resnet18", 2))
    }
    found["end to end"] = end_to_end(
        Path(asked.data), images=images, epochs=epochs, turns=min(turns, 2)
    )
    return int(any(found[name] < WANTED[name] for name in WANTED))


if __name__ == "__main__":
    raise SystemExit(main())
