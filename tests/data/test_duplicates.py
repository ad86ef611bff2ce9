from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from plusx.data.duplicates import exact_groups, groups_of_pairs, near_groups, near_pairs
from plusx.data.facts import ROW, THUMB, FactTable, gather_facts

ROOT = Path(__file__).parents[2]


def picture(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Soft coloured blobs: much coarse and some fine structure, as in a photograph."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for blur in (2, 6, 20):
        noise = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
        soft = np.asarray(noise.filter(ImageFilter.GaussianBlur(blur)), dtype=float)
        total += (soft - soft.mean()) / soft.std()
    return Image.fromarray((128 + 25 * total).clip(0, 255).astype(np.uint8))


def synthetic(n: int, copies: int, folder: Path, *, seed: int = 0) -> tuple[FactTable, np.ndarray]:
    """A table of n thumbnails without files, the last ``copies`` of which copy the first, every
    other one mirrored, with noise; thumbnails lie in a file, and so need no memory."""
    rng = np.random.default_rng(seed)
    thumbs = np.memmap(folder / "thumbs", np.uint8, "w+", shape=(n, THUMB, THUMB))
    for start in range(0, n - copies, 10_000):
        stop = min(start + 10_000, n - copies)
        coarse = rng.normal(size=(stop - start, THUMB // 2, THUMB // 2)).astype(np.float32)
        levels = coarse.repeat(2, 1).repeat(2, 2) * 30 + 128
        thumbs[start:stop] = levels.clip(0, 255)
    noise = rng.integers(-3, 4, (copies, THUMB, THUMB))
    thumbs[n - copies :] = (thumbs[:copies].astype(int) + noise).clip(0, 255)
    thumbs[n - copies :: 2] = thumbs[n - copies :: 2, :, ::-1].copy()
    rows = np.zeros(n, dtype=ROW)
    rows["readable"] = True
    rows["thumb_gain"] = 1
    for name in ("file_hash", "content_hash"):
        rows[name] = np.stack([np.arange(n), np.arange(n)], 1).astype("<u8").view("V16").ravel()
    paths = [f"/images/{i:07}.jpg" for i in range(n)]
    planted = np.stack([np.arange(copies), np.arange(n - copies, n)], 1)
    return FactTable(paths, rows, thumbs, {}), planted


def share_found(found: np.ndarray, planted: np.ndarray) -> float:
    known = {tuple(pair) for pair in found.tolist()}
    return float(np.mean([tuple(pair) in known for pair in planted.tolist()]))


def test_exact_duplicates_are_found_by_bytes_and_by_pixels(tmp_path: Path) -> None:
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.jpg", quality=90)
    content = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "copied.dat").write_bytes(content)
    tagged = Image.Exif()
    tagged[0x010F] = "Maker"
    exif = b"\xff\xe1" + (len(tagged.tobytes()) + 2).to_bytes(2, "big") + tagged.tobytes()
    (tmp_path / "tagged.jpg").write_bytes(content[:2] + exif + content[2:])
    Image.open(tmp_path / "2.jpg").save(tmp_path / "lossless.png")
    picture(3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "turned.png")
    (tmp_path / "broken1.jpg").write_bytes(content[:900])
    (tmp_path / "broken2.jpg").write_bytes(content[:900])
    paths = sorted(str(path) for path in tmp_path.iterdir())
    table = gather_facts(paths, processes=1)
    assert len(table.errors) == 2
    groups = [[Path(paths[i]).name for i in group] for group in exact_groups(table)]
    assert groups == [["1.jpg", "copied.dat", "tagged.jpg"], ["2.jpg", "lossless.png"]]
    near = [[Path(paths[i]).name for i in group.members] for group in near_groups(table)]
    assert near == [["3.jpg", "turned.png"]]


def test_near_groups_hold_what_hangs_together_with_its_distance(tmp_path: Path) -> None:
    for i in range(8):
        picture(i).save(tmp_path / f"{i}.png")
    picture(4).resize((100, 75)).save(tmp_path / "a.jpg", quality=50)
    cropped = picture(4).crop((8, 6, 152, 114))
    cropped.save(tmp_path / "b.jpg", quality=95)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "b.jpg").read_bytes())
    Image.new("RGB", (90, 60), "red").save(tmp_path / "x.png")
    Image.new("RGB", (60, 90), "blue").save(tmp_path / "y.png")
    paths = sorted(str(path) for path in tmp_path.iterdir())
    table = gather_facts(paths, processes=1)
    (group,) = near_groups(table)
    assert [Path(paths[i]).name for i in group.members] == ["4.png", "a.jpg", "b.jpg", "c.jpg"]
    pairs = near_pairs(table)
    assert 0 < group.distance <= 0.05
    assert group.distance == pytest.approx(float(pairs.distance.max()))
    assert near_groups(table, pairs) == [group]


def test_nothing_is_no_duplicate_of_anything(tmp_path: Path) -> None:
    for paths in ([], [str(tmp_path / "absent.jpg")]):
        table = gather_facts(paths, processes=1)
        assert exact_groups(table) == []
        assert near_groups(table) == []


def test_groups_of_pairs() -> None:
    pairs = np.array([[5, 9], [1, 2], [9, 7], [2, 1]])
    assert groups_of_pairs(pairs) == [(1, 2), (5, 7, 9)]


def test_many_frames_of_one_scene_are_one_group(tmp_path: Path) -> None:
    table, _ = synthetic(300, 0, tmp_path)
    thumbs = np.array(table.thumbs)
    rng = np.random.default_rng(1)
    noise = rng.integers(-3, 4, (200, THUMB, THUMB))
    thumbs[100:] = (thumbs[100].astype(int) + noise).clip(0, 255)
    same = FactTable(table.paths, table.rows, thumbs, {})
    pairs = near_pairs(same).pairs
    assert groups_of_pairs(pairs) == [tuple(range(100, 300))]
    assert len(pairs) < 200 * 17 * 4, "pairs do not grow with the square of the group"


def test_cells_find_what_comparing_all_finds(tmp_path: Path) -> None:
    table, planted = synthetic(9000, 300, tmp_path)
    pairs = near_pairs(table).pairs
    assert share_found(pairs, planted) >= 0.99
    assert len(pairs) == len(planted), "nothing but the planted pairs"


@pytest.mark.parametrize("name", ["hymenoptera", "eurosat_rgb", "penn_fudan/images", "chest_xray"])
def test_changed_copies_of_real_images_are_found(shared_data: Path, name: str) -> None:
    script = ROOT / "benchmarks" / "duplicates.py"
    done = subprocess.run(
        [sys.executable, script, shared_data, "--images", "60", "--sets", name, "--show"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    recall, precision = (float(word) for word in done.stdout.splitlines()[-1].split()[-4:-2])
    assert recall >= 0.95
    assert precision >= 0.95
