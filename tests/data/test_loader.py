"""The loader: ordered, bounded, honest about bad images, quick to stop."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plusx.data import (
    BadImage,
    Preprocessing,
    Sample,
    epoch_order,
    gather_facts,
    load_batches,
    read_image,
    unlabelled,
)
from plusx.data.ordered import map_ordered
from plusx.errors import UnreadableImage, UsageError


def samples(n: int) -> list[Sample]:
    return [Sample(f"{i}.png", i % 3 if i % 5 else None) for i in range(n)]


def read(sample: Sample, index: int) -> torch.Tensor:
    if index % 7 == 3:
        raise UnreadableImage(sample.path, f"bad {index}")
    time.sleep(0.002 * (index * 37 % 3))  # so that threads overtake each other
    return torch.full((1, 2, 2), float(index))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 60),
    batch_size=st.integers(1, 20),
    threads=st.integers(1, 5),
    prefetch=st.integers(1, 4),
)
def test_every_sample_once_in_order(n: int, batch_size: int, threads: int, prefetch: int) -> None:
    given_samples = samples(n)
    index: list[int] = []
    bad: list[BadImage] = []
    batches = list(
        load_batches(given_samples, read, batch_size=batch_size, threads=threads, prefetch=prefetch)
    )
    for number, batch in enumerate(batches):
        assert batch.images.dtype == torch.float32
        assert batch.targets.dtype == batch.index.dtype == torch.int64
        assert batch.images.shape[0] == len(batch.targets) == len(batch.index)
        first = number * batch_size
        assert len(batch.index) + len(batch.bad) == min(batch_size, n - first)
        assert all(first <= i < first + batch_size for i in batch.index.tolist())
        assert batch.images[:, 0, 0, 0].tolist() == batch.index.tolist()
        for i, target in zip(batch.index.tolist(), batch.targets.tolist(), strict=True):
            assert target == (-1 if given_samples[i].target is None else given_samples[i].target)
        index += batch.index.tolist()
        bad += batch.bad
    assert index == [i for i in range(n) if i % 7 != 3]
    assert bad == [BadImage(f"{i}.png", f"bad {i}") for i in range(n) if i % 7 == 3]


def test_a_batch_of_bad_images_is_empty_but_there() -> None:
    def fail(sample: Sample, index: int) -> torch.Tensor:
        if index >= 2:
            raise UnreadableImage(sample.path, "no")
        return torch.zeros(3, 4, 5)

    batches = list(load_batches(samples(6), fail, batch_size=2, threads=2))
    assert [tuple(b.images.shape) for b in batches] == [(2, 3, 4, 5), (0, 3, 4, 5), (0, 3, 4, 5)]
    assert [len(b.bad) for b in batches] == [0, 2, 2]
    none = list(load_batches(samples(1), lambda s, i: fail(s, 9), batch_size=2, threads=1))
    assert none[0].images.ndim == 4
    assert none[0].index.tolist() == []


def test_images_keep_their_memory_format() -> None:
    def wide(sample: Sample, index: int) -> torch.Tensor:
        return torch.arange(24.0).reshape(2, 4, 3).permute(2, 0, 1) + index

    batch = next(load_batches(samples(3), wide, batch_size=3, threads=1))
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch.images, torch.stack([wide(samples(1)[0], i) for i in range(3)]))


def test_images_of_two_sizes_do_not_make_a_batch() -> None:
    batches = load_batches(
        samples(2), lambda s, i: torch.zeros(1, 1, 1 + i), batch_size=2, threads=1
    )
    with pytest.raises(UsageError, match=r"\(1, 1, 1\) and \(1, 1, 2\)"):
        next(batches)


def test_an_endless_generator_is_drawn_only_as_far_as_needed() -> None:
    drawn = 0

    def endless() -> Iterator[Sample]:
        nonlocal drawn
        for i in itertools.count():
            drawn += 1
            yield Sample(f"{i}.png", 0)

    def quick(sample: Sample, index: int) -> torch.Tensor:
        return torch.zeros(1, 1, 1)

    batches = load_batches(endless(), quick, batch_size=10, threads=3, prefetch=2)
    assert drawn == 0
    for _ in range(50):
        next(batches)
    assert 500 <= drawn <= 500 + 2 * 10 + 10
    batches.close()  # type: ignore[attr-defined]


def threads_alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("plusx-data")]


@pytest.mark.parametrize("how", ["close", "forget", "fail"])
def test_stopping_early_stops_the_threads(how: str) -> None:
    started: list[int] = []

    def slow(sample: Sample, index: int) -> torch.Tensor:
        started.append(index)
        time.sleep(0.01)
        return torch.zeros(1, 1, 1)

    batches = load_batches(samples(10_000), slow, batch_size=4, threads=3, prefetch=8)
    next(batches)
    assert len(threads_alive()) == 3
    if how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "forget":
        del batches
    else:
        with pytest.raises(RuntimeError, match="consumer"):
            batches.throw(RuntimeError("consumer"))  # type: ignore[attr-defined]
    assert threads_alive() == []
    assert len(started) <= 4 + 8 * 4 + 8


def test_what_is_handed_over_ends_with_its_current_item() -> None:
    started: list[int] = []

    def slow(item: int) -> int:
        started.append(item)
        time.sleep(0.005)
        return item

    results = map_ordered(slow, range(1000), threads=2, ahead=400, chunk=100)
    assert next(results) == 0  # two hundred are done or nearly, two hundred more handed over
    done = len(started)
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= done + 2 + 10
    assert threads_alive() == []


def test_other_errors_are_raised_in_their_turn() -> None:
    def broken(sample: Sample, index: int) -> torch.Tensor:
        if index == 5:
            raise ZeroDivisionError("a bug")
        return torch.zeros(1, 1, 1)

    batches = load_batches(samples(50), broken, batch_size=5, threads=2)
    assert len(next(batches).index) == 5
    with pytest.raises(ZeroDivisionError):
        next(batches)
    assert threads_alive() == []


def test_an_error_of_the_samples_is_raised() -> None:
    def failing() -> Iterator[Sample]:
        yield from samples(5)
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(load_batches(failing(), lambda s, i: torch.zeros(1, 1, 1), batch_size=2, threads=2))
    assert threads_alive() == []


def test_torch_has_one_core_in_the_threads_and_all_outside() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = [
            int(value)
            for batch in load_batches(
                samples(20),
                lambda s, i: torch.full((1, 1, 1), float(torch.get_num_threads())),
                batch_size=4,
                threads=3,
            )
            for value in batch.images.flatten()
        ]
        outside = torch.get_num_threads()
        fresh: list[int] = []
        other = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        other.start()
        other.join()
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert outside == 3
    assert fresh == [3]


@pytest.mark.parametrize("name", ["batch_size", "threads", "prefetch"])
def test_values_below_one(name: str) -> None:
    values = {"batch_size": 2, "threads": 2, "prefetch": 2}
    for value in (0, 1.5):
        with pytest.raises(UsageError, match=f"{name} {value} must be a whole number of at least"):
            load_batches([], read, **(values | {name: value}))
    if name == "threads":
        with pytest.raises(UsageError, match="threads 0"):
            map_ordered(str, [1], threads=0, ahead=1)
        with pytest.raises(UsageError, match="threads 100000 must lie between 1 and 1024"):
            map_ordered(str, [1], threads=100_000, ahead=1)


def test_memory_stays_flat() -> None:
    """800 images of 1.2 MB: all at once they would be 980 MB."""
    code = """
import resource, torch
from plusx.data import Sample, load_batches
def read(sample, index): return torch.full((3, 320, 320), float(index))
def batches(n):
    made = (Sample(str(i), 0) for i in range(n))
    for batch in load_batches(made, read, batch_size=16, threads=2): pass
batches(64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batches(800)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr == ""
    assert int(run.stdout) < 200  # MiB


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_epoch_order_shares(n: int, world_size: int) -> None:
    shares = [epoch_order(n, seed=4, epoch=2, rank=r, world_size=world_size)
              for r in range(world_size)]  # fmt: skip
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share.dtype == np.int64 for share in shares)


def test_epoch_order_is_seeded() -> None:
    first = epoch_order(50, seed=1, epoch=0).tolist()
    np.random.seed(5)  # noqa: NPY002
    assert epoch_order(50, seed=1, epoch=0).tolist() == first != list(range(50))
    assert epoch_order(50, seed=1, epoch=1).tolist() != first
    assert epoch_order(50, seed=2, epoch=0).tolist() != first
    assert epoch_order(50, seed=-1, epoch=0).tolist() != first


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_rank_outside_the_world(rank: int, world_size: int) -> None:
    with pytest.raises(UsageError, match="rank"):
        epoch_order(5, seed=0, epoch=0, rank=rank, world_size=world_size)


def folder_of_images(folder: Path, n: int) -> Path:
    for i in range(n):
        path = folder / f"{i:03}.png"
        Image.fromarray(np.full((20, 30, 3), i, np.uint8)).save(path)
        if i % 10 == 4:
            path.write_bytes(path.read_bytes()[:40])
        if i % 10 == 5:
            path.write_bytes(b"")
    return folder


def test_files_to_batches(tmp_path: Path) -> None:
    listed = list(unlabelled(folder_of_images(tmp_path, 20)))
    p = Preprocessing(16, 16, mean=(0, 0, 0), std=(1, 1, 1))

    def decode(sample: Sample, index: int) -> torch.Tensor:
        return p(torch.from_numpy(read_image(sample.path)))

    batches = list(load_batches(iter(listed), decode, batch_size=8, threads=2))
    assert [tuple(b.images.shape) for b in batches] == [
        (6, 3, 16, 16),
        (6, 3, 16, 16),
        (4, 3, 16, 16),
    ]
    for batch in batches:
        values = (batch.images.mean(dim=(1, 2, 3)) * 255).round().long()
        assert torch.equal(values, batch.index)
        assert (batch.targets == -1).all()
    assert sorted(b.path for batch in batches for b in batch.bad) == [
        b.path for b in gather_facts([s.path for s in listed], processes=2).errors
    ]


def test_importing_the_room_is_cheap() -> None:
    code = (
        "import sys, plusx.data; print([m for m in ('torchvision', 'sklearn') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "[]\n"
