"""Runs that stop, fail, or find their place taken."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import plusx
from plusx.data import read_listing, split_listing
from plusx.errors import ArtifactError, PlusxError, UsageError
from plusx.jobs.fitting import out_of_memory, smaller_steps
from plusx.jobs.options import TrainOptions
from plusx.jobs.run import read_config, run_folder
from plusx.jobs.setup import prepare
from plusx.jobs.talk import Talk, Tick

LONG = {"epochs": 30, "patience": 0}


class Interrupting(Talk):
    """Presses Ctrl-C in a phase, when the text beside the bar begins as given."""

    def __init__(self, phase: str, text: str = "") -> None:
        super().__init__(quiet=True)
        self._phase, self._text = phase, text

    @contextmanager
    def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
        def tick(n: int, text: str = "") -> None:
            if label == self._phase and text.startswith(self._text):
                raise KeyboardInterrupt

        with super().phase(label, total):
            yield tick


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(path / "model" / "model.safetensors") for path in (one, other))
    return all(a[name].equal(b[name]) for name in a)


def rows(run: Path) -> list[str]:
    """The lines of history.csv without the times."""
    lines = (run / "history.csv").read_text().splitlines()
    return [",".join(line.split(",")[:5]) for line in lines]


def test_an_interrupted_run_goes_on_to_the_same_end(
    finished: plusx.Run, photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        plusx.train(photos, weights=tiny_weights, out=out, **quick,
                    talk=Interrupting("fine-tuning", "epoch 4"))  # fmt: skip
    assert len(rows(out)) == 1 + 4
    assert not (out / "cache").exists()
    run = plusx.resume(out, talk=Talk(quiet=True))
    assert same_weights(run.path, finished.path)
    assert rows(out) == rows(finished.path)
    ours, theirs = (r.metrics["evaluations"] for r in (run, finished))
    assert [e["figures"] for e in ours] == [e["figures"] for e in theirs]


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if (out / "history.csv").exists() and len(rows(out)) >= count + 1:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("no progress")


def test_ctrl_c_and_a_kill_lose_nothing(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    out, options = tmp_path / "run", quick | LONG
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    first = ["train", str(photos), f"--weights={tiny_weights}", f"--out={out}", *given]
    went_on = ["train", f"--resume={out}"]
    for arguments, stop, count in ((first, signal.SIGINT, 3), (went_on, signal.SIGKILL, 6)):
        process = subprocess.Popen(
            [sys.executable, "-m", "plusx", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        wait_for_rows(out, count, process)
        process.send_signal(stop)
        _, err = process.communicate()
        if stop == signal.SIGINT:
            assert process.returncode == 130
            assert err.splitlines()[-2:] == [
                f"to go on: plusx train --resume {out}",
                "interrupted",
            ]
            assert "Traceback" not in err
    done = len(rows(out))
    assert done < 1 + 31  # else there was nothing to go on with
    run = plusx.resume(out, talk=Talk(quiet=True))
    whole = plusx.train(photos, weights=tiny_weights, out=tmp_path / "whole",
                        talk=Talk(quiet=True), **options)  # fmt: skip
    assert rows(out) == rows(whole.path)
    assert same_weights(run.path, whole.path)


def test_what_cannot_be_gone_on_with_is_refused(
    finished: plusx.Run, tiny_weights: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"nothing'?: is no run \(it has no config\.toml\)"):
        plusx.resume(tmp_path / "nothing")
    imported = plusx.import_weights(tiny_weights, tmp_path / "imported", talk=Talk(quiet=True))
    with pytest.raises(UsageError, match="is no training run"):
        plusx.resume(imported.path)
    half = tmp_path / "half"
    half.mkdir()
    for text, said in (("[asked", "cannot be read"), ("[asked]\nepochs = 3", "is damaged: lacks")):
        (half / "config.toml").write_text(text)
        with pytest.raises(ArtifactError, match=rf"config\.toml: {said}"):
            plusx.resume(half)
    other = tmp_path / "other"
    shutil.copytree(finished.path, other)
    (other / "report.html").unlink()
    config = (other / "config.toml").read_text()
    digest = read_config(other / "config.toml")["network"]["sha256"]
    (other / "config.toml").write_text(config.replace(digest, "0" * 64))
    with pytest.raises(UsageError, match="not the weights that the run began with"):
        plusx.resume(other)
    assert same_weights(other, finished.path)


# Folders


@pytest.fixture
def probe(photos: Path, tiny_weights: Path, quick: dict[str, Any]) -> Callable[..., plusx.Run]:
    def call(**options: Any) -> plusx.Run:
        usual = quick | {"weights": tiny_weights, "unfreeze": 0, "talk": Talk(quiet=True)}
        return plusx.train(photos, **(usual | options))

    return call


def test_runs_are_numbered_and_never_overwritten(
    probe: Callable[..., plusx.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [probe().path.as_posix() for _ in range(2)] == ["runs/photos-1", "runs/photos-2"]


@pytest.mark.parametrize(
    ("data", "name"),
    [("photos/", "photos"), ("photos.v2", "photos.v2"), ("a/list.CSV", "list"), ("/", "run"),
     ("link", "link"), ("photos/sub/..", "photos")],
)  # fmt: skip
def test_a_run_is_named_as_the_user_names_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos")
    with run_folder(None, data, overwrite=False, resume=False) as folder:
        assert folder.as_posix() == f"runs/{name}-1"


def test_a_taken_folder_is_refused_and_a_run_replaced_when_asked(
    probe: Callable[..., plusx.Run], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = probe(out=out)
    (out / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="exists already; give another name, or --overwrite"):
        probe(out=out)
    assert (out / "mine.txt").exists()
    second = probe(out=out, overwrite=True, seed=1)
    assert second.metrics != first.metrics
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("stops", ["features", "fine-tuning"])
def test_the_old_run_stays_when_the_new_one_fails(
    probe: Callable[..., plusx.Run], tmp_path: Path, stops: str
) -> None:
    out = tmp_path / "run"
    before = probe(out=out).metrics
    with pytest.raises(KeyboardInterrupt):
        probe(out=out, overwrite=True, unfreeze=1, talk=Interrupting(stops))
    assert plusx.load(out).metrics == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "content", [{"photo.jpg": "x"}, {"config.toml": "[site]\ntitle = 'mine'\n"},
                {"config.toml": "not toml ["}]
)  # fmt: skip
def test_what_is_no_run_is_never_overwritten(
    probe: Callable[..., plusx.Run], tmp_path: Path, content: dict[str, str]
) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    for name, text in content.items():
        (out / name).write_text(text)
    with pytest.raises(UsageError, match="holds no run of plusx, so it is not overwritten"):
        probe(out=out, overwrite=True)
    assert {path.name: path.read_text() for path in out.iterdir()} == content


def test_a_run_that_fails_leaves_no_half_folder(
    probe: Callable[..., plusx.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ({"out": tmp_path / "run"}, {}):
        with pytest.raises(KeyboardInterrupt):
            probe(**options, unfreeze=2, talk=Interrupting("fine-tuning", "epoch 1"))
    with pytest.raises(PlusxError, match="smaller --lr"):
        probe(unfreeze=2, optimizer="sgd", lr=1e30, epochs=1)
    assert [str(path) for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (tmp_path / "run").exists()


# Out of memory


def test_out_of_memory_is_recognised() -> None:
    import torch

    words = ("CUDA out of memory. Tried to allocate 2 GiB",
             "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you "
             "tried to allocate 99 bytes", "MPS backend out of memory")  # fmt: skip
    assert all(out_of_memory(RuntimeError(text)) for text in words)
    assert out_of_memory(MemoryError())
    assert out_of_memory(torch.OutOfMemoryError("x"))
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not out_of_memory(UsageError("take too much memory: out of memory"))


def test_a_real_allocation_failure_is_recognised() -> None:
    import torch

    with pytest.raises((RuntimeError, MemoryError)) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(failed.value)


def test_smaller_steps_are_said_and_decide_on_batchnorm_anew(photos: Path) -> None:
    talk = Talk(quiet=True)
    options = TrainOptions.of(photos, weights="none", model="resnet8_cifar_a", batch_size=20)
    setup = prepare(options, talk)
    assert (setup.recipe.batch_size, setup.recipe.norm) == (20, "train")
    smaller = smaller_steps(setup, talk)
    assert (smaller.recipe.batch_size, smaller.recipe.norm) == (10, "eval")
    assert "out of memory at 20 images a step: going on with 10" in talk.notes
    assert any("10 images a step are too few" in note for note in talk.notes)


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "--epochs 0 must be at least 1"),
        ({"epochs": "3"}, "--epochs '3' must be a whole number"),
        ({"batch_size": 1.5}, "--batch-size 1.5 must be a whole number"),
        ({"folds": 1}, "--folds 1 must be at least 2"),
        ({"val_fraction": 1.0}, "--val-fraction 1.0"),
        ({"val_fraction": "0.2"}, "--val-fraction '0.2' must be a number"),
        ({"lr": "1e-3"}, "--lr '1e-3' must be a number"),
        ({"weight_decay": None}, "--weight-decay None must be a number"),
        ({"batch_size": None}, "--batch-size None must be a whole number"),
        ({"weights": None}, "--weights None must be a name"),
        ({"device": None}, "--device None must be a name"),
        ({"cache_gib": float("inf")}, "--cache-gib inf"),
        ({"cache_gib": float("nan")}, "--cache-gib nan"),
        ({"checkpoint_minutes": -1.0}, "--checkpoint-minutes -1.0 must be at least 0"),
        ({"checkpoint_minutes": "5"}, "--checkpoint-minutes '5' must be a number"),
        ({"norm": "batch"}, "--norm 'batch' is not one of"),
        ({"class_weights": "some"}, "--class-weights 'some' is not one of"),
        ({"precision": "float16"}, "--precision 'float16' is not one of"),
        ({"unfreeze": -1}, "--unfreeze -1"),
        ({"unfreeze": "two"}, "--unfreeze two"),
        ({"weights": "none", "unfreeze": 2}, "would freeze random weights"),
        ({"seed": 2**63}, f"--seed {2**63} must be at most"),
        ({"threads": 10**20}, f"--threads {10**20} must be at most 1024"),
        ({"image_size": 10**20}, f"--image-size {10**20} must be at most 16384"),
        ({"channels": 10**20}, f"--channels {10**20} must be at most 1024"),
        ({"out": ""}, "--out '': is an empty name"),
        ({"lr": 0.0}, "--lr 0.0 must be above 0"),
        ({"lr": -1.0}, "--lr -1.0 must be above 0"),
        ({"optimizer": "adam"}, "--optimizer 'adam' must be adamw, sgd or lamb"),
        ({"unfreeze": 4}, "--unfreeze 4: tiny has 3 blocks"),
        ({"batch_size": 1, "norm": "train"}, "--norm train: one image a step"),
        ({"device": "abacus"}, "--device 'abacus'"),
    ],
)  # fmt: skip
def test_an_impossible_option_is_named_before_anything_is_written(
    photos: Path, tiny_weights: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    given = {"weights": tiny_weights, "out": tmp_path / "run", "talk": Talk(quiet=True)} | options
    with pytest.raises(UsageError) as refused:
        plusx.train(photos, **given)
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_an_environment_of_no_numbers_is_named(
    photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UsageError, match="variable WORLD_SIZE='two' must be a whole number"):
        prepare(TrainOptions.of(photos, weights=str(tiny_weights)), Talk(quiet=True))


def test_several_processes_that_nothing_brought_together_are_refused(
    photos: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2, but MASTER_ADDR and MASTER_PORT"):
        plusx.train(photos, weights=tiny_weights, out=tmp_path / "run", talk=Talk(quiet=True))
    assert not (tmp_path / "run").exists()


def test_the_split_is_a_function_of_data_and_seed(photos: Path) -> None:
    flat = read_listing(photos / "train")
    parts = [split_listing(flat, seed=seed).part("val") for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
