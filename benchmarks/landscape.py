"""Points of a loss landscape a second: plusx beside a plain implementation of the same grid.

Plain: for every point set all weights to ``w + a * d1 + b * d2``, then a full forward over the same
images in float32 with BatchNorm in evaluation mode, without gradients, in batches of the same size.
plusx: norms folded once into base and directions, bfloat16 where it is native, channels last. Both
take each point in turn, the order alternating, in one process with as many threads as there are
cores. Printed: points a second of each with the spread over points, the ratio, and the largest
relative difference of the mean loss where it is finite.

    python benchmarks/landscape.py DATA/weights/resnet56-4bfd9763.th --model resnet56_cifar_a \\
        --data cifar/ --images 1000

``cifar/`` holds ``test/<class>/``. Expected: at least 2.2 times, losses within 1%. ``--smoke`` does
a 2 x 2 grid over 64 images.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from plusx.runtime import fast_dtype
from plusx.science.directions import moving, random_direction
from plusx.science.landscape_plane import Plane, plain_loss, prepared
from plusx.science.subject import open_subject, read_images


def main() -> None:
    """Time both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--model")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--grid", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    grid, count = (2, 64) if asked.smoke else (asked.grid, asked.images)

    subject = open_subject(asked.weights, model=asked.model)
    images = read_images(asked.data, subject, limit=count, seed=asked.seed)
    directions = [random_direction(subject.model, asked.seed + k) for k in (0, 1)]
    dtype = fast_dtype(torch.device("cpu"))
    plane, ready = Plane(subject.model, directions, dtype=dtype), prepared(images.images, dtype)
    base = {name: weight.clone() for name, weight in moving(subject.model).items()}

    def plain(a: float, b: float) -> float:
        with torch.no_grad():
            for name, parameter in subject.model.named_parameters():
                if name in base:
                    step = a * directions[0][name] + b * directions[1][name]
                    parameter.copy_(base[name] + step)
        return float(plain_loss(subject.model, images.images, images.targets).mean())

    def ours(a: float, b: float) -> float:
        return float(plane.loss((a, b), ready, images.targets)[:, 0].mean())

    plain(0.0, 0.0), ours(0.0, 0.0)  # the first pass of each also prepares
    axis = np.linspace(-1, 1, grid).tolist()
    seconds: dict[str, list[float]] = {"plain": [], "plusx": []}
    losses: dict[str, list[float]] = {"plain": [], "plusx": []}
    for number, (a, b) in enumerate((a, b) for a in axis for b in axis):
        both = [("plain", plain), ("plusx", ours)]
        for name, run in both if number % 2 else both[::-1]:
            began = time.perf_counter()
            losses[name].append(run(a, b))
            seconds[name].append(time.perf_counter() - began)
    for name, found in seconds.items():
        rates = 1 / np.array(found)
        low, high = np.percentile(rates, [2.5, 97.5])
        print(
            f"{name}: {len(found) / sum(found):.2f} points/s (n {len(found)} points, 95% of them "
            f"{low:.2f} to {high:.2f})"
        )
    print(f"ratio: {sum(seconds['plain']) / sum(seconds['plusx']):.2f}")
    one, other = np.array(losses["plain"]), np.array(losses["plusx"])
    finite = np.isfinite(one) & np.isfinite(other)
    apart = np.abs(other[finite] / one[finite] - 1)
    print(
        f"largest relative difference of the loss: {apart.max():.2%} over {finite.sum()} finite of "
        f"{len(one)} points (losses {one[finite].min():.3f} to {one[finite].max():.3g}); finite in "
        f"one alone: {(np.isfinite(one) != np.isfinite(other)).sum()}"
    )
    print(f"{subject.name}, {len(images)} images, {dtype}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
