"""``plusx shards``: what it writes is what others read; it can be taken up again; training on it is
training on the folder."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import re
import signal
import tarfile
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.data import read_listing
from plusx.data.filebytes import read_bytes
from plusx.data.reading import Limits
from plusx.errors import DataError, UsageError
from plusx.fit.inputs import Feed
from plusx.jobs.run import name_of
from plusx.jobs.shards import make_shards
from plusx.jobs.talk import Talk, Tick
from plusx.runtime import World

webdataset = pytest.importorskip("webdataset", reason="extra 'shards' absent")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "cache"))


def noise(folder: Path, counts: dict[str, int], side: int = 300) -> Path:
    """Pictures that no format makes small: side 300 takes a quarter of a MiB."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png", compress_level=0)
    return folder


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise(tmp_path_factory.mktemp("big") / "big", {"train/a": 9, "train/b": 5, "val/a": 3})


def by_webdataset(tars: list[str], *parts: str) -> list[Any]:
    """All samples, as the library itself reads them; it leaves its files open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        data = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
        found = list(data.to_tuple(*parts) if parts else data)
        gc.collect()
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def test_written_shards_hold_every_image_as_it_is(big: Path, tmp_path: Path) -> None:
    done = make_shards(str(big), str(tmp_path / "out"), size_mib=1)
    out = tmp_path / "out"
    assert [(s.name, s.split) for s in done.shards][-1] == ("val-000000.tar", "val")
    assert len(done.shards) == 6
    assert all((out / s.name).stat().st_size == s.bytes for s in done.shards)
    assert all(s.bytes <= 1.1 * 2**20 for s in done.shards)
    assert done.images == 17
    assert (out / "classes.txt").read_text() == "a\nb\n"
    folder, shards = read_listing(big), read_listing(out)
    assert shards.classes == folder.classes
    for split in ("train", "val"):
        pairs = zip(folder.part(split), shards.part(split), strict=True)
        for one, other in pairs:
            assert read_bytes(one.path, Limits()) == read_bytes(other.path, Limits())
            assert one.target == other.target
    order: list[str] = []
    for shard in done.shards[:5]:
        with tarfile.open(out / shard.name) as archive:
            order += archive.getnames()
    assert order != sorted(order), "shuffled"


def test_webdataset_reads_them(big: Path, tmp_path: Path) -> None:
    done = make_shards(str(big), str(tmp_path / "out"), size_mib=1)
    tars = [str(tmp_path / "out" / shard.name) for shard in done.shards]
    read = by_webdataset(tars, "png", "cls")
    assert len(read) == 17
    assert sorted(label for _, label in read) == [0] * 12 + [1] * 5
    assert {image.size for image, _ in read} == {(300, 300)}


def test_the_same_command_gives_the_same_bytes(big: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_shards(str(big), str(tmp_path / name), size_mib=1, threads=3)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    make_shards(str(big), str(tmp_path / "other"), size_mib=1, seed=1)
    assert files(tmp_path / "one") != files(tmp_path / "other")


class Dying(Talk):
    """Kills its process, as a power cut would, in the midst of a shard."""

    def __init__(self, after: int) -> None:
        super().__init__(quiet=True)
        self.left = after

    @contextmanager
    def phase(self, label: str, total: int = 0) -> Iterator[Tick]:
        yield self.tick

    def tick(self, n: int, text: str = "") -> None:
        self.left -= n
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def write_and_die(data: str, out: str, after: int) -> None:
    make_shards(data, out, size_mib=1, talk=Dying(after))


def test_a_killed_writing_goes_on_and_ends_alike(big: Path, tmp_path: Path) -> None:
    make_shards(str(big), str(tmp_path / "whole"), size_mib=1)
    starts = multiprocessing.get_context("spawn")
    process = starts.Process(target=write_and_die, args=(str(big), str(tmp_path / "out"), 7))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    out = tmp_path / "out"
    names = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    assert names == ["train-000000.tar", "train-000001.tar", "unfinished.json"]
    assert list(out.glob(".plusx-*.tmp")), "the shard it was at"
    with pytest.raises(DataError, match="has not finished it; run the same command again"):
        read_listing(out)
    before = (out / "train-000000.tar").stat().st_mtime_ns
    with pytest.raises(UsageError, match="shards of other data or options"):
        make_shards(str(big), str(out), size_mib=1, seed=3)
    broken = out / "train-000001.tar"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    talk = Talk(quiet=True)
    make_shards(str(big), str(out), size_mib=1, talk=talk)
    assert talk.notes == [f"{broken}: is not as it was written; it is written again"]
    assert (out / "train-000000.tar").stat().st_mtime_ns == before, "kept"
    assert files(out) == files(tmp_path / "whole")
    assert not list(out.glob(".plusx-*"))


def test_bad_images_are_left_out_and_listed(tmp_path: Path, command: Callable[..., Any]) -> None:
    data = noise(tmp_path / "data", {"a": 3, "b": 3}, side=20)
    (data / "a" / "01.png").write_bytes((data / "a" / "01.png").read_bytes()[:200])
    (data / "b" / "zz.jpg").touch()
    done = command("shards", data, tmp_path / "out", "--json")
    assert done.code == 1
    said = json.loads(done.out)
    assert said["images"] == 5
    assert {Path(one["path"]).name for one in said["left_out"]} == {"01.png", "zz.jpg"}
    again = command("shards", data, tmp_path / "out")
    assert again.code == 1
    assert "is complete already" in again.err
    assert "left out: " in again.out
    assert len(read_listing(tmp_path / "out").samples) == 5
    assert command("shards", data, tmp_path / "out", "--no-check").code == 2
    taken = command("shards", data, tmp_path / "out", "--no-check", "--overwrite")
    assert taken.code == 1, "an empty file is no image either way"
    assert len(read_listing(tmp_path / "out").samples) == 6
    for file in (data / "b").iterdir():
        file.write_bytes(b"x")
    for file in (data / "a").iterdir():
        file.write_bytes(b"x")
    assert "none of its images can be read" in command("shards", data, tmp_path / "new").error


def test_names_groups_and_several_labels(tmp_path: Path) -> None:
    noise(tmp_path / "data", {"x": 6}, side=8)
    names = ["a.b.png", "a.c.png", ".hidden.png", "__own__.png", "grün.png", f"{'l' * 150}.png"]
    rows = ["path,label,split,group"]
    for i, name in enumerate(names):
        (tmp_path / "data" / "x" / f"{i:02}.png").rename(tmp_path / "data" / "x" / name)
        rows.append(
            f"data/x/{name},{'p;q' if i % 2 else 'p'},{'val' if i > 3 else 'train'},g{i // 2}"
        )
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    make_shards(str(tmp_path / "list.csv"), str(tmp_path / "out"))
    tars = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    assert len(by_webdataset(tars)) == 6

    def told(source: Path) -> set[tuple[Any, ...]]:
        found = read_listing(source, training=False)
        assert (found.task, found.classes) == ("multi", ("p", "q"))
        return {(read_bytes(s.path, Limits()), s.target, s.split, s.group) for s in found.samples}

    assert told(tmp_path / "out") == told(tmp_path / "list.csv")
    make_shards(str(tmp_path / "out"), str(tmp_path / "again"))
    assert told(tmp_path / "again") == told(tmp_path / "out")


def test_folders_that_are_not_its_own_are_left_alone(big: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"holds other files \(mine\.txt\)"):
            make_shards(str(big), str(tmp_path / "out"), overwrite=overwrite)
    with pytest.raises(UsageError, match="lies in the data's own folder"):
        make_shards(str(big), str(big / "shards"))
    with pytest.raises(UsageError, match="--size-mib 0"):
        make_shards(str(big), str(tmp_path / "new"), size_mib=0)
    assert not (big / "shards").exists()


def test_overwrite_replaces_shards_alone(big: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_shards(str(big), str(out), size_mib=1)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="other data or options"):
        make_shards(str(big), str(out), size_mib=4)
    (out / "mine.txt").unlink()
    make_shards(str(big), str(out), size_mib=4, overwrite=True)
    assert sorted(files(out)) == ["classes.txt", "index.json", "train-000000.tar", "val-000000.tar"]


def test_shards_that_changed_since_the_index(big: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_shards(str(big), str(out))
    val = out / "val-000000.tar"
    content = val.read_bytes()
    val.write_bytes(content[:-512])
    with pytest.raises(DataError, match=r"val-000000\.tar: has .* bytes, not the"):
        read_listing(out)
    val.rename(out / "val-000001.tar")
    with pytest.raises(DataError, match=r"val-000001\.tar: is not named in"):
        read_listing(out)
    (out / "val-000001.tar").unlink()
    with pytest.raises(DataError, match=r"shard val-000000\.tar is missing"):
        read_listing(out)
    assert len(read_listing(out / "train-000000.tar").samples) == 14


def test_training_on_shards_is_training_on_the_folder(
    photos: Path, tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = tmp_path / "shards"
    make_shards(str(photos), str(shards))
    runs = []
    for source, name in ((photos, "from-folder"), (shards, "from-shards")):
        monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "cache" / name))  # neither helps the other
        runs.append(plusx.train(
            source, out=tmp_path / name, model="resnet8_cifar_a", weights="none", image_size=32,
            epochs=5, lr=0.01, batch_size=16, neighbours=False, device="cpu", precision="float32",
            threads=2,
        ))  # fmt: skip
    one, other = ((Path(run.path) / "model" / "model.safetensors").read_bytes() for run in runs)
    assert one == other
    assert runs[0].metrics["chosen"] == runs[1].metrics["chosen"]
    assert not [note for note in runs[1].metrics["notes"] if "random weights" in note], "it learnt"
    scanned = command("scan", shards, "--json", "--out", tmp_path / "page.html", "--fix",
                      tmp_path / "clean.csv")  # fmt: skip
    assert json.loads(scanned.out)["images"] == 96
    assert len(read_listing(tmp_path / "clean.csv").samples) == 96
    judged = command("evaluate", tmp_path / "from-folder", shards, "--json")
    assert judged.code == 0, judged.err
    answers = command("predict", tmp_path / "from-folder", f"{shards}/val-{{000000..000000}}.tar",
                      "--json")  # fmt: skip
    assert len(answers.out.splitlines()) == 32


@pytest.mark.parametrize(
    ("data", "name"),
    [("s/train-{000..010}.tar", "train"), ("s/*.tar", "s"), ("s/x.tar", "x"), ("s", "s")],
)
def test_runs_are_called_by_what_the_shards_are(data: str, name: str) -> None:
    assert name_of(data) == name


def test_two_processes_take_each_image_of_the_shards_once(big: Path, tmp_path: Path) -> None:
    make_shards(str(big), str(tmp_path / "out"), size_mib=1)
    samples = read_listing(tmp_path / "out").part("train")
    feeds = [
        Feed(7, 1, 0, World(rank=rank, size=2, local_rank=rank, local_size=2)) for rank in (0, 1)
    ]
    for epoch in (0, 1):
        shares = [[samples[i].path for i in feed.order(len(samples), epoch)] for feed in feeds]
        assert sorted(shares[0] + shares[1]) == sorted(s.path for s in samples)


def test_the_page_explains_every_option(command: Callable[..., Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "shards.md").read_text(encoding="utf-8")
    options = set(re.findall(r"--[a-z][a-z-]+", command("shards", "--help").out)) - {"--help"}
    assert "--no-check" in options
    assert not [option for option in options if f"`{option}`" not in page]


def test_memory_stays_flat(tmp_path: Path) -> None:
    """Ten times the bytes are listed and read in the same memory."""
    peaks = []
    for count in (4, 40):
        tar = tmp_path / f"{count}.tar"
        with tarfile.open(tar, "w") as archive:
            for i in range(count):
                for name, data in [(f"{i}.bmp", bytes(1 << 20)), (f"{i}.cls", b"1")]:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        tracemalloc.start()
        for sample in read_listing(tar, training=False).samples:
            assert len(read_bytes(sample.path, Limits())) == 1 << 20
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 20), peaks
