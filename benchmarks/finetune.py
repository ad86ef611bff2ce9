"""Fine-tuning the last two blocks: plusx's trunk cache beside the same job as torchvision's users
write it, in one run.

**Time.** ResNet-50, the last two blocks and the head, 20 epochs, batch 32, AdamW. The peer freezes
the other parameters (``requires_grad = False``), reads with ``ImageFolder`` and ``DataLoader``,
augments with ``RandomResizedCrop`` and a flip, runs every image through the whole network in every
epoch and scores validation after each. ``plusx train`` does its usual work: audit, probe, cached
views, 20 epochs, decisions, figures from files. Each is a process of its own, timed from its start
until its result is on disk; the cache is cold.

    python benchmarks/finetune.py

Expected on two cores: at least 4 times less wall time in all, at least 10 times per epoch after the
first; about 11 minutes.

**Accuracy.** What is trained from the cache (a few views of an image, in turn; ``--views 4 8``
compares numbers) against what is trained from images read anew (``--cache-gib 0``, a fresh view
each epoch): ResNet-18, three sets of images, five random splits, the same split and seed for all,
each scored assembled, from files. Differences are paired by image; the interval comes from a
bootstrap over images.

    python benchmarks/finetune.py --accuracy

Expected: the lower end of the 95% interval of the difference lies above -0.5 points; about 40
minutes. ``--smoke`` makes either short: it says nothing but that it runs.
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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("PLUSX_TEST_DATA", ""))
BATCH = 32


def peer(data: str, weights: str, epochs: int) -> None:
    """The job as its users write it; prints seconds of each epoch and its top-1 as JSON."""
    import torch
    from safetensors.torch import load_file
    from torch import nn, optim
    from torch.utils.data import DataLoader
    from torchvision import datasets, models, transforms

    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    steps = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "val": [transforms.Resize(256), transforms.CenterCrop(224)],
    }
    sets = {
        split: datasets.ImageFolder(
            str(Path(data, split)),
            transforms.Compose([*steps[split], transforms.ToTensor(), normalise]),
        )
        for split in steps
    }
    loaders = {
        split: DataLoader(found, BATCH, shuffle=split == "train", num_workers=2)
        for split, found in sets.items()
    }
    torch.manual_seed(0)
    model = models.resnet50()
    model.load_state_dict({k: v.float() for k, v in load_file(weights).items()}, strict=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(("layer4.1.", "layer4.2."))
    model.fc = nn.Linear(model.fc.in_features, len(sets["train"].classes))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    seconds, right = [], 0
    for _ in range(epochs):
        began = time.perf_counter()
        model.train()
        for inputs, labels in loaders["train"]:
            optimizer.zero_grad()
            criterion(model(inputs), labels).backward()
            optimizer.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, labels in loaders["val"]:
                right += int((model(inputs).argmax(1) == labels).sum())
        seconds.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder, "model.pt"))
    print(json.dumps({"seconds": seconds, "top1": right / len(sets["val"])}))


@dataclass(frozen=True)
class Timed:
    """Seconds in all and of each epoch, top-1 on validation at the end."""

    whole: float
    epochs: list[float]
    top1: float


def run_peer(data: Path, weights: Path, epochs: int) -> Timed:
    """The peer in a process of its own."""
    command = [sys.executable, __file__, "--peer", "--data", str(data), "--weights", str(weights)]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--epochs", str(epochs)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return Timed(time.perf_counter() - began, found["seconds"], found["top1"])


def run_plusx(data: Path, weights: Path, epochs: int) -> tuple[Timed, Timed]:
    """``plusx train`` with a cold cache, and once more with what the first run kept."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name in ("cold", "warm"):
            out = Path(folder, name)
            command = [sys.executable, "-m", "plusx", "train", str(data), "--out", str(out),
                       "--model", "resnet50", "--weights", str(weights), "--unfreeze", "2",
                       "--epochs", str(epochs), "--patience", "0", "--json"]  # fmt: skip
            own = os.environ | {"PLUSX_CACHE": f"{folder}/cache"}
            began = time.time()
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=own)
            whole = (out / "metrics.json").stat().st_mtime - began
            with (out / "history.csv").open(newline="") as file:
                rows = [float(row["seconds"]) for row in csv.DictReader(file)]
            found = json.loads(done.stdout)["evaluations"]
            val = next(entry for entry in found if entry["split"] == "val")
            runs.append(Timed(whole, rows[1:], val["figures"]["top1"]["value"]))
            print(f"plusx, {name} cache: {json.loads(done.stdout)['seconds']}", flush=True)
    return runs[0], runs[1]


def subset(data: Path, folder: Path, sizes: dict[str, int]) -> None:
    """Links to so many images of each split, classes in proportion."""
    rng = random.Random(0)
    for split, size in sizes.items():
        files = sorted(path for path in (data / split).rglob("*") if path.is_file())
        for path in rng.sample(files, min(size, len(files))):
            place = folder / split / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.resolve())


def times(data: Path, weights: Path, *, images: int, epochs: int) -> None:
    """Both in turn; prints seconds and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder, "photos")
        subset(data, few, {"train": images, "val": images // 2})
        ours, again = run_plusx(few, weights, epochs)
        theirs = run_peer(few, weights, epochs)
    print(f"\n{platform.machine()}, {os.cpu_count()} cores; ResNet-50, last two blocks, {epochs} "
          f"epochs, {images} + {images // 2} images, batch {BATCH}; one turn")  # fmt: skip
    slow = statistics.median(theirs.epochs[1:])
    for name, one in (("torchvision", theirs), ("plusx", ours), ("plusx, again", again)):
        later = one.epochs[1:]
        middle = statistics.median(later)
        print(
            f"{name:<13} {one.whole:7.1f} s in all ({theirs.whole / one.whole:4.1f} times less)  "
            f"{middle:6.2f} s an epoch after the first ({min(later):.2f} to {max(later):.2f}; "
            f"{slow / middle:4.1f} times less)  top-1 {one.top1:.3f}"
        )
    print("wanted: 4 times less in all, 10 times an epoch")


@dataclass(frozen=True)
class Part:
    """One set's images and how many of them are learnt from and held out."""

    folder: Path
    train: int
    held: int


def labelled(folder: Path) -> list[tuple[str, str]]:
    """Path and class of every image below; the class is its folder."""
    kinds = {".jpg", ".jpeg", ".png"}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in kinds)
    return [(str(path), path.parent.name) for path in files]


def split_to(file: Path, part: Part, seed: int) -> None:
    """A manifest: so many images at random to learn from (a fifth of them chooses), the others
    held out."""
    images = labelled(part.folder)
    random.Random(seed).shuffle(images)
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["path", "label", "split"])
        for number, (path, label) in enumerate(images[: part.train + part.held]):
            learnt = number < part.train
            split = "test" if not learnt else "val" if number % 5 == 0 else "train"
            rows.writerow([path, label, split])


def right_answers(manifest: Path, weights: Path, *, gib: float, views: int | None, seed: int,
                  epochs: int, folder: Path) -> dict[str, bool]:  # fmt: skip
    """Which held-out images a training gets right, through the artifact, from their files."""
    from plusx.jobs.decision import score
    from plusx.jobs.fitting import fit
    from plusx.jobs.material import gather
    from plusx.jobs.options import TrainOptions
    from plusx.jobs.setup import prepare
    from plusx.jobs.talk import Talk
    from plusx.weights import save_artifact

    talk = Talk(quiet=True)
    setup = prepare(
        TrainOptions.of(manifest, model="resnet18", weights=weights, unfreeze=2, epochs=epochs,
                        patience=0, seed=seed, cache_gib=gib, views=views), talk)  # fmt: skip
    folder.mkdir()
    fitted = fit(setup, gather(setup, folder, talk, reuse=False), setup.listing, folder, talk)
    save_artifact(folder / "model", fitted.model, classes=setup.listing.classes,
                  preprocessing=setup.preprocessing, provenance={}, card="")  # fmt: skip
    found = score(setup, folder / "model", setup.listing.part("test"), "scoring", talk)
    answers = found.logits.argmax(axis=1) == found.targets
    return dict(zip(found.paths, answers.tolist(), strict=True))


def accuracy(
    parts: dict[str, Part], weights: Path, *, seeds: int, epochs: int, views: list[int]
) -> None:
    """Paired differences, cached less uncached, in points, with their intervals."""
    began = time.perf_counter()
    arms: dict[str, tuple[float, int | None]] = {f"{v} views": (8.0, v) for v in views}
    arms = arms or {"cached": (8.0, None)}
    everything = {arm: dict[str, list[int]]() for arm in arms}
    for name, part in parts.items():
        mine = {arm: dict[str, list[int]]() for arm in arms}
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as temporary:
                manifest = Path(temporary, "list.csv")
                split_to(manifest, part, seed)
                answers = {
                    arm: right_answers(manifest, weights, gib=gib, views=kept, seed=seed,
                                       epochs=epochs, folder=Path(temporary, arm.replace(" ", "-")))
                    for arm, (gib, kept) in {**arms, "streamed": (0.0, None)}.items()
                }  # fmt: skip
            streamed = answers["streamed"]
            for arm in arms:
                for path, good in answers[arm].items():
                    mine[arm].setdefault(path, []).append(int(good) - int(streamed[path]))
            shares = {arm: f"{sum(f.values()) / len(f):.4f}" for arm, f in answers.items()}
            took = time.perf_counter() - began
            print(f"{name}, seed {seed}: {shares} of {len(streamed)}; {took:.0f} s", flush=True)
        for arm, found in mine.items():
            print(f"{name}, {arm}: {interval(found)}", flush=True)
            everything[arm] |= found
    print(f"\n{platform.machine()}, {os.cpu_count()} cores; {len(parts)} sets, {seeds} seeds, "
          f"{epochs} epochs")  # fmt: skip
    for arm, found in everything.items():
        print(f"all, {arm}: {interval(found)}")


def interval(differences: dict[str, list[int]]) -> str:
    """Images are drawn anew with all their seeds: answers on one image belong together."""
    import numpy as np

    sums = np.array([sum(found) for found in differences.values()])
    counts = np.array([len(found) for found in differences.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (10_000, len(sums)), dtype=np.int32)
    means = 100 * sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    total, apart = int(counts.sum()), sum(map(np.count_nonzero, differences.values()))
    return (
        f"{100 * sums.sum() / total:+.2f} points less streamed (95% interval {low:+.2f} to "
        f"{high:+.2f}); {total:,} pairs on {len(sums):,} images, {apart} differ; non-inferior at "
        f"0.5 points: {'yes' if low > -0.5 else 'no'}"
    )


def main() -> None:
    """Times, or accuracy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(ROOT / "data" / "hymenoptera"))
    parser.add_argument("--weights", help="a torchvision file; by default from PLUSX_TEST_DATA")
    parser.add_argument("--images", type=int, default=160, help="to learn from, for the times")
    parser.add_argument("--epochs", type=int, help="20 for the times, 12 for accuracy")
    parser.add_argument(
        "--views",
        type=int,
        nargs="*",
        default=[],
        help="for accuracy: kept views to compare [default: plusx's own number]",
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="as little as runs at all")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    net = "resnet18" if asked.accuracy else "resnet50"
    weights = Path(asked.weights or ROOT / "weights" / f"{net}_imagenet_pq.safetensors")
    if asked.peer:
        peer(asked.data, str(weights), asked.epochs)
    elif asked.accuracy:
        sizes = {"eurosat_rgb": (500, 1200), "hymenoptera": (200, 190), "chest_xray": (300, 700)}
        if asked.smoke:
            sizes = {"hymenoptera": (10, 6)}
        parts = {name: Part(ROOT / "data" / name, *size) for name, size in sizes.items()}
        seeds, epochs = (1, 1) if asked.smoke else (asked.seeds, asked.epochs or 12)
        accuracy(parts, weights, seeds=seeds, epochs=epochs, views=asked.views)
    else:
        images, epochs = (16, 3) if asked.smoke else (asked.images, asked.epochs or 20)
        times(Path(asked.data), weights, images=images, epochs=epochs)


if __name__ == "__main__":
    main()
