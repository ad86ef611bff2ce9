from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from plusx.data import gather_facts


def folder_of_images(folder: Path, n: int) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        path = folder / f"{i:03}.png"
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(path)
        if i % 10 == 4:
            path.write_bytes(path.read_bytes()[:400])
        if i % 10 == 5:
            path.write_bytes(b"")
        paths.append(str(path))
    return paths


def test_the_unreadable_are_listed_in_order(tmp_path: Path) -> None:
    told: list[int] = []
    paths = folder_of_images(tmp_path, 40)
    table = gather_facts(iter(paths), processes=2, tick=told.append)
    assert [Path(b.path).name for b in table.errors] == [
        f"{i:03}.png" for i in range(40) if i % 10 in (4, 5)
    ]
    assert {b.reason for b in table.errors if b.path.endswith("5.png")} == {"is empty (0 bytes)"}
    assert {b.reason for b in table.errors if b.path.endswith("4.png")} == {
        "is truncated (the end of the file is missing)"
    }
    assert told == [1] * 40
    assert list(table.paths) == paths
    assert gather_facts([], processes=1).errors == []


def test_channels_are_minded(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    paths = [str(tmp_path / "x.png")]
    assert gather_facts(paths, processes=1).errors == []
    assert "expected 4" in gather_facts(paths, processes=1, channels=4).errors[0].reason


def test_neither_reading_facts_nor_its_workers_load_torch() -> None:
    code = (
        "import sys, plusx.data.fact_reading, plusx.data.facts_cache, plusx.data.duplicates; "
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr
