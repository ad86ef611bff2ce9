"""Runs that are killed at any moment end with the same weights, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import plusx
from plusx.errors import ArtifactError, DataError, UsageError
from plusx.jobs.lock import held
from plusx.jobs.run import read_config, write_config
from plusx.jobs.talk import Talk, Tick

PRELOADED = [
    "plusx.jobs.train", "torchvision.transforms.v2", "torch._dynamo", "torch.utils.tensorboard",
    "sklearn.metrics", "matplotlib.figure", "matplotlib.backends.backend_svg",
]  # fmt: skip
"""What takes seconds to import, once for all processes."""

STARTS = multiprocessing.get_context("forkserver")


class Killing(Talk):
    """Kills its process, as a power cut would, when a phase begins."""

    def __init__(self, phase: str) -> None:
        super().__init__(quiet=True)
        self._phase = phase

    @contextmanager
    def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
        with super().phase(label, total) as tick:
            if label.startswith(self._phase):
                os.kill(os.getpid(), signal.SIGKILL)
            yield tick


def work(data: Path, out: Path, options: dict[str, Any], die_in: str, cache: str) -> None:
    """What the process to kill does: train, or go on."""
    os.environ["XDG_CACHE_HOME"] = cache
    talk = Killing(die_in) if die_in else Talk(quiet=True)
    if (out / "config.toml").exists():
        plusx.resume(out, talk=talk)
    else:
        shutil.rmtree(out, ignore_errors=True)
        plusx.train(data, out=out, talk=talk, **options)


@pytest.fixture
def start(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ForkServerProcess]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where a process finds ``work``
    STARTS.set_forkserver_preload(PRELOADED)
    first = STARTS.Process(target=int)  # the server imports all of it before anything is timed
    first.start()
    first.join()

    def begin(out: Path, options: dict[str, Any], die_in: str = "") -> ForkServerProcess:
        cache = os.environ["XDG_CACHE_HOME"]
        process = STARTS.Process(target=work, args=(photos, out, options, die_in, cache))
        process.start()
        return process

    return begin


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "model.safetensors")


def same_end(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    ours, theirs = plusx.load(one).metrics, plusx.load(other).metrics
    figures = [[e["figures"] for e in m["evaluations"]] for m in (ours, theirs)]
    return all(a[name].equal(b[name]) for name in a) and figures[0] == figures[1]


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "probe": {"unfreeze": 0},
    "last 2": {"unfreeze": 2, "epochs": 3},
    "scratch": {"weights": "none", "model": "resnet8_cifar_a", "image_size": 32, "epochs": 3},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_kills_at_random_moments_change_nothing(
    name: str, start: Callable[..., ForkServerProcess], tiny_weights: Path, tmp_path: Path,
    quick: dict[str, Any],
) -> None:  # fmt: skip
    options = quick | {"weights": tiny_weights, "checkpoint_minutes": 0.0} | CONFIGURATIONS[name]
    options |= {"threads": 1, "neighbours": False, "thumbnails": False}
    began = time.monotonic()
    whole = start(tmp_path / "whole", options)
    whole.join()
    took = time.monotonic() - began
    assert whole.exitcode == 0
    moments = random.Random(name)
    for _ in range(2):
        process = start(tmp_path / "run", options)
        process.join(moments.uniform(0.1, 0.7) * took)
        process.kill()
        process.join()
    process = start(tmp_path / "run", options)
    process.join()
    assert process.exitcode == 0
    assert same_end(tmp_path / "run", tmp_path / "whole")


def test_a_kill_in_any_phase_is_made_good_and_finished_folds_stay(
    start: Callable[..., ForkServerProcess], tiny_weights: Path, tmp_path: Path,
    quick: dict[str, Any],
) -> None:  # fmt: skip
    options = quick | {"weights": tiny_weights, "unfreeze": 1, "epochs": 1, "folds": 2}
    options |= {"threads": 1, "neighbours": False, "thumbnails": False}
    whole, run = tmp_path / "whole", tmp_path / "run"
    start(whole, options).join()
    times = {}
    for phase in ("probe", "scoring fold 2", "scoring val"):
        process = start(run, options, phase)
        process.join()
        assert process.exitcode == -signal.SIGKILL, phase
        for kept in run.glob("folds/*/held.npz"):
            assert times.setdefault(kept, kept.stat().st_mtime_ns) == kept.stat().st_mtime_ns
    assert len(times) == 1
    start(run, options).join()
    assert same_end(run, whole)
    assert [path.name for path in run.glob("folds/*/*.npz")] == ["held.npz"] * 2


# What is refused, and what is said


@pytest.fixture
def halted(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> tuple[Path, Path]:
    """A run that stopped in its third epoch, and its data."""
    data = tmp_path / "photos"
    shutil.copytree(photos, data)

    class Interrupting(Talk):
        @contextmanager
        def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
            def tick(n: int, text: str = "") -> None:
                if text.startswith("epoch 3/"):
                    raise KeyboardInterrupt

            with super().phase(label, total):
                yield tick

    with pytest.raises(KeyboardInterrupt):
        plusx.train(data, weights=tiny_weights, out=tmp_path / "run",
                    talk=Interrupting(quiet=True), **quick)  # fmt: skip
    return tmp_path / "run", data


def test_changed_data_are_said_and_refused_unless_forced(halted: tuple[Path, Path]) -> None:
    run, data = halted
    kept = (run / "checkpoints" / "last.pt").read_bytes()
    shutil.copy(data / "train" / "across" / "000.png", data / "train" / "upright" / "more.png")
    with pytest.raises(UsageError, match=r"the data changed .*train 64 then, 65 now.*--force"):
        plusx.resume(run, talk=Talk(quiet=True))
    (data / "train" / "upright" / "more.png").unlink()
    other = data / "train" / "upright" / "001.png"
    shutil.copy(data / "train" / "across" / "001.png", other)
    with pytest.raises(UsageError, match="as many images, but other content"):
        plusx.resume(run, talk=Talk(quiet=True))
    assert (run / "checkpoints" / "last.pt").read_bytes() == kept
    talk = Talk(quiet=True)
    plusx.resume(run, force=True, talk=talk)
    assert any("gone on with all the same (--force)" in note for note in talk.notes)


def test_a_class_that_vanished_is_named(halted: tuple[Path, Path]) -> None:
    run, data = halted
    for split in ("train", "val"):
        (data / split / "upright").rename(data / split / "steep")
    for force in (False, True):
        with pytest.raises(DataError, match="'upright' gone, 'steep' new; put the data back"):
            plusx.resume(run, force=force, talk=Talk(quiet=True))
    assert (run / "checkpoints" / "last.pt").is_file()


def test_another_version_is_refused_and_another_machine_said(halted: tuple[Path, Path]) -> None:
    run, _ = halted
    config = read_config(run / "config.toml")
    config["versions"]["plusx"] = "0.0.1"
    write_config(run / "config.toml", config)
    with pytest.raises(UsageError, match=r"it began with plusx 0\.0\.1, and this is"):
        plusx.resume(run, talk=Talk(quiet=True))
    config["versions"] |= {"plusx": plusx.__version__, "torch": "2.0"}
    config["hardware"]["processor"] = "Pentium"
    write_config(run / "config.toml", config)
    talk = Talk(quiet=True)
    plusx.resume(run, talk=talk)
    said = next(note for note in talk.notes if "last bits" in note)
    assert "torch 2.0 (now " in said
    assert "processor Pentium (now " in said


def test_resume_works_from_another_folder_and_a_finished_run_is_given_back(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(photos.parent)
    where = os.path.relpath(tiny_weights)
    plusx.train(photos.name, weights=where, unfreeze=0, out=tmp_path / "run",
                talk=Talk(quiet=True), **quick)  # fmt: skip
    (tmp_path / "run" / "report.html").unlink()
    before = (tmp_path / "run" / "config.toml").read_bytes()
    monkeypatch.chdir(tmp_path)
    run = plusx.resume("run", talk=Talk(quiet=True))
    assert run.report_path.is_file()
    assert (tmp_path / "run" / "config.toml").read_bytes() == before
    again = plusx.resume("run")
    assert again.metrics == run.metrics
    assert "run: is finished: there is nothing to go on with" in capsys.readouterr().err


def test_a_second_process_on_a_run_is_refused(
    halted: tuple[Path, Path], tiny_weights: Path
) -> None:
    run, data = halted
    with held(run), pytest.raises(UsageError, match=f"another process .number {os.getpid()}"):
        plusx.resume(run, talk=Talk(quiet=True))
    with held(run), pytest.raises(UsageError, match="at work in this run"):
        plusx.train(data, weights=tiny_weights, out=run, overwrite=True, talk=Talk(quiet=True))
    with held(run):  # the lock of a process that is gone holds nobody up
        pass


def test_a_full_disk_within_training_keeps_the_checkpoint_before(halted: tuple[Path, Path]) -> None:
    import resource

    run, _ = halted
    last = run / "checkpoints" / "last.pt"
    kept = last.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(Talk):
        @contextmanager
        def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
            if label == "fine-tuning":
                resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, before[1]))
            with super().phase(label, total) as tick:
                yield tick

    try:
        with pytest.raises(ArtifactError, match=r"cannot be written: .*before it is kept"):
            plusx.resume(run, talk=Full(quiet=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert last.read_bytes() == kept
    assert plusx.resume(run, talk=Talk(quiet=True)).report_path.is_file()
