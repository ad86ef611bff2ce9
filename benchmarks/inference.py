"""How fast each engine runs a network, beside torchvision as its users write it, in one run.

    python benchmarks/inference.py [DATA] [--nets resnet18,...] [--rounds 5] [--smoke]

DATA (default: $PLUSX_TEST_DATA) holds ``weights/*.safetensors``, ``data/imagenet_val10`` and
``data/imagenet_1000``. A network without weights there gets random ones, which are as fast.

The peer is ``torchvision.models`` in evaluation mode under ``no_grad``, float32. All are timed in
turn, round by round, on the same preprocessed batch; printed are images a second (median, least
and most over rounds), how many times the peer's, the peak memory of a process that does this alone,
and for plusx's engines over a file how many times the bare runtime on that file. Then top-1 on
``imagenet_val10`` (1000-way): agreement with float32 and points lost, n = 500.
Exit code 1 if a figure is below what is expected.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.data import Preprocessing, align, read_folder
from plusx.data.loader import plain_reader
from plusx.engines import TorchEngine
from plusx.engines.exported import open_exported
from plusx.engines.onnxruntime import OnnxRuntimeEngine
from plusx.engines.openvino import OpenVINOEngine, has_bfloat16
from plusx.export.write import write_exported
from plusx.model import variant
from plusx.predict import Predictor
from plusx.runtime import cpu_count, fast_dtype
from plusx.weights import create_network, load_artifact, save_artifact

CPU = torch.device("cpu")
PEER = "torchvision eager"
LEAST = {"plusx bfloat16, best": 3.6, "plusx int8, openvino": 6.5}
"""Times the peer, ResNet-50 at batch 16."""
PAIRS = {"file fp32, openvino": "bare openvino fp32", "file fp32, onnxruntime": "bare onnxruntime",
         "plusx int8, openvino": "bare openvino int8"}  # fmt: skip
Run = Callable[[np.ndarray], Any]


def prepare(net: str, data: Path, folder: Path) -> Path:
    """An artifact of the network, and beside it the files made from it."""
    weights = data / "weights" / f"{net}_imagenet_pq.safetensors"
    made = create_network(variant(net), weights=str(weights) if weights.exists() else "none")
    images = data / "data" / "imagenet_1000"
    rows = (images / "classes.tsv").read_text(encoding="utf-8").splitlines()
    classes = [row.split("\t")[1] for row in rows if row[:1].isdigit()]
    place = folder / net
    save_artifact(place / "model", made.model.eval(), classes=classes, card="", provenance={},
                  preprocessing=Preprocessing.for_size(224))  # fmt: skip
    artifact = load_artifact(place)
    read = plain_reader(artifact.preprocessing)
    chosen = read_folder(images / "images").samples[::4]
    arrays = [read(sample, 0).numpy()[None] for sample in chosen]
    for to, precision, name in (("onnx", "fp32", "fp32.onnx"), ("openvino", "fp32", "fp32.xml"),
                                ("openvino", "int8", "int8.xml")):  # fmt: skip
        write_exported(artifact, place / name, to=to, precision=precision, name=net,
                       preprocessed=True, images=arrays if precision == "int8" else ())  # fmt: skip
    return place


def opened(name: str, place: Path) -> Run:
    """What runs a batch, by the name it has in the table."""
    if name == PEER:
        import torchvision

        model = getattr(torchvision.models, place.name)(weights=None).eval()

        def eager(images: np.ndarray) -> Any:
            with torch.no_grad():
                return model(torch.from_numpy(images))

        return eager
    if name.startswith("bare openvino"):
        import openvino

        kind = name.split()[-1]
        compiled = openvino.Core().compile_model(
            str(place / f"{kind}.xml"), "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cpu_count(),
             "NUM_STREAMS": "1"},
        )  # fmt: skip
        request = compiled.create_infer_request()
        return lambda images: request.infer([images], share_inputs=True)
    if name == "bare onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_count()
        session = onnxruntime.InferenceSession(str(place / "fp32.onnx"), options)
        wanted = session.get_inputs()[0].name
        return lambda images: session.run(["logits", "features"], {wanted: images})
    return engine_of(name, place).run


def engine_of(name: str, place: Path) -> Any:
    """One of plusx's engines."""
    if name == "plusx int8, openvino":
        return open_exported(place / "int8.xml").engine
    if name == "file fp32, openvino":
        return open_exported(place / "fp32.xml").engine
    if name == "file fp32, onnxruntime":
        return open_exported(place / "fp32.onnx", name="onnxruntime").engine
    artifact = load_artifact(place)
    if name.startswith("plusx onnxruntime"):
        return OnnxRuntimeEngine.of(artifact.model)
    precision = name.split()[-1]
    if name.startswith("plusx openvino"):
        return OpenVINOEngine.of(artifact.model, precision=precision)
    return TorchEngine(artifact.model, device=CPU, dtype=getattr(torch, precision))


def names() -> list[str]:
    """All that this processor can run, the peer first."""
    found = [PEER, "plusx torch float32", "plusx onnxruntime float32", "plusx openvino float32"]
    found += ["plusx torch bfloat16"] if fast_dtype(CPU) == torch.bfloat16 else []
    found += ["plusx openvino bfloat16"] if has_bfloat16() else []
    found += ["plusx int8, openvino", "file fp32, openvino", "file fp32, onnxruntime"]
    return found + list(PAIRS.values())


def peak_mib(name: str, place: Path, batch: int) -> float:
    """Of a process that loads one engine and runs a few batches."""
    done = subprocess.run(
        [sys.executable, __file__, "--alone", name, str(place), str(batch)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout.split()[-1])


def alone(name: str, place: str, batch: str) -> None:
    """The process of ``peak_mib``."""
    run = opened(name, Path(place))
    images = np.zeros((int(batch), 3, 224, 224), np.float32)
    for _ in range(3):
        run(images)
    # Not getrusage: a process inherits that peak from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def timed(place: Path, batch: int, *, rounds: int, images: int) -> bool:
    """One table; whether a figure is too low."""
    given = np.random.default_rng(0).standard_normal((batch, 3, 224, 224)).astype(np.float32)
    runs = {name: opened(name, place) for name in names()}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run(given)
            count = max(1, images // batch)
            started = time.perf_counter()
            for _ in range(count):
                run(given)
            rates[name].append(count * batch / (time.perf_counter() - started))
    middle = {name: float(np.median(found)) for name, found in rates.items()}
    print(f"\n{place.name}, batch {batch}, {rounds} rounds of {images} images")
    print(f"{'':28} {'img/s':>7} {'least':>7} {'most':>7} {'times':>6} {'bare':>6} {'MiB':>7}")
    for name, found in rates.items():
        bare = f"{middle[name] / middle[PAIRS[name]]:.2f}" if name in PAIRS else ""
        print(f"{name:28} {middle[name]:7.1f} {min(found):7.1f} {max(found):7.1f}"
              f" {middle[name] / middle[PEER]:6.2f} {bare:>6}"
              f" {peak_mib(name, place, batch):7.0f}", flush=True)  # fmt: skip
    low = any(middle[name] < 0.95 * middle[bare] for name, bare in PAIRS.items())
    if place.name == "resnet50" and batch == 16:
        half = [rate for name, rate in middle.items() if name.endswith("bfloat16")]
        best = {"plusx bfloat16, best": max(half, default=0.0), **middle}
        low |= any(best[name] < times * middle[PEER] for name, times in LEAST.items())
    return low


def agreement(place: Path, data: Path, *, images: int) -> bool:
    """Top-1 on real photographs; whether a figure is too low."""
    artifact = load_artifact(place)
    listing, _ = align(read_folder(data / "data" / "imagenet_val10"), artifact.classes)
    samples = listing.samples[:: max(1, len(listing.samples) // images)]
    exact, _ = Predictor(artifact, engine="torch", device="cpu").predictions(samples)
    right = exact.predicted == exact.targets
    print(f"\n{place.name} on {len(samples)} images: float32 {right.mean():.1%} right")
    low = False
    for name, least in (("plusx torch bfloat16", 0.99), ("plusx openvino bfloat16", 0.99),
                        ("plusx int8, openvino", 0.94)):  # fmt: skip
        if name not in names():
            continue
        engine = engine_of(name, place)
        found, _ = Predictor(artifact, engine=engine).predictions(samples)
        same = float((found.predicted == exact.predicted).mean())
        lost = 100 * float(right.mean() - (found.predicted == found.targets).mean())
        print(f"{name:28} agrees {same:.1%}, loses {lost:+.1f} points", flush=True)
        low |= same < least or lost > 0.5
    return low


def main() -> int:
    """Print the tables; 1 where a figure is too low."""
    parser = argparse.ArgumentParser(description="engines beside torchvision")
    parser.add_argument("data", nargs="?", default=os.environ.get("PLUSX_TEST_DATA"), type=Path)
    parser.add_argument("--nets", default="resnet18,resnet50,resnet101")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="the smallest net, a few images")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the folder with data/ and weights/, or set PLUSX_TEST_DATA")
    smoke = arguments.smoke
    print(f"{platform.machine()}, {cpu_count()} cores, torch {torch.__version__}")
    low = False
    with tempfile.TemporaryDirectory() as folder:
        for net in ["resnet18"] if smoke else arguments.nets.split(","):
            place = prepare(net, arguments.data, Path(folder))
            for batch in (1, 16):
                rounds, images = (1, 16) if smoke else (arguments.rounds, 64)
                low |= timed(place, batch, rounds=rounds, images=images)
            if (arguments.data / "weights" / f"{net}_imagenet_pq.safetensors").exists():
                low |= agreement(place, arguments.data, images=20 if smoke else 500)
    return int(low and not smoke)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(*sys.argv[2:])
    else:
        sys.exit(main())
