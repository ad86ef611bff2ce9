"""``torchrun -m plusx train``: one voice, the same end, and nobody waits for the dead."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import plusx
from plusx.jobs.talk import Talk

OPTIONS = {
    "weights": "none", "model": "resnet8_cifar_a", "image_size": 32, "epochs": 2, "batch_size": 16,
    "optimizer": "sgd", "lr": 0.01, "label_smoothing": 0.0, "patience": 0, "device": "cpu",
    "precision": "float32", "threads": 1, "checkpoint_minutes": 0.0,
}  # fmt: skip


def given(options: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def begin(words: list[str], **environment: object) -> subprocess.Popen[str]:
    usual = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | usual | {name: str(value) for name, value in environment.items()},
    )  # fmt: skip


def torchrun(count: int, *arguments: object) -> subprocess.Popen[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return begin([*launcher, "-m", "plusx", "train", *map(str, arguments)])


def bare(count: int, *arguments: object) -> list[subprocess.Popen[str]]:
    """The processes without a launcher that would end them all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        begin(["plusx", "train", *map(str, arguments)], RANK=rank, WORLD_SIZE=count,
              LOCAL_RANK=rank, LOCAL_WORLD_SIZE=count, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(count)
    ]  # fmt: skip


def trained(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints" / "last.pt")
    return dict(state["net"])


def test_a_dead_process_ends_all_and_fewer_go_on_to_the_same_end(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first, second = bare(2, photos, f"--out={out}", *given(OPTIONS))
    checkpoint = out / "checkpoints" / "before.pt"
    for _ in range(12_000):
        if checkpoint.exists() or first.poll() is not None:
            break
        time.sleep(0.01)
    assert first.poll() is None, first.communicate()
    second.send_signal(signal.SIGKILL)
    _, err = first.communicate()
    assert second.communicate() == ("", "")
    assert first.returncode == 2
    assert err.splitlines()[-2] == f"to go on: plusx train --resume {out}"
    assert err.splitlines()[-1].startswith("error: another process of this training ended")
    state = torch.load(out / "checkpoints" / "last.pt")
    assert (state["position"]["epoch"], state["position"]["step"]) < (3, 0)

    talk = Talk(quiet=True)
    run = plusx.resume(out, talk=talk)
    assert any("processes 2 (now 1)" in note for note in talk.notes)
    one = plusx.train(photos, out=tmp_path / "one", talk=Talk(quiet=True), **OPTIONS)
    found, wanted = trained(run.path), trained(one.path)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=0)
    assert run.top1 == one.top1


def test_torchrun_trains_last_blocks_as_one_process_does_and_speaks_once(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    options = quick | {"weights": tiny_weights, "optimizer": "sgd", "lr": 0.01, "epochs": 2}
    out = tmp_path / "run"
    process = torchrun(2, photos, f"--out={out}", *given(options))
    said, err = process.communicate()
    assert process.returncode == 0, err
    assert said.count("report:") == 1
    assert err.count("audit: ") == 1
    one = plusx.train(photos, out=tmp_path / "one", talk=Talk(quiet=True), **options)
    for name, value in trained(one.path).items():
        torch.testing.assert_close(trained(out)[name], value, atol=1e-4, rtol=0)
    ours, theirs = (plusx.load(run).metrics["evaluations"] for run in (out, one.path))
    assert [e["figures"]["top1"] for e in ours] == [e["figures"]["top1"] for e in theirs]


def test_an_error_is_said_once(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    members = bare(2, photos, f"--out={out}", *given(OPTIONS | {"batch_size": 1}))
    said = [member.communicate()[1] for member in members]
    assert {member.returncode for member in members} == {2}
    assert "".join(said).count("error: ") == 1, said
    assert "2 processes share the images of a step" in "".join(said)
    assert not out.exists()
