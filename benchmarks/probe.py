"""The linear probe on 396 photographs of ants and bees: 10 x 5-fold, three backbones.

    python benchmarks/probe.py [FOLDER]

FOLDER (default: $PLUSX_TEST_DATA) holds ``data/hymenoptera/{train,val}/{ants,bees}`` (the PyTorch
transfer-learning tutorial's data, pooled) and ``weights/*.safetensors``. Printed per backbone:
top1 with its 95% interval for 396 images, its standard deviation over the 10 repeats, and seconds
for the features, for `cross_validate`, for one `fit_probe` and for scikit-learn's
LogisticRegressionCV with the same penalties and folds on the same scaled features.
Exit code 1 if a figure is below what is expected.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV

from plusx.data import read_folder
from plusx.engines import TorchEngine
from plusx.fit.features import Loading, first_pass
from plusx.fit.probe import GRID, cross_validate, fit_probe
from plusx.model import ResNetSpec, variant
from plusx.runtime import cpu_count, fast_dtype, resolve_device
from plusx.weights import create_network

# Yahoo's open_nsfw: Caffe lineage, half as wide as a ResNet-50.
THIN = ResNetSpec(
    "resnet50_thin_v1",
    "bottleneck",
    (3, 4, 6, 3),
    (32, 64, 128, 256),
    stem_pool="max-ceil",
    bottleneck_stride="1x1",
    classes=2,
)
BACKBONES = [
    (variant("resnet18"), "resnet18_imagenet_pq.safetensors", 0.95),
    (variant("resnet50"), "resnet50_imagenet_pq.safetensors", 0.96),
    (THIN, "resnet50_thin_v1.safetensors", 0.89),
]


def features_of(spec: ResNetSpec, weights: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, C) and targets (n,) of every readable image below ``data``."""
    network = create_network(spec, weights=str(weights))
    device = resolve_device("auto")
    engine = TorchEngine(network.model.eval(), device=device, dtype=fast_dtype(device))
    samples = read_folder(data).samples
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = first_pass(
            engine,
            samples,
            network.preprocessing,
            folder=Path(folder),
            loading=Loading(cpu_count()),
        )
        features = np.array(found.features[found.readable])
    targets = np.array([sample.target for sample in samples], np.int64)
    return features, targets[found.readable]


def peer_seconds(features: np.ndarray, targets: np.ndarray) -> float:
    """What scikit-learn takes for the same choice and fit."""
    started = time.perf_counter()
    x = features.astype(np.float64)
    x = (x - x.mean(0)) / np.sqrt(np.maximum(x.std(0), 0.01 * x.std(0).mean()))
    x /= np.sqrt((x**2).sum(1).mean())
    strengths = [2 / penalty for penalty in GRID]
    model = LogisticRegressionCV(Cs=strengths, cv=5, scoring="neg_log_loss", max_iter=5000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # defaults that will change; none matters
        model.fit(x, targets)
    return time.perf_counter() - started


def main() -> int:
    """Print the table; 1 where a figure is too low."""
    parser = argparse.ArgumentParser(description="10 x 5-fold linear probe, three backbones")
    parser.add_argument("folder", nargs="?", default=os.environ.get("PLUSX_TEST_DATA"), type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name the folder with data/ and weights/, or set PLUSX_TEST_DATA")
    print(f"{platform.machine()}, {cpu_count()} cores, torch {torch.__version__}")
    print(f"{'backbone':18} {'top1':>6} {'95% interval':>15} {'sd':>6} {'least':>6} {'n':>4}"
          f" {'features':>9} {'10x5-fold':>9} {'fit':>6} {'sklearn':>8}")  # fmt: skip
    low = False
    for spec, name, expected in BACKBONES:
        clock = [time.perf_counter()]
        features, targets = features_of(
            spec, arguments.folder / "weights" / name, arguments.folder / "data" / "hymenoptera"
        )
        clock.append(time.perf_counter())
        result = cross_validate(features, targets, classes=2, seed=arguments.seed)
        clock.append(time.perf_counter())
        fit_probe(features, targets, classes=2, seed=arguments.seed)
        clock.append(time.perf_counter())
        figure, seconds = result.figure, np.diff(clock)
        print(f"{spec.name:18} {figure.value:6.4f} {figure.low:7.4f}-{figure.high:.4f}"
              f" {result.spread:7.4f} {expected:6.2f} {len(targets):4d} {seconds[0]:8.1f}s"
              f" {seconds[1]:8.2f}s {seconds[2]:5.2f}s {peer_seconds(features, targets):7.2f}s",
              flush=True)  # fmt: skip
        low |= figure.value < expected
    return int(low)


if __name__ == "__main__":
    sys.exit(main())
