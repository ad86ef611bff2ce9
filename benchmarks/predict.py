"""A folder of photographs to a CSV, end to end, beside the same written with torchvision.

    python benchmarks/predict.py [DATA] [--images 1000] [--rounds 3] [--smoke]

DATA (default: $PLUSX_TEST_DATA) holds ``weights/resnet50_imagenet_pq.safetensors`` and photographs
(``data/imagenet_1000``, ``data/hymenoptera``), which are linked into one folder, again and again
until there are enough. Each turn is a process of its own, timed from start to end: start-up,
loading, conversion, decoding, network, writing. The peer is ImageFolder, DataLoader (batch 16, one
worker a core) and the eager network under ``no_grad``, as its users write it.

Printed: seconds (median, least, most over rounds), images a second, how many times the peer's,
peak memory of the process. Exit code 1 if a figure is below what is expected.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LEAST = {"plusx bfloat16": 3.5, "plusx int8 file": 5.5}
"""Times the peer, at 1,000 images."""

PEER = """
import csv, sys
import torch, torchvision
from torchvision import transforms
if __name__ == "__main__":
    weights, folder, out, workers = sys.argv[1:]
    from safetensors.torch import load_file
    net = torchvision.models.resnet50(weights=None)
    net.load_state_dict({k: v.float() if v.is_floating_point() else v
                         for k, v in load_file(weights).items()}, strict=False)
    net.eval()
    prepare = transforms.Compose([
        transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    data = torchvision.datasets.ImageFolder(folder, prepare)
    loader = torch.utils.data.DataLoader(data, batch_size=16, num_workers=int(workers))
    found = []
    with torch.no_grad():
        for images, _ in loader:
            best = net(images).softmax(1).topk(5)
            found += list(zip(best.values.tolist(), best.indices.tolist()))
    with open(out, "w", newline="") as file:
        writer = csv.writer(file)
        for (path, _), (shares, numbers) in zip(data.samples, found):
            writer.writerow([path, *numbers, *shares])
"""


def prepare(data: Path, folder: Path, images: int) -> None:
    """The photographs, the model, and the int8 file of it."""
    from plusx.data import Preprocessing
    from plusx.data.loader import plain_reader
    from plusx.data.records import Sample
    from plusx.export.write import write_exported
    from plusx.model import variant
    from plusx.weights import create_network, load_artifact, save_artifact

    places = ("data/imagenet_1000/images", "data/hymenoptera")
    found = [path for place in places for path in sorted((data / place).rglob("*"))
             if path.suffix.lower() in (".jpg", ".jpeg")]  # fmt: skip
    (folder / "photos" / "all").mkdir(parents=True)
    for number in range(images):
        path = found[number % len(found)]
        (folder / "photos" / "all" / f"{number:05}.jpg").symlink_to(path.resolve())
    net = create_network(
        variant("resnet50"), weights=str(data / "weights" / "resnet50_imagenet_pq.safetensors")
    )
    save_artifact(folder / "model", net.model.eval(), classes=[f"{i:04}" for i in range(1000)],
                  preprocessing=Preprocessing.for_size(224), provenance={}, card="")  # fmt: skip
    artifact = load_artifact(folder / "model")
    read = plain_reader(artifact.preprocessing)
    arrays = [read(Sample(str(path), None), 0).numpy()[None] for path in found[::8][:200]]
    write_exported(artifact, folder / "int8.xml", to="openvino", precision="int8", name="net",
                   preprocessed=True, images=arrays)  # fmt: skip
    (folder / "peer.py").write_text(PEER, encoding="utf-8")


def commands(data: Path, folder: Path, cores: int) -> dict[str, list[str]]:
    """What is timed, the peer first."""
    photos, out = str(folder / "photos"), str(folder / "out.csv")
    plusx = [sys.executable, "-m", "plusx", "predict"]
    given, model = [photos, "--out", out], str(folder / "model")
    weights = str(data / "weights" / "resnet50_imagenet_pq.safetensors")
    return {
        "torchvision eager": [sys.executable, str(folder / "peer.py"), weights, photos, out,
                              str(cores)],
        "plusx float32": [*plusx, model, *given],
        "plusx bfloat16": [*plusx, model, *given, "--precision", "auto"],
        "plusx bfloat16, torch": [*plusx, model, *given, "--precision", "auto", "--engine",
                                  "torch"],
        "plusx int8 file": [*plusx, str(folder / "int8.xml"), *given],
    }  # fmt: skip


def turn(command: list[str]) -> tuple[float, float]:
    """Seconds, and peak memory in MiB, of one process (and its largest child)."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {child.returncode}")
    return seconds, used.ru_maxrss / 1024


def main() -> int:
    """Print the table; 1 where a figure is too low."""
    from plusx.runtime import cpu_count

    parser = argparse.ArgumentParser(description="a folder of photographs to a CSV")
    parser.add_argument("data", nargs="?", default=os.environ.get("PLUSX_TEST_DATA"), type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="24 images, one round")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder with data/ and weights/, or set PLUSX_TEST_DATA")
    images, rounds = (24, 1) if arguments.smoke else (arguments.images, arguments.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child's peak memory begins at that of the one that starts it.
        subprocess.run(
            [sys.executable, __file__, "--prepare", str(arguments.data), name, str(images)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        todo = commands(arguments.data, folder, cpu_count())
        found: dict[str, list[tuple[float, float]]] = {what: [] for what in todo}
        for _ in range(rounds):
            for what, command in todo.items():
                found[what].append(turn(command))
    print(f"{platform.machine()}, {cpu_count()} cores; {images} images, {rounds} rounds")
    print(f"{'':24} {'s':>7} {'least':>7} {'most':>7} {'img/s':>7} {'times':>6} {'MiB':>6}")
    seconds = {what: [one for one, _ in turns] for what, turns in found.items()}
    peer = float(np.median(seconds["torchvision eager"]))
    for what, taken in seconds.items():
        middle, peak = float(np.median(taken)), max(mib for _, mib in found[what])
        print(f"{what:24} {middle:7.1f} {min(taken):7.1f} {max(taken):7.1f}"
              f" {images / middle:7.1f} {peer / middle:6.2f} {peak:6.0f}")  # fmt: skip
    low = any(peer / np.median(seconds[what]) < times for what, times in LEAST.items())
    return int(low and not arguments.smoke)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--prepare"]:
        prepare(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
