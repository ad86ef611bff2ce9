"""Transfer learning on few photographs: plusx beside PyTorch's tutorial recipe, in one run.

The peer is the "ConvNet as fixed feature extractor" part of PyTorch's transfer-learning tutorial
(https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html): frozen ResNet-18,
batch 4, 25 epochs, SGD, a full forward of every image each epoch. Same weights, same images. Each
contestant is a process of its own, timed from its start until its result is on disk (artifact and
metrics; the end of the process, after the report, is printed too), the three in turn,
``--repeats`` times.

    python benchmarks/transfer.py --data hymenoptera/ --weights resnet18.safetensors

Expected on two cores: the probe at least 30 times and the default command at least 6 times less
wall time than the recipe, top-1 on the validation images no more than one image below its final
figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = os.environ.get("PLUSX_TEST_DATA", "")


def tutorial(data: str, weights: str, epochs: int) -> None:
    """The recipe as its users write it; prints its validation top-1 as JSON."""
    import torch
    from safetensors.torch import load_file
    from torch import nn, optim
    from torch.optim import lr_scheduler
    from torchvision import datasets, models, transforms

    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "val": [transforms.Resize(256), transforms.CenterCrop(224)],
    }
    sets = {
        phase: datasets.ImageFolder(
            str(Path(data, phase)),
            transforms.Compose([*steps[phase], transforms.ToTensor(), normalise]),
        )
        for phase in steps
    }
    loaders = {
        phase: torch.utils.data.DataLoader(found, batch_size=4, shuffle=True, num_workers=4)
        for phase, found in sets.items()
    }
    torch.manual_seed(0)
    model = models.resnet18()
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.fc = nn.Linear(model.fc.in_features, len(sets["train"].classes))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.fc.parameters(), lr=0.001, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    history = []
    for _ in range(epochs):
        for phase, loader in loaders.items():
            model.train(phase == "train")
            right = 0
            for inputs, labels in loader:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                right += int((outputs.argmax(1) == labels).sum())
            if phase == "train":
                scheduler.step()
            else:
                history.append(right / len(sets[phase]))
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder, "best.pt"))
    print(json.dumps({"final": history[-1], "best": max(history), "n": len(sets["val"])}))


def plusx(data: str, weights: str, *options: str) -> tuple[float, float, float]:
    """Seconds until metrics.json stands and until the end, and validation top-1, of one train."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "plusx", "train", data, "--model", "resnet18"]
        command += ["--weights", weights, "--out", f"{folder}/run", "--json", *options]
        started = time.time()
        clean = os.environ | {"PLUSX_CACHE": f"{folder}/cache"}  # else the audit remembers a turn
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=clean)
        whole = time.time() - started
        seconds = Path(folder, "run", "metrics.json").stat().st_mtime - started
    found = json.loads(done.stdout)
    val = next(e for e in found["evaluations"] if e["split"] == "val")
    return seconds, whole, val["figures"]["top1"]["value"]


def recipe(data: str, weights: str, epochs: int) -> tuple[float, dict[str, float]]:
    """Seconds and figures of the tutorial's recipe."""
    command = [sys.executable, __file__, "--peer", "--data", data, "--weights", weights]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--epochs", str(epochs)], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the contestants in turn and print medians, ranges and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(Path(ROOT, "data", "hymenoptera")))
    default = Path(ROOT, "weights", "resnet18_imagenet_pq.safetensors")
    parser.add_argument("--weights", default=str(default))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25, help="of the recipe")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peer:
        tutorial(asked.data, asked.weights, asked.epochs)
        return
    times: dict[str, list[float]] = {"recipe": [], "probe": [], "default": []}
    top1: dict[str, list[float]] = {"recipe": [], "probe": [], "default": []}
    ended: dict[str, list[float]] = {"probe": [], "default": []}
    best, n = [], 0
    for turn in range(asked.repeats):
        for name, options in (("probe", ("--unfreeze", "0")), ("default", ())):
            seconds, whole, value = plusx(asked.data, asked.weights, *options, "--seed", str(turn))
            times[name].append(seconds)
            ended[name].append(whole)
            top1[name].append(value)
        seconds, figures = recipe(asked.data, asked.weights, asked.epochs)
        times["recipe"].append(seconds)
        top1["recipe"].append(figures["final"])
        best.append(figures["best"])
        n = int(figures["n"])
        print(f"turn {turn + 1}:", {k: round(v[-1], 1) for k, v in times.items()}, flush=True)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, {asked.repeats} turns, {n} val images")
    slow = statistics.median(times["recipe"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        images = [round(value * n) for value in top1[name]]
        print(
            f"{name:<8} {middle:7.1f} s ({min(seconds):.1f}-{max(seconds):.1f})  "
            f"{slow / middle:5.1f} times less  val top-1 {statistics.median(top1[name]):.4f} "
            f"(right: {images} of {n})"
        )
    for name, seconds in ended.items():
        print(f"{name}: {statistics.median(seconds):.1f} s until the process has ended")
    print(f"the recipe's best epoch: {[round(value, 4) for value in best]}")


if __name__ == "__main__":
    main()
