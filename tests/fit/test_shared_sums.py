"""Sums through shared memory: right, the same in all processes, and nobody waits for the dead."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from plusx.fit import shared_sums
from plusx.fit.shared_sums import CHUNK, LINE, SharedSums, reserve

STARTS = multiprocessing.get_context("forkserver")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """For three processes."""
    found = tmp_path / "sums"
    found.write_bytes(bytes(3 * (LINE + 2 * CHUNK)))
    return found


def numbers(rank: int, dtype: torch.dtype, n: int) -> torch.Tensor:
    drawn = torch.randn(n, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    return (1000 * drawn).to(dtype)


def adds(file: Path, rank: int, size: int, said: Connection) -> None:
    mine = SharedSums(file, rank, size)
    found: list[torch.Tensor] = []
    for dtype in shared_sums.TYPES:
        for n in (1, 257, 3 * CHUNK // 8 + 5):
            found.append(numbers(rank, dtype, n))
            mine.add_up(found[-1])
    for turn in range(300):  # quickly one after the other
        found.append(torch.tensor([float(turn * rank)]))
        mine.add_up(found[-1])
    said.send([one.numpy() for one in found])


def waits(file: Path, rank: int, how: str, said: Connection) -> None:
    mine = SharedSums(file, rank, 2)
    one = torch.ones(1)
    mine.add_up(one)
    if rank == 0:
        said.send(float(one))
        if how == "leaves":
            mine.leave()
        signal.pause()
    try:
        mine.add_up(one)
    except RuntimeError as error:
        said.send(str(error))


def start(target: Any, *args: Any) -> tuple[Any, Connection]:
    ours, theirs = STARTS.Pipe()
    process = STARTS.Process(target=target, args=(*args, theirs), daemon=True)
    process.start()
    return process, ours


@pytest.mark.parametrize("size", [2, 3])
def test_sums_are_right_and_the_same_everywhere(file: Path, size: int) -> None:
    members = [start(adds, file, rank, size) for rank in range(size)]
    found = [said.recv() for _, said in members]
    at = 0
    for dtype in shared_sums.TYPES:
        for n in (1, 257, 3 * CHUNK // 8 + 5):
            wanted = sum(numbers(rank, dtype, n).double() for rank in range(size))
            got = torch.from_numpy(found[0][at])
            assert got.dtype == dtype
            torch.testing.assert_close(got.double(), wanted, atol=1e-3, rtol=1e-6)
            at += 1
    assert [one.item() for one in found[0][at:]] == [t * sum(range(size)) for t in range(300)]
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("how", ["killed", "leaves"])
def test_nobody_waits_for_who_is_gone(file: Path, how: str) -> None:
    first, said = start(waits, file, 0, how)
    _, other = start(waits, file, 1, how)
    assert said.recv() == 2.0
    if how == "killed":
        os.kill(first.pid, signal.SIGKILL)  # and nobody reaps it yet
    assert other.poll(60)
    assert other.recv() == "process 0 is gone"
    first.kill()


def test_other_kinds_are_left_to_gloo(file: Path) -> None:
    mine = SharedSums(file, 0, 1)
    assert mine.takes(torch.zeros(2, 3))
    assert not mine.takes(torch.zeros(2, 3).T)
    assert not mine.takes(torch.zeros(2, dtype=torch.bfloat16))
    assert not mine.takes(torch.zeros(2, device="meta"))


def test_memory_is_reserved_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shared_sums, "MEMORY", tmp_path)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    found = reserve(2)
    assert found is not None
    assert found.parent == tmp_path
    assert found.stat().st_size == 2 * (LINE + 2 * CHUNK)
    assert found.stat().st_mode & 0o077 == 0


def test_where_there_is_no_room_there_is_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_sums, "MEMORY", tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert reserve(2) is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(shared_sums, "MEMORY", tmp_path / "absent")
    assert reserve(2) is None
    monkeypatch.undo()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert reserve(2) is None
