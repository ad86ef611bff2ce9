"""Creating ResNet-50 with weights from a local file: plusx beside timm, in one run.

plusx makes the network, reads the safetensors file, checks every value and the names, and loads it;
timm makes the network and loads the same file. Both in this process, in turn, ``--repeats`` times
after one turn that is not counted, so that imports and the disk's cache weigh on neither.

    python benchmarks/create.py
    python benchmarks/create.py --weights resnet50.safetensors --repeats 20

Without ``--weights`` a file of random values is written first. Expected: a ratio of at most 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MODEL = "resnet50"


def with_plusx(weights: str) -> object:
    """As a user of plusx writes it."""
    import plusx

    return plusx.create(MODEL, weights=weights)


def with_timm(weights: str) -> object:
    """As a user of timm writes it."""
    import timm

    return timm.create_model(MODEL, checkpoint_path=weights)


def with_timm_and_torch(weights: str) -> object:
    """The same by hand."""
    import timm
    from safetensors.torch import load_file

    model = timm.create_model(MODEL)
    model.load_state_dict(load_file(weights))
    return model


CONTESTANTS: dict[str, Callable[[str], object]] = {
    "plusx.create": with_plusx,
    "timm, checkpoint_path": with_timm,
    "timm, load_state_dict": with_timm_and_torch,
}


def write_weights(path: Path) -> None:
    """A file that fits both, of random values, under the names they share."""
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model(MODEL).state_dict(), path)


def measure(weights: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of each turn of each contestant, in turn."""
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for turn in range(repeats + 1):
        for name, run in CONTESTANTS.items():
            started = time.perf_counter()
            made = run(weights)
            seconds = time.perf_counter() - started
            del made
            if turn:
                times[name].append(seconds)
    return times


def main() -> None:
    """Run the contestants in turn; print medians, ranges and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", help="a safetensors file of ResNet-50, torchvision's names")
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = asked.weights
        if weights is None:
            weights = str(Path(folder, "random.safetensors"))
            write_weights(Path(weights))
        size = Path(weights).stat().st_size / 2**20
        times = measure(weights, asked.repeats)
    print(
        f"{MODEL}, {size:.0f} MiB, {platform.machine()}, {os.cpu_count()} cores, "
        f"n = {asked.repeats} turns of each"
    )
    own = times["plusx.create"]
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratios = sorted(mine / theirs for mine, theirs in zip(own, seconds, strict=True))
        print(
            f"{name:<22} {middle:6.3f} s ({min(seconds):.3f}-{max(seconds):.3f})   plusx takes "
            f"{statistics.median(ratios):.2f} times as long ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
