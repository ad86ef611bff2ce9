"""``torchrun -m plusx train``: one voice, the same end, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import plusx
from plusx.jobs.talk import Talk

OPTIONS = {
    "weights": "none", "model": "resnet8_cifar_a", "image_size": 32, "epochs": 2, "batch_size": 16,
    "optimizer": "sgd", "lr": 0.01, "label_smoothing": 0.0, "patience": 0, "device": "cpu",
    "precision": "float32", "threads": 1, "checkpoint_minutes": 0.0,
}  # fmt: skip


def launch(count: int, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone",
         f"--nproc-per-node={count}", "-m", "plusx", "train", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )  # fmt: skip


def given(options: dict[str, object]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def workers(launcher: int) -> list[int]:
    """The launcher's processes by rank."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [word[5:] for word in words if word.startswith(b"RANK=")]
        if parent == launcher and rank:
            found[int(rank[0])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="extra 'linux' absent")
def test_a_dead_process_ends_all_and_fewer_go_on_to_the_same_end(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = launch(2, photos, f"--out={out}", *given(OPTIONS))
    checkpoint = out / "checkpoints" / "before.pt"
    for _ in range(12_000):
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode != 0
    assert err.count("error: another process of this training ended, so all stop") <= 1
    ours = err[: err.index("ChildFailedError")] if "ChildFailedError" in err else err
    assert "plusx/fit" not in ours  # no traceback of ours
    assert err.count(f"to go on: plusx train --resume {out}") == 1
    state = torch.load(out / "checkpoints" / "last.pt")
    assert (state["position"]["epoch"], state["position"]["step"]) < (3, 0)

    process = launch(2, f"--resume={out}")
    said, err = process.communicate()
    assert process.returncode == 0, err
    assert said.count("report:") == 1
    assert err.count("audit: ") == 1
    talk = Talk(quiet=True)
    one = plusx.train(photos, out=tmp_path / "one", talk=talk, **OPTIONS)
    assert [e["figures"]["top1"] for e in plusx.load(out).metrics["evaluations"]] == [
        e["figures"]["top1"] for e in one.metrics["evaluations"]
    ]
    ours, theirs = (torch.load(run / "checkpoints" / "last.pt") for run in (out, one.path))
    for name, value in ours["net"].items():
        torch.testing.assert_close(value, theirs["net"][name], atol=1e-4, rtol=0)


def test_an_error_is_said_once(photos: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path / "none",), "none: does not exist"),
        ((photos, *given(OPTIONS | {"batch_size": 1})), "2 processes share the images of a step"),
    ):
        process = launch(2, *arguments, f"--out={tmp_path / 'run'}")
        _, err = process.communicate()
        assert process.returncode != 0
        assert err.count("error: ") == 1, err
        assert said in err
        assert not (tmp_path / "run").exists()
