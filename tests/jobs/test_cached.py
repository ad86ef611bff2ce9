"""Trunk activations from run to run: used again, added to, given up; and ``plusx cache``."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plusx
from plusx import Run
from plusx.errors import UsageError
from plusx.jobs.cache import CacheItem, clear_cache, list_cache
from plusx.jobs.cached import affordable_views, default_views
from plusx.jobs.fitting import fit
from plusx.jobs.material import Material, gather
from plusx.jobs.options import TrainOptions
from plusx.jobs.run import read_config
from plusx.jobs.setup import Setup, prepare
from plusx.jobs.talk import Talk


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "trunk"


@pytest.fixture
def collected(
    cache: Path, photos: Path, tiny_weights: Path, quick: dict[str, Any], tmp_path: Path
) -> Callable[..., tuple[Setup, Material, list[str]]]:
    """Makes the material of a run; gives it and what was said."""
    count = 0

    def call(data: Path = photos, **options: Any) -> tuple[Setup, Material, list[str]]:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        folder.mkdir()
        talk = Heard()
        asked = quick | {"weights": tiny_weights, "unfreeze": 1} | options
        setup = prepare(TrainOptions.of(data, **asked), talk)
        return setup, gather(setup, folder, talk), talk.heard

    return call


class Heard(Talk):
    """Remembers what was said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)
        super().say(text)


def rows_in(cache: Path) -> dict[str, int]:
    """Rows of each kind of entry."""
    found: dict[str, int] = {}
    for about in cache.glob("*/about.json"):
        kind = json.loads(about.read_text())["kind"]
        size = (about.parent / "index.bin").stat().st_size // 24
        found[kind] = found.get(kind, 0) + size
    return found


def everything(material: Material) -> tuple[torch.Tensor, np.ndarray]:
    assert material.store is not None
    assert material.first is not None
    return material.store.read(np.arange(material.store.images))[0], material.first.features


def test_features_of_a_scan_and_a_choice_are_those_of_training(
    cache: Path, photos: Path, tiny_weights: Path, quick: dict[str, Any], tmp_path: Path
) -> None:
    """No image runs twice through a frozen network."""
    talk = Heard()
    found = plusx.scan(photos, weights=tiny_weights, device="cpu", talk=talk)
    (kept,) = list_cache_of(cache)
    assert (kept.kind, kept.images) == ("features", 96)
    assert not any("used again" in line for line in talk.heard)
    choice = plusx.choose(photos, models=f"tiny={tiny_weights}", seconds=0.01, device="cpu",
                          out=tmp_path / "choice", talk=talk)  # fmt: skip
    assert "features of tiny of an earlier run are used again" in talk.heard
    assert choice.nets[0].top1.value > 0.5
    plusx.train(photos, **quick | {"weights": tiny_weights, "unfreeze": 0, "talk": talk,
                                   "precision": "auto", "out": tmp_path / "run"})  # fmt: skip
    assert "features of an earlier run are used again" in talk.heard
    again = plusx.scan(photos, weights=tiny_weights, device="cpu", talk=talk)
    assert again.to_json() == found.to_json()
    assert len(list_cache_of(cache)) == 1


def test_a_scan_without_a_cache_keeps_no_features(
    cache: Path, photos: Path, tiny_weights: Path
) -> None:
    plusx.scan(photos, weights=tiny_weights, device="cpu", cache=None, talk=Heard())
    assert not cache.exists()


@pytest.mark.parametrize("trouble", ["locked", "full", "room"])
def test_where_features_cannot_be_kept_they_are_computed(
    cache: Path, photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    kept = plusx.scan(photos, weights=tiny_weights, device="cpu", cache=None, talk=Heard())
    if trouble == "locked":
        cache.parent.mkdir()
        cache.write_text("no folder")
        said = "no features are kept there"
    elif trouble == "room":
        monkeypatch.setenv("PLUSX_CACHE_GIB", "0")
        said = "there is no room for"
    else:

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("plusx.fit.cache_rows.RowTable.append", full)
        said = "the disk is full: no features are kept"
    talk = Heard()
    found = plusx.scan(photos, weights=tiny_weights, device="cpu", talk=talk)
    assert sum(said in line for line in talk.heard) == 1
    assert found.findings == kept.findings


def list_cache_of(cache: Path) -> list[CacheItem]:
    """What networks gave."""
    assert cache.is_dir()
    return [one for one in list_cache() if one.net]


def test_the_next_run_uses_them_and_trains_alike_to_the_bit(
    cache: Path, photos: Path, tiny_weights: Path, quick: dict[str, Any], tmp_path: Path
) -> None:
    def train(name: str, **options: Any) -> Run:
        out = tmp_path / name
        how = quick | {"epochs": 2, "weights": tiny_weights, "out": out} | options
        return plusx.train(photos, talk=Talk(quiet=True), **how)

    first = train("first")
    assert rows_in(cache) == {"features": 96, "plain": 96, "views": 64}
    second = train("second")
    assert rows_in(cache) == {"features": 96, "plain": 96, "views": 64}
    log = (second.path / "train.log").read_text()
    assert "trunk activations of an earlier run are used again" in log
    assert "used again" not in (first.path / "train.log").read_text()
    model = "model/model.safetensors"
    assert (first.path / model).read_bytes() == (second.path / model).read_bytes()
    assert first.metrics["evaluations"] == second.metrics["evaluations"]
    assert not (second.path / "cache").exists()
    table = read_config(second.path / "config.toml")["cache"]
    assert table["engine"]["name"] == "torch"
    assert table["engine"]["precision"] == "float32"
    assert [(cache / name).is_dir() for name in table["entries"]] == [True] * 3


def test_other_seeds_share_what_is_not_augmented(cache: Path, collected: Any) -> None:
    collected()
    collected(seed=1)
    assert rows_in(cache) == {"features": 96, "plain": 96, "views": 128}


def test_images_added_are_the_only_ones_run(
    cache: Path, collected: Any, make_stripes: Any, photos: Path, tmp_path: Path
) -> None:
    collected()
    larger = tmp_path / "elsewhere"
    shutil.copytree(photos, larger)
    make_stripes(larger / "new", {"train/across": 3}, seed=9)
    for number, path in enumerate((larger / "new/train/across").iterdir()):
        path.rename(larger / "train" / "across" / f"new{number}.png")
    shutil.rmtree(larger / "new")
    before = rows_in(cache)
    _, material, said = collected(larger)
    added = everything(material)
    assert rows_in(cache) == {kind: count + 3 for kind, count in before.items()}
    assert "trunk activations of 96 images are used again, 3 are run" in said
    shutil.rmtree(cache)
    afresh = collected(larger)[1]
    torch.testing.assert_close(added[0], everything(afresh)[0])
    np.testing.assert_allclose(added[1], everything(afresh)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lost", ["features", "plain"])
def test_what_lacks_is_made_from_what_is_there(cache: Path, collected: Any, lost: str) -> None:
    before = everything(collected()[1])
    for about in cache.glob("*/about.json"):
        if json.loads(about.read_text())["kind"] == lost:
            shutil.rmtree(about.parent)
    after = everything(collected()[1])
    torch.testing.assert_close(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1], rtol=1e-4, atol=1e-5)
    assert rows_in(cache)[lost] == 96


def test_damage_is_said_and_run_again(cache: Path, collected: Any) -> None:
    before = everything(collected()[1])
    for path in cache.glob("*/rows.bin"):
        path.write_bytes(path.read_bytes()[:-100])
    _, material, said = collected()
    assert any("cut off or damaged and are not used" in text for text in said)
    after = everything(material)
    torch.testing.assert_close(after[0], before[0])
    np.testing.assert_allclose(after[1], before[1], rtol=1e-4, atol=1e-5)


def test_an_image_that_lies_in_twice_and_one_that_is_broken(
    collected: Any, photos: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    one = next((data / "train" / "across").iterdir())
    shutil.copy(one, data / "train" / "across" / "copy.png")
    for name in ("broken.png", "broken2.png"):
        (data / "train" / "across" / name).write_bytes(b"no image")
    for _ in range(2):  # fresh, then used again
        _, material, _ = collected(data)
        assert sorted(Path(item.path).name for item in material.bad) == [
            "broken.png", "broken2.png"]  # fmt: skip
        assert material.first is not None
        assert material.first.readable.sum() == 97


def test_streamed_and_cached_start_from_the_same_answers(
    cache: Path, collected: Any, tmp_path: Path
) -> None:
    """The fallback sees what the cache holds: equal scores before the first step."""
    scores = []
    for gib in (8.0, 0.0):
        setup, material, said = collected(cache_gib=gib, epochs=1)
        assert (material.store is None) == (gib == 0)
        folder = tmp_path / f"fit{gib}"
        folder.mkdir()
        fitted = fit(setup, material, setup.listing, folder, Talk(quiet=True))
        scores.append(fitted.history[0].val_nll)
    assert any("the frozen trunk runs every epoch" in text for text in said)
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_more_than_the_bound_streams_and_says_so(cache: Path, collected: Any) -> None:
    _, material, said = collected(cache_gib=1e-5)
    assert material.store is None
    assert any("more than --cache-gib" in text and "runs every epoch" in text for text in said)
    assert rows_in(cache) == {"features": 96}


def test_a_folder_that_cannot_be_written_is_done_without(
    collected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "file"))
    _, material, said = collected()
    assert material.views == 2
    assert any("no trunk activations are kept there for the next run" in text for text in said)


FULL_DISK = """
import resource, sys
from pathlib import Path
from plusx.jobs.material import gather
from plusx.jobs.options import TrainOptions
from plusx.jobs.setup import prepare
from plusx.jobs.talk import Talk
options = TrainOptions.of(sys.argv[1], weights=sys.argv[2], epochs=2, views=2, unfreeze=1,
                          device="cpu", precision="float32", threads=1)
talk = Talk()
setup = prepare(options, talk)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))  # as a full disk
found = gather(setup, Path(sys.argv[3]), talk)
assert found.store is None and found.views == 0 and found.about["views"] == 0
assert found.first.readable.all() and found.first.features.any(axis=1).all()
"""


def test_a_full_disk_is_said_and_the_run_goes_on_without(
    cache: Path, photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(photos), str(tiny_weights), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "the disk is full: no trunk activations are kept" in done.stderr
    assert not list(cache.glob("*"))


@pytest.mark.parametrize(
    ("images", "epochs", "views"), [(100, 20, 4), (100, 3, 3), (50_000, 20, 3), (500_000, 9, 2)]
)
def test_views_by_the_size_of_the_data(images: int, epochs: int, views: int) -> None:
    assert default_views(images, epochs) == views


def test_views_are_as_many_as_the_bound_holds(collected: Any) -> None:
    setup, material, said = collected(views=4)
    assert material.store is not None
    shape = material.store.shape
    row = shape.row_bytes / 2**30
    for gib, views in ((95 * row, 0), (96 * row, 1), (159 * row, 1), (160 * row, 2), (1.0, 4)):
        object.__setattr__(setup.options, "cache_gib", gib)
        assert affordable_views(setup, shape, 96, 64) == views
    assert any(text.startswith("cache: 4 views of each training image") for text in said)


def test_ls_and_clear(cache: Path, collected: Any, tmp_path: Path, monkeypatch: Any) -> None:
    held = collected()[1]
    kept = {one.kind: one for one in list_cache()}
    assert set(kept) == {"features", "plain", "views"}
    assert (kept["views"].images, kept["views"].views) == (64, 1)
    assert (kept["plain"].images, kept["plain"].net, kept["plain"].data) == (96, "tiny", "photos")
    went, stays = clear_cache()
    assert [one.kind for one in went] == ["features"]  # read once, then needed no more
    assert {one.kind for one in stays} == {"plain", "views"}
    del held
    assert clear_cache("2d") == ([], [])
    for about in cache.glob("*/about.json"):
        os.utime(about, (0, 0))
    went, stays = clear_cache("2d")
    assert ({one.kind for one in went}, stays) == ({"plain", "views"}, [])
    assert list_cache() == []
    facts = tmp_path / "kept" / "facts"
    facts.mkdir()
    (facts / "0123.sqlite").write_bytes(bytes(100))
    assert [(one.kind, one.size_bytes) for one in list_cache()] == [("facts", 100)]
    assert len(clear_cache()[0]) == 1
    for wrong in ("30", "d", "-1d", "1y"):
        with pytest.raises(UsageError, match="--older-than"):
            clear_cache(wrong)
    monkeypatch.setenv("PLUSX_CACHE_GIB", "much")
    with pytest.raises(UsageError, match="PLUSX_CACHE_GIB='much'"):
        list_cache()


@pytest.mark.parametrize("gib", [8.0, 0.0], ids=["activations", "images"])
def test_mixup_changes_what_is_learnt_and_repeats(
    cache: Path, collected: Any, tmp_path: Path, gib: float
) -> None:
    losses = []
    for number, alpha in enumerate((0.0, 1.0, 1.0)):
        setup, material, _ = collected(cache_gib=gib, epochs=2, mixup=alpha)
        folder = tmp_path / f"mix{number}"
        folder.mkdir()
        fitted = fit(setup, material, setup.listing, folder, Talk(quiet=True))
        losses.append([row.train_loss for row in fitted.history])
    assert losses[0][1:] != losses[1][1:]
    assert losses[1] == losses[2]


def test_mixup_needs_something_to_train() -> None:
    with pytest.raises(UsageError, match=r"--mixup 0\.2 mixes images while blocks are fine-tuned"):
        TrainOptions.of("data", mixup=0.2, unfreeze=0)
    with pytest.raises(UsageError, match="--mixup 'much' must be a number"):
        TrainOptions.of("data", mixup="much")
