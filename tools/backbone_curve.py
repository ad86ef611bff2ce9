"""The bundled backbone's transfer curve: River against Highway at 10, 30 and 100 tiles per class.

    python tools/backbone_curve.py --eurosat EuroSAT/2750

Both classes are absent from the backbone's training data. For each number of tiles and each seed,
the same tiles train

- ``default``: ``plusx train TILES --weights bundled`` (a probe, then the last two blocks)
- ``probe``: the same with ``--unfreeze 0``
- ``scratch``: ``plusx train TILES --model plusx_small --weights none``

and 1,000 other tiles of each class test it. Neither are among the tiles on which the choices for
the backbone were measured (``DEVELOPMENT``) nor in the bundled sample (``SAMPLE``).

Writes ``curve.json`` (every run, and their summary), ``curve.svg`` and the table in the model
card. Runs that stand in ``curve.json`` already are not run again; delete it for other weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from scipy.stats import t as student

import plusx
from plusx.jobs.talk import Talk

CLASSES = ("River", "Highway")
SAMPLE, DEVELOPMENT, TEST = 100, 1_000, 1_000  # tiles per class
SIZES = (10, 30, 100)  # tiles per class
ARMS: dict[str, dict[str, Any]] = {
    "default": {"weights": "bundled"},
    "probe": {"weights": "bundled", "unfreeze": 0},
    "scratch": {"model": "plusx_small", "weights": "none"},
}
BUNDLED = Path(__file__).parents[1] / "src" / "plusx" / "weights" / "bundled"


def partition(folder: Path, label: int) -> dict[str, list[Path]]:
    """The tiles of ``CLASSES[label]`` as ``sample``, ``development`` and ``report``.

    Files are put in the order of their number and shuffled by numpy's default generator, seeded
    with (7, label).
    """
    name = CLASSES[label]
    files = sorted((folder / name).glob("*.jpg"), key=lambda file: int(file.stem.split("_")[1]))
    order = np.random.default_rng([7, label]).permutation(len(files))
    shuffled = [files[i] for i in order]
    seen = SAMPLE + DEVELOPMENT
    return {
        "sample": shuffled[:SAMPLE],
        "development": shuffled[SAMPLE:seen],
        "report": shuffled[seen:],
    }


def draw(folder: Path, seed: int) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """For one seed, the tiles to train on (the first n of each class) and those to test on."""
    train, test = {}, {}
    for label, name in enumerate(CLASSES):
        files = partition(folder, label)["report"]
        order = np.random.default_rng([11, label, seed]).permutation(len(files))
        shuffled = [files[i] for i in order]
        train[name] = shuffled[: max(SIZES)]
        test[name] = shuffled[max(SIZES) : max(SIZES) + TEST]
    return train, test


def lay_out(tiles: dict[str, list[Path]], root: Path, most: int) -> Path:
    """Copy the first ``most`` tiles of each class to ``root/<class>/``."""
    for name, files in tiles.items():
        (root / name).mkdir(parents=True)
        for file in files[:most]:
            shutil.copyfile(file, root / name / file.name)
    return root


def run_seed(folder: Path, seed: int, runs: list[dict[str, Any]], save: Any) -> None:
    """Train and test every arm at every size that ``runs`` lacks for this seed."""
    done = {(run["size"], run["arm"]) for run in runs if run["seed"] == seed}
    todo = [(size, arm) for size in SIZES for arm in ARMS if (size, arm) not in done]
    if not todo:
        return
    train, test = draw(folder, seed)
    with tempfile.TemporaryDirectory() as scratch:
        tested = lay_out(test, Path(scratch) / "test", TEST)
        for size in sorted({size for size, _ in todo}):
            lay_out(train, Path(scratch) / f"train{size}", size)
        for size, arm in todo:
            data, out = Path(scratch) / f"train{size}", Path(scratch) / f"run-{size}-{arm}"
            talk = Talk(quiet=True)
            run = plusx.train(data, out=str(out), seed=seed, talk=talk, **ARMS[arm])
            predicted = run.evaluate(tested, talk=talk).predictions
            right = predicted.logits.argmax(1) == predicted.targets
            top1 = float(np.mean(right))
            ships = json.loads((run.model_path / "config.json").read_text())["plusx"]
            runs.append(
                {
                    "size": size,
                    "seed": seed,
                    "arm": arm,
                    "top1": round(top1, 4),
                    "tested": len(right),
                    "ships": ships.get("provenance", {}).get("ships"),
                }
            )
            print(f"seed {seed}, {size} per class, {arm}: {top1:.4f}", flush=True)
            save()


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per size: mean and standard deviation of each arm over seeds; paired differences from
    scratch with Student's 95% interval."""
    rows = []
    for size in SIZES:
        of = {
            arm: {r["seed"]: r["top1"] for r in runs if r["size"] == size and r["arm"] == arm}
            for arm in ARMS
        }
        seeds = sorted(set.intersection(*(set(values) for values in of.values())))
        if len(seeds) < 2:
            continue
        row: dict[str, Any] = {"size": size, "seeds": len(seeds)}
        for arm, values in of.items():
            found = [values[seed] for seed in seeds]
            row[arm] = {"mean": statistics.fmean(found), "sd": statistics.stdev(found)}
        for arm in ("default", "probe"):
            gains = [of[arm][seed] - of["scratch"][seed] for seed in seeds]
            half = statistics.stdev(gains) / len(seeds) ** 0.5
            half *= float(student.ppf(0.975, len(seeds) - 1))
            mean = statistics.fmean(gains)
            row[f"{arm}_gain"] = {"value": mean, "low": mean - half, "high": mean + half}
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The summary as a Markdown table, in percent."""
    lines = [
        "| tiles per class | default command | probe alone | from scratch "
        "| default − scratch (95%) | probe − scratch (95%) |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['size']}"]
        cells += [f"{100 * row[a]['mean']:.1f} ± {100 * row[a]['sd']:.1f}" for a in ARMS]
        for arm in ("default", "probe"):
            gain = row[f"{arm}_gain"]
            low, high = 100 * gain["low"], 100 * gain["high"]
            cells.append(f"{100 * gain['value']:+.1f} ({low:+.1f} to {high:+.1f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_curve(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Mean top-1 with a bar of one standard deviation for each arm."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "plusx"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for arm, marker in zip(ARMS, "os^", strict=True):
        means = [100 * row[arm]["mean"] for row in rows]
        spread = [100 * row[arm]["sd"] for row in rows]
        sizes = [row["size"] for row in rows]
        axes.errorbar(sizes, means, spread, marker=marker, capsize=3, label=arm)
    axes.set_xscale("log")
    axes.set_xticks([row["size"] for row in rows], [str(row["size"]) for row in rows])
    axes.minorticks_off()
    axes.set_xlabel("tiles per class")
    axes.set_ylabel("top-1 on 2,000 other tiles, %")
    axes.set_title("River against Highway")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def fill_card(card: Path, text: str) -> None:
    """Put the table between the card's markers."""
    start, end = "<!-- curve -->", "<!-- /curve -->"
    before, _, rest = card.read_text(encoding="utf-8").partition(start)
    _, _, after = rest.partition(end)
    card.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def read_runs(path: Path, weights: str) -> list[dict[str, Any]]:
    """The runs that ``path`` holds already."""
    if not path.is_file():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["weights_sha256"] != weights:
        raise SystemExit(f"{path}: is of other weights; delete it")
    runs: list[dict[str, Any]] = found["runs"]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--eurosat", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--out", type=Path, default=BUNDLED)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = hashlib.sha256((BUNDLED / "plusx_small.safetensors").read_bytes()).hexdigest()
    path = options.out / "curve.json"
    runs = read_runs(path, weights)

    def save() -> None:
        found = {"weights_sha256": weights, "summary": summary(runs), "runs": runs}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")

    for seed in range(options.seeds):
        run_seed(options.eurosat, seed, runs, save)
    rows = summary(runs)
    print(table(rows))
    draw_curve(rows, options.out / "curve.svg")
    fill_card(options.out / "README.md", table(rows))


if __name__ == "__main__":
    main()
