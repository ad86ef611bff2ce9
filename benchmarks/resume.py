"""Twenty kills at random moments over five configurations: does every run end as if never killed?

    python benchmarks/resume.py [--kills 4] [--seed 0] [--only "last 2"]

Each configuration is trained once without a stop, then once more and killed (SIGKILL, all of its
processes) at ``--kills`` random moments between its start and the time that the whole run took,
each time resumed with ``plusx train --resume``. Then it goes on to its end. Weights, history and
figures of both are compared bit for bit. Images are drawn, so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

SCRATCH = ["--weights=none", "--model=resnet8_cifar_a", "--image-size=32"]
CONFIGURATIONS: dict[str, tuple[int, list[str]]] = {
    "probe": (1, ["--unfreeze=0"]),
    "last 2": (1, ["--unfreeze=2"]),
    "all": (1, ["--unfreeze=all"]),
    "scratch": (1, SCRATCH),
    "2 processes": (2, SCRATCH),
}
"""Name -> number of processes, options."""

COMMON = ["--epochs=60", "--batch-size=16", "--patience=0", "--device=cpu", "--precision=float32",
          "--threads=1", "--checkpoint-minutes=0", "--no-thumbnails"]  # fmt: skip


def draw(folder: Path) -> Path:
    """Striped pictures of two classes below ``folder``."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 48), ("val", 24)):
        for name in ("across", "upright"):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                wave = ((np.arange(32) + rng.integers(8)) // 4 % 2 * 2 - 1) * 40.0
                wave = wave[:, None, None] if name == "across" else wave[None, :, None]
                pixels = rng.integers(40, 216, (32, 32, 3)) + wave
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(place / f"{number:03}.png")
    return folder


def begin(processes: int, arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start ``plusx train``, in a process group of its own."""
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    words = [sys.executable, "-m", *(launcher if processes > 1 else []), "plusx", "train"]
    return subprocess.Popen([*words, *arguments], stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip


def family(pid: int) -> list[int]:
    """A process and all below it."""
    below = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    if below.exists():
        for child in below.read_text().split():
            found += family(int(child))
    return found


def kill(process: subprocess.Popen[bytes]) -> None:
    """All of its processes at once."""
    for pid in family(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def history(run: Path) -> list[list[str]]:
    """Rows of history.csv without times."""
    if not (run / "history.csv").exists():
        return []
    with (run / "history.csv").open(newline="") as file:
        return [row[:5] for row in csv.reader(file)]


def same(one: Path, other: Path) -> bool:
    """Whether two runs ended alike, bit for bit."""
    a, b = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    figures = [[e["figures"] for e in json.loads((run / "metrics.json").read_text())["evaluations"]]
               for run in (one, other)]  # fmt: skip
    weights = a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)
    return weights and history(one) == history(other) and figures[0] == figures[1]


def where(run: Path) -> str:
    """How far a killed run came."""
    if not (run / "config.toml").exists():
        return "before the run folder"
    if (run / "model").exists():
        return "assessing"
    if (run / "checkpoints" / "last.pt").exists():
        return f"epoch {max(1, len(history(run)) - 1)}"
    return "before the first step"


def measure(name: str, base: Path, data: Path, kills: int, moments: random.Random) -> bool:
    """One configuration; prints a row of the table."""
    processes, options = CONFIGURATIONS[name]
    weights = [] if "--weights=none" in options else ["--weights", str(base / "backbone" / "model")]
    whole, run = base / name / "whole", base / name / "run"
    asked = [str(data), *COMMON, *options, *weights]
    began = time.monotonic()
    process = begin(processes, [*asked, f"--out={whole}"])
    said = process.communicate()[1].decode()
    took = time.monotonic() - began
    if process.returncode:
        raise SystemExit(said)
    places: list[str] = []
    alike = True
    while True:
        if (run / "config.toml").exists():
            process = begin(processes, [f"--resume={run}"])
        else:
            shutil.rmtree(run, ignore_errors=True)
            process = begin(processes, [*asked, f"--out={run}"])
        if len(places) == kills:  # the last goes to the end
            said = process.communicate()[1].decode()
            if process.returncode:
                raise SystemExit(said)
            break
        until = time.monotonic() + moments.uniform(0.1, 0.7) * took
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            kill(process)
            places.append(where(run))
        else:  # done before it could be killed: not counted, and begun anew
            process.communicate()
            alike = alike and same(whole, run)
            shutil.rmtree(run)
    alike = alike and same(whole, run)
    verdict = "identical" if alike else "DIFFERENT"
    print(f"| {name} | {took:.0f} | {', '.join(places)} | {verdict} |", flush=True)
    return alike


def main() -> None:
    """Print the table; the exit code is 1 where a run ended otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=CONFIGURATIONS)
    asked = parser.parse_args()
    moments = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        data = draw(base / "photos")
        backbone = ["--epochs=1", "--out", str(base / "backbone"), *COMMON[1:], *SCRATCH]
        begin(1, [str(data), *backbone]).communicate()
        print("| configuration | seconds unbroken | killed in | end |\n|---|---|---|---|")
        alike = [measure(name, base, data, asked.kills, moments)
                 for name in asked.only or CONFIGURATIONS]  # fmt: skip
    raise SystemExit(0 if all(alike) else 1)


if __name__ == "__main__":
    main()
