"""What decisions are worth on real images: X-ray photographs, and images of something else.

A probe on the features of a frozen ImageNet ResNet-50. On chest X-rays, in ``--splits`` random
splits of the training photographs: 600 fit the probe, 300 the decision, the others and the
collection's own test split (shifted: it comes from elsewhere) judge it. On the hymenoptera
photographs: how well the unknown score tells their validation images from X-rays, satellite tiles
and photographs of ImageNet without its insects, and how many of each are called unknown.

    python benchmarks/trust.py --weights resnet50.safetensors

``--cache DIR`` keeps the features (NAME.npz: features, paths) and takes them from there.

Expected: cross-fitted, NLL after calibration never worse and ECE at most 0.04; sets of 90% cover
88 to 92%; a promised precision of 0.95 is kept (lower limit 0.93) at a coverage of at least 0.5;
AUROC of the unknown score at least 0.995, 0.995 and 0.975.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from plusx.evaluate import Predictions
from plusx.evaluate.calibration import calibrate
from plusx.evaluate.deciding import fit_decision, judged, worth
from plusx.evaluate.intervals import wilson
from plusx.evaluate.wish import Wish
from plusx.fit.probe import Head, fit_probe

ROOT = Path(os.environ.get("PLUSX_TEST_DATA", "."), "data")
INSECTS = range(300, 327)
FIT, CALIBRATE = 600, 300


def features_of(name: str, cache: Path, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) features and n paths of all images of a collection; cached."""
    file = cache / f"{name}.npz"
    if not file.exists():
        import torch

        from plusx.data import unlabelled
        from plusx.engines import TorchEngine
        from plusx.fit.features import first_pass
        from plusx.weights import create_network

        network = create_network(None, weights=weights, classes=2)
        engine = TorchEngine(network.model, device=torch.device("cpu"))
        samples = list(unlabelled([str(ROOT / name)]))
        with tempfile.TemporaryDirectory() as folder:
            found = first_pass(engine, samples, network.preprocessing, folder=Path(folder))
            paths = np.array([sample.path for sample in samples])
            np.savez(file, features=found.features[found.readable], paths=paths[found.readable])
    with np.load(file) as kept:
        return kept["features"].astype(np.float32), kept["paths"]


def predictions(
    head: Head, features: np.ndarray, targets: np.ndarray, names: tuple[str, ...]
) -> Predictions:
    paths = tuple(map(str, range(len(targets))))
    logits = head.logits(features)
    return Predictions(logits, targets.astype(np.int64), paths, names, features=features)


def xray(cache: Path, weights: str, splits: int) -> None:
    features, paths = features_of("chest_xray", cache, weights)
    targets = np.array(["/PNEUMONIA/" in path for path in paths]).astype(np.int64)
    inside = np.array(["/train/" in path for path in paths])
    x, y = features[inside], targets[inside]
    names = ("NORMAL", "PNEUMONIA")
    rows: dict[str, list[float]] = {}
    worse, worse_crossed = 0, 0
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(y))
        a, b, c = np.split(order, [FIT, FIT + CALIBRATE])
        probe = fit_probe(x[a], y[a], classes=2, seed=seed)
        fits = predictions(probe.head, x[b], y[b], names)
        decision, why = fit_decision(fits, Wish(precision=0.95), bank=x[a], seed=seed)
        crossed = calibrate(fits, seed=seed)
        worse_crossed += crossed.after["nll"].value > crossed.before["nll"].value
        rows.setdefault("cross-fitted: ece", []).append(crossed.after["ece"].value)
        for text in why:
            print(f"split {seed}: {text}")
        for where, (fx, fy) in (("held out", (x[c], y[c])),
                                ("shifted", (features[~inside], targets[~inside]))):  # fmt: skip
            found = worth([(decision, judged(predictions(probe.head, fx, fy, names), decision))])
            right = found["answered"]["accuracy"]["value"]
            answered = found["answered"]["coverage"]["value"]
            values = {
                "covered": found["sets"]["coverage"]["value"],
                "set size": found["sets"]["mean_size"]["value"],
                "called unknown": found["unknown"]["share"]["value"],
                "answered": answered,
                "precision": right,
                "its lower limit": float(wilson(right, round(answered * len(fy)))[0]),
            }
            if found["calibration"] is not None:
                before, after = found["calibration"]["before"], found["calibration"]["after"]
                gain = before["nll"]["value"] - after["nll"]["value"]
                worse += where == "held out" and gain < 0
                values |= {"ece before": before["ece"]["value"], "ece": after["ece"]["value"],
                           "nll gain": gain}  # fmt: skip
            for key, value in values.items():
                rows.setdefault(f"{where}: {key}", []).append(value)
    print(f"X-ray: {splits} splits of {len(y)}; {FIT} fit, {CALIBRATE} decide, "
          f"{len(y) - FIT - CALIBRATE} held out, {(~inside).sum()} shifted")  # fmt: skip
    for key, values in rows.items():
        print(f"  {key:<26} mean {np.mean(values):.4f}  sd {np.std(values, ddof=1):.4f}  "
              f"least {min(values):.4f}  most {max(values):.4f}")  # fmt: skip
    print(f"  NLL worse after calibration: held out in {worse} of {splits}, cross-fitted on the "
          f"images that fitted it in {worse_crossed}")  # fmt: skip


def unknown(cache: Path, weights: str) -> None:
    features, paths = features_of("hymenoptera", cache, weights)
    targets = np.array(["/bees/" in path for path in paths]).astype(np.int64)
    inside = np.array(["/train/" in path for path in paths])
    probe = fit_probe(features[inside], targets[inside], classes=2)
    val = predictions(probe.head, features[~inside], targets[~inside], ("ants", "bees"))
    decision, _ = fit_decision(val, Wish(), bank=features[inside])
    assert decision.unknown is not None
    own = decision.unknown.score(val.features)
    threshold = decision.unknown.threshold
    print(f"Hymenoptera: {inside.sum()} in the bank, {len(own)} of its own, of them unknown "
          f"{np.mean(own > threshold):.3f}")  # fmt: skip
    for name, label in (("chest_xray", "X-rays"), ("eurosat_rgb", "satellite tiles"),
                        ("imagenet_1000", "ImageNet without insects")):  # fmt: skip
        x, where = features_of(name, cache, weights)
        if name == "imagenet_1000":
            numbers = class_numbers()
            x = x[[number(path, numbers) not in INSECTS for path in where]]
        far = decision.unknown.score(x)
        truth = np.r_[np.zeros(len(own)), np.ones(len(far))]
        area = roc_auc_score(truth, np.r_[own, far])
        rng = np.random.default_rng(0)
        draws = [
            roc_auc_score(truth, np.r_[rng.choice(own, len(own)), rng.choice(far, len(far))])
            for _ in range(200)
        ]
        low, high = np.quantile(draws, [0.025, 0.975])
        print(f"  {label}: AUROC {area:.4f} (95% {low:.4f}-{high:.4f}), called unknown "
              f"{np.mean(far > threshold):.3f} of {len(far)}")  # fmt: skip
    print(f"  bank: {decision.unknown.bank.nbytes / 2**20:.2f} MiB")


def class_numbers() -> dict[str, int]:
    """Class name of an ImageNet photograph (its folder or file) -> index."""
    text = (ROOT / "imagenet_1000" / "classes.tsv").read_text(encoding="utf-8")
    cells = [line.split("\t") for line in text.splitlines() if line]
    return {cell[1]: int(cell[0]) for cell in cells if cell[0].isdigit()}


def number(path: str, numbers: dict[str, int]) -> int:
    name = Path(path)
    return numbers[name.parent.name if name.parent.name in numbers else name.stem]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="timm/resnet50.a1_in1k")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--splits", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = asked.cache or Path(folder)
        cache.mkdir(parents=True, exist_ok=True)
        xray(cache, asked.weights, asked.splits)
        unknown(cache, asked.weights)


if __name__ == "__main__":
    main()
