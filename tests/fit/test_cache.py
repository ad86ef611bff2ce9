"""What is kept from run to run: found again by content, sound, bounded, one writer at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from plusx.data import Augmentation, Preprocessing
from plusx.data.reading import Reading
from plusx.fit import cache_key
from plusx.fit.cache import About, CacheSlot, TrunkCache
from plusx.fit.cache_key import decoders, depends, depends_views, file_keys
from plusx.fit.cache_rows import RECORD, RowTable
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.trunk_engine import resolve_trunk_engine
from plusx.weights import create

CPU = torch.device("cpu")
GIB = 2**30


def names(*texts: str) -> np.ndarray:
    return np.array([text.encode().ljust(16, b".") for text in texts], dtype="S16")


def about(kind: str = "plain", row_bytes: int = 8, **depends_on: object) -> About:
    return About(kind, depends_on, row_bytes, "tiny", "photos")


def rows(*values: int, row_bytes: int = 8) -> np.ndarray:
    return np.stack([np.full(row_bytes, value, dtype=np.uint8) for value in values])


def filled(cache: TrunkCache, what: About, *keys: str) -> CacheSlot:
    slot = cache.open(what, names(*keys))
    with slot.writing():
        slot.table.load()
        value = range(1, len(keys) + 1)
        slot.table.append(names(*keys), 0, rows(*value, row_bytes=what.row_bytes))
    return slot


# Rows


def test_any_key_is_found_again(tmp_path: Path) -> None:
    """Hashes with zero bytes, at the end too, and views that differ in one byte."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 3, (300, 16), dtype=np.uint8)
    keys = np.unique(np.ascontiguousarray(raw).view("S16").reshape(-1))
    table = RowTable(tmp_path, 4)
    for view in (0, 1, 256):
        bits = rng.integers(0, 255, (len(keys), 4), dtype=np.uint8)
        table.append(keys, view, bits)
        np.testing.assert_array_equal(table.read(RowTable(tmp_path, 4).find(keys, view)), bits)
    assert (table.find(keys, 2) == -1).all()
    assert (table.find(names("absent"), 0) == -1).all()


def test_a_row_written_twice_is_the_later_one(tmp_path: Path) -> None:
    table = RowTable(tmp_path, 8)
    table.append(names("a", "b"), 0, rows(1, 2))
    table.append(names("a"), 0, rows(3))
    assert table.read(RowTable(tmp_path, 8).find(names("a", "b"), 0))[:, 0].tolist() == [3, 2]


@pytest.mark.parametrize("harm", ["rows cut", "index cut", "bit flipped", "zeros", "rows gone"])
def test_what_is_cut_off_or_changed_is_run_again(tmp_path: Path, harm: str) -> None:
    slot = filled(TrunkCache(tmp_path, GIB), about(), "a", "b", "c")
    data, index = slot.folder / "rows.bin", slot.folder / "index.bin"
    content = bytearray(data.read_bytes())
    if harm == "rows cut":
        data.write_bytes(content[:20])
    elif harm == "index cut":
        index.write_bytes(index.read_bytes()[:-5])
    elif harm == "bit flipped":
        content[18] ^= 1
        data.write_bytes(content)
    elif harm == "zeros":  # as after a power cut
        data.write_bytes(content[:16] + bytes(8))
    else:
        data.unlink()
    slot.release()
    again = TrunkCache(tmp_path, GIB).open(about(), names("a", "b", "c"))
    kept = KeyedRows(again, names("a", "b", "c"), range(1))
    lack = kept.missing(0, np.arange(3))
    assert lack.tolist() == ([0, 1, 2] if harm == "rows gone" else [2])
    assert kept.damaged == {"index cut": 0, "rows gone": 3}.get(harm, 1)
    with kept.writing(lambda: None):
        kept.write(0, lack, rows(*(lack + 1).tolist()))
    assert kept.read(np.zeros(3, np.int64), np.arange(3))[:, 0].tolist() == [1, 2, 3]
    fresh = KeyedRows(again, names("c", "b", "a"), range(1))
    assert not len(fresh.missing(0, np.arange(3)))
    assert fresh.read(np.zeros(3, np.int64), np.arange(3))[:, 0].tolist() == [3, 2, 1]


def test_copies_of_an_image_are_run_once(tmp_path: Path) -> None:
    keys = names("a", "b", "a")
    kept = KeyedRows(TrunkCache(tmp_path, GIB).open(about(), keys), keys, range(1, 3))
    assert kept.missing(2, np.arange(3)).tolist() == [0, 1]
    with kept.writing(lambda: None):
        kept.write(2, np.array([1, 0]), rows(5, 6))
    two = np.full(3, 2)
    assert kept.read(two, np.arange(3))[:, 0].tolist() == [6, 5, 6]
    with pytest.raises(IndexError, match="view 1 is absent"):
        kept.read(np.array([1]), np.array([0]))


# Entries


def test_images_added_find_the_entry_of_the_others(tmp_path: Path) -> None:
    cache = TrunkCache(tmp_path, GIB)
    first = filled(cache, about(), "a", "b")
    other = filled(cache, about(), "x", "y", "z")
    assert first.folder != other.folder
    assert cache.open(about(), names("a", "b", "c")).folder == first.folder
    assert cache.open(about(), names("z")).folder == other.folder
    assert cache.open(about(seed=1), names("a", "b")).folder not in (first.folder, other.folder)
    assert cache.open(about(row_bytes=4), names("a")).folder != first.folder


def test_rows_of_something_else_are_not_used(tmp_path: Path) -> None:
    cache = TrunkCache(tmp_path, GIB)
    slot = filled(cache, about(), "a", "b")
    slot.release()
    (slot.folder / "about.json").write_text('{"format": 1, "key": "another"}')
    again = cache.open(about(), names("a", "b"))
    assert again.folder == slot.folder
    assert not len(again.table)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = TrunkCache(tmp_path, 4000)
    for number, key in enumerate("abc"):
        slot = filled(cache, about(key, row_bytes=1000), key)
        os.utime(slot.folder / "about.json", (number, number))
        if key == "b":
            held = slot
        else:
            slot.release()
    size = sum(entry.size_bytes for entry in cache.entries())
    assert cache.make_room(4000 - size, []) == 4000 - size
    assert {entry.about["kind"] for entry in cache.entries()} == {"a", "b", "c"}
    assert cache.make_room(1500, []) >= 1500
    assert {entry.about["kind"] for entry in cache.entries()} == {"b", "c"}
    assert cache.make_room(3500, []) < 3500  # b is in use
    assert {entry.about["kind"] for entry in cache.entries()} == {"b"}
    held.release()


def test_what_is_in_use_is_not_cleared(tmp_path: Path) -> None:
    cache = TrunkCache(tmp_path, GIB)
    held, free = filled(cache, about("held"), "a"), filled(cache, about("free"), "a")
    free.release()
    went, stays = cache.clear(older_than_s=60)
    assert not went
    assert not stays
    went, stays = cache.clear()
    assert [e.folder for e in went] == [free.folder]
    assert [e.folder for e in stays] == [held.folder]
    held.release()
    assert cache.clear()[0]
    assert not cache.entries()


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from plusx.fit.cache import About, TrunkCache
from plusx.fit.keyed_rows import KeyedRows
keys = np.array([f"{n:016d}".encode() for n in range(40)], dtype="S16")
slot = TrunkCache(Path(sys.argv[1]), 2**30).open(About("plain", {}, 64, "tiny", "photos"), keys)
kept, waited, ran = KeyedRows(slot, keys, range(1)), [], 0
if len(kept.missing(0, np.arange(40))):
    with kept.writing(lambda: waited.append(1)):
        for n in kept.missing(0, np.arange(40)):
            kept.write(0, np.array([n]), np.full((1, 64), n, dtype=np.uint8))
            ran += 1
            time.sleep(0.01)
right = (kept.read(np.zeros(40, np.int64), np.arange(40))[:, 0] == np.arange(40)).all()
print(ran, len(waited), right)
"""


def test_of_several_processes_one_writes_and_the_others_use_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=100)[0].split() for process in started]
    assert sorted(int(ran) for ran, _, _ in said) == [0, 0, 40]
    assert all(right == "True" for _, _, right in said)
    (entry,) = TrunkCache(tmp_path, GIB).entries()
    assert (entry.folder / "index.bin").stat().st_size == 40 * RECORD.itemsize


def test_a_writer_that_is_killed_leaves_its_rows_to_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE)
    for _ in range(1000):
        index = next(tmp_path.glob("*/index.bin"), None)
        if index is not None and index.stat().st_size > 4 * RECORD.itemsize:
            break
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    ran, waited, right = subprocess.check_output(command, text=True).split()
    assert 0 < int(ran) < 37
    assert (waited, right) == ("0", "True")


# The key


def parts(tiny_weights: Path) -> dict[str, object]:
    model = create(weights=str(tiny_weights)).eval()
    look = Preprocessing.for_size(32)
    engine = resolve_trunk_engine(CPU, torch.float32)
    light = Augmentation.light(100, size=32)
    return {"model": model, "blocks": 1, "look": look, "engine": engine, "light": light, "seed": 0}


def key(what: dict[str, object], kind: str = "views") -> str:
    plain = depends(what["model"], what["blocks"], what["look"], what["engine"])  # type: ignore[arg-type]
    depends_on = depends_views(plain, what["light"], what["seed"])  # type: ignore[arg-type]
    return About(kind, depends_on if kind == "views" else plain, 8, "tiny", "photos").key


@pytest.mark.parametrize(
    "change",
    ["weights", "statistics", "split", "size", "interpolation", "mean", "background", "depth",
     "crop", "flip", "seed", "engine", "version", "precision", "machine", "decoder"],
)  # fmt: skip
def test_the_key_changes_with(
    change: str, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = parts(tiny_weights)
    before, plain_before = key(what), key(what, "plain")
    assert (before, plain_before) == (key(parts(tiny_weights)), key(parts(tiny_weights), "plain"))
    model, look, light = what["model"], what["look"], what["light"]
    assert isinstance(look, Preprocessing)
    assert isinstance(light, Augmentation)
    if change == "weights":
        with torch.no_grad():
            next(model.stem.parameters()).view(-1)[0] += 1e-4  # type: ignore[attr-defined]
    elif change == "statistics":
        next(b for n, b in model.stem.named_buffers() if "mean" in n)[0] += 1e-4  # type: ignore[attr-defined]
    elif change == "split":
        what["blocks"] = 2
    elif change == "decoder":
        monkeypatch.setattr(cache_key, "version", lambda name: "0.0")
    what |= {
        "size": {"look": Preprocessing.for_size(48)},
        "interpolation": {"look": replace(look, interpolation="bicubic")},
        "mean": {"look": replace(look, mean=(0.5, 0.5, 0.5))},
        "background": {"look": replace(look, reading=Reading(background=(0, 0, 0)))},
        "depth": {"look": replace(look, reading=Reading(depth="window"))},
        "crop": {"light": replace(light, scale=(0.3, 1.0))},
        "flip": {"light": replace(light, hflip=0.0)},
        "seed": {"seed": 1},
        "engine": {"engine": replace(what["engine"], name="other")},  # type: ignore[type-var]
        "version": {"engine": replace(what["engine"], version="0")},  # type: ignore[type-var]
        "precision": {"engine": replace(what["engine"], precision="bfloat16")},  # type: ignore[type-var]
        "machine": {"engine": replace(what["engine"], machine="cpu other")},  # type: ignore[type-var]
    }.get(change, {})
    assert key(what) != before
    # what is not augmented depends on no augmentation, and is shared by runs of other seeds
    assert (key(what, "plain") == plain_before) == (change in ("crop", "flip", "seed"))


def test_what_is_trained_is_no_part_of_the_key(tiny_weights: Path) -> None:
    what = parts(tiny_weights)
    before = key(what)
    with torch.no_grad():
        what["model"].head.fc.weight.add_(1.0)  # type: ignore[attr-defined]
    assert key(what) == before


def test_images_are_named_by_content(tmp_path: Path) -> None:
    one, copy, other = (tmp_path / name for name in ("one", "copy", "other"))
    one.write_bytes(b"same")
    copy.write_bytes(b"same")
    other.write_bytes(b"else")
    found = file_keys([str(one), str(copy), str(other), str(tmp_path / "absent")])
    assert found[0] == found[1]
    assert len(np.unique(found)) == 3
    assert set(decoders()) >= {"plusx", "pillow", "torch", "libjpeg"}
