from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from plusx.data import gather_facts, read_folder, read_image
from plusx.data.facts import ROW, FactTable, ImageFacts
from plusx.errors import DataError


def noise(size: tuple[int, int] = (30, 20), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def folder_of_images(folder: Path, n: int) -> list[str]:
    paths = []
    for i in range(n):
        path = folder / f"{i:03}.png"
        noise(seed=i).save(path)
        if i % 10 == 4:
            path.write_bytes(path.read_bytes()[:400])
        if i % 10 == 5:
            path.write_bytes(b"")
        paths.append(str(path))
    return paths


def facts_of(path: Path) -> ImageFacts:
    return gather_facts([str(path)], processes=1)[0]


def same(one: FactTable, other: FactTable) -> bool:
    """All but the numbering of cameras."""
    return list(map(repr, one)) == list(map(repr, other))


def test_the_unreadable_are_listed_in_order(tmp_path: Path) -> None:
    told: list[int] = []
    paths = folder_of_images(tmp_path, 40)
    table = gather_facts(iter(paths), processes=2, tick=told.append)
    assert [Path(b.path).name for b in table.errors] == [
        f"{i:03}.png" for i in range(40) if i % 10 in (4, 5)
    ]
    assert {b.reason for b in table.errors if b.path.endswith("5.png")} == {"is empty (0 bytes)"}
    assert {b.reason for b in table.errors if b.path.endswith("4.png")} == {
        "is truncated (the end of the file is missing)"
    }
    assert told == [1] * 40
    assert list(table.paths) == paths
    assert table.readable.tolist() == [i % 10 not in (4, 5) for i in range(40)]
    assert gather_facts([], processes=1).errors == []


def test_channels_are_minded(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    noise().convert("RGBA").save(tmp_path / "y.png")
    x, y = str(tmp_path / "x.png"), str(tmp_path / "y.png")
    assert gather_facts([x, y], processes=1).errors == []
    assert gather_facts([x, y], processes=1, channels=1).errors == []
    four = gather_facts([x, y], processes=1, channels=4)
    assert [bad.path for bad in four.errors] == [x]
    assert "expected 4" in four.errors[0].reason
    assert (four[1].width, four[1].height) == (30, 20)


def test_light_and_structure(tmp_path: Path) -> None:
    Image.new("RGB", (50, 40), (9, 9, 9)).save(tmp_path / "dark.png")
    plain = facts_of(tmp_path / "dark.png")
    assert (plain.mean, plain.std, plain.entropy, plain.sharpness) == (9, 0, 0, 0)
    assert (plain.dark_level, plain.light_level, plain.grey) == (9, 9, True)
    assert plain.border == (9, 9, 9)
    framed = Image.new("RGB", (200, 100), (200, 100, 50))
    framed.paste(Image.new("RGB", (180, 80), (0, 0, 0)), (10, 10))
    framed.save(tmp_path / "framed.png")
    frame = facts_of(tmp_path / "framed.png")
    assert frame.border == (200, 100, 50)
    assert frame.entropy == pytest.approx(-0.72 * np.log2(0.72) - 0.28 * np.log2(0.28), abs=1e-5)
    assert frame.mean == pytest.approx(0.28 * round(0.299 * 200 + 0.587 * 100 + 0.114 * 50), 0.01)
    assert not frame.grey
    assert frame.aspect == 2
    noise((400, 300)).save(tmp_path / "sharp.png")
    noise((400, 300)).filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "soft.png")
    sharp, soft = facts_of(tmp_path / "sharp.png"), facts_of(tmp_path / "soft.png")
    assert soft.sharpness < sharp.sharpness / 10
    assert sharp.dark_level > 200 > 60 > sharp.light_level


def test_what_the_header_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker\0", "Model 7", 6
    exif.get_ifd(0x8769)[0x9003] = "2020:02:29 12:34:56"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise().save(tmp_path / "a.jpg", exif=exif, icc_profile=profile)
    photo = facts_of(tmp_path / "a.jpg")
    assert (photo.format, photo.mode, photo.bit_depth, photo.frames) == ("JPEG", "RGB", 8, 1)
    assert (photo.camera, photo.taken) == ("Maker Model 7", "2020-02-29T12:34:56")
    assert (photo.orientation, photo.width, photo.height) == (6, 20, 30), "upright"
    assert photo.has_icc
    assert photo.size_bytes == (tmp_path / "a.jpg").stat().st_size
    deep = Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100)
    deep.save(tmp_path / "deep.png")
    found = facts_of(tmp_path / "deep.png")
    assert (found.bit_depth, found.format, found.has_icc, found.taken) == (16, "PNG", False, None)
    noise().save(tmp_path / "m.gif", save_all=True, append_images=[noise(seed=i) for i in (1, 2)])
    assert facts_of(tmp_path / "m.gif").frames == 3
    noise().save(tmp_path / "p.tif", save_all=True, append_images=[noise(seed=1)])
    assert facts_of(tmp_path / "p.tif").frames == 2


@pytest.mark.parametrize("stamp", ["0000:00:00 00:00:00", "2020:13:45 99:99:99", "soon", ""])
def test_a_date_that_is_none_is_left_out(tmp_path: Path, stamp: str) -> None:
    exif = Image.Exif()
    exif[0x0132] = stamp
    noise().save(tmp_path / "a.jpg", exif=exif)
    found = facts_of(tmp_path / "a.jpg")
    assert found.error is None
    assert found.taken is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {}),
        ("progressive.jpg", {"progressive": True}),
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("lzw.tif", {"compression": "tiff_lzw"}),
        ("a.gif", {}),
    ],
)
def test_every_truncated_file_is_found(tmp_path: Path, name: str, options: dict) -> None:
    noise((420, 300)).save(tmp_path / name, **options)
    content = (tmp_path / name).read_bytes()
    paths = []
    for share in (0.05, 0.3, 0.6, 0.9):
        path = tmp_path / f"{share}{name}"
        path.write_bytes(content[: int(share * len(content))])
        paths.append(str(path))
    table = gather_facts([*paths, str(tmp_path / name)], processes=1)
    assert [bad.path for bad in table.errors] == paths


def test_what_is_not_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    noise().save(tmp_path / "good.png")
    names = ["absent", "loop", "pipe", ".", "good.png"]
    table = gather_facts([str(tmp_path / name) for name in names], processes=1, timeout_s=20)
    assert sorted(table.reasons) == [0, 1, 2, 3]
    assert "not exist" in table.reasons[0]
    assert "pipe" in table.reasons[2]
    assert "folder" in table.reasons[3]
    assert gather_facts(["a\0b"], processes=1).errors


def test_names_in_any_script(tmp_path: Path) -> None:
    names = ["-x.png", "=1+1.png", "two\nlines.png", 'q"uote.png', "图片.png", "<b>.png"]
    paths = [str(tmp_path / name) for name in names] + [
        os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    ]
    for path in paths:
        buffer = io.BytesIO()
        noise().save(buffer, "PNG")
        with open(path, "wb") as file:
            file.write(buffer.getvalue())
    cache = tmp_path / "facts.sqlite"
    first = gather_facts(paths, processes=1, cache=cache)
    assert first.errors == []
    assert same(first, gather_facts(paths, processes=1, cache=cache))


def test_files_that_change_or_vanish_meanwhile_harm_nothing(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(60)]
    small, large = io.BytesIO(), io.BytesIO()
    noise((40, 40)).save(small, "PNG")
    noise((300, 300)).save(large, "PNG")
    stop = threading.Event()

    def disturb() -> None:
        turn = 0
        while not stop.is_set():
            for path in paths[:20]:
                turn += 1
                with open(path, "wb") as file:
                    file.write((small if turn % 2 else large).getvalue())
            for path in paths[20:40]:
                Path(path).unlink(missing_ok=True)
            for path in paths[20:40]:
                Path(path).write_bytes(small.getvalue())

    for path in paths:
        Path(path).write_bytes(small.getvalue())
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(2):
            table = gather_facts(paths, processes=2, cache=tmp_path / "cache")
            assert not [i for i in table.reasons if i >= 40], table.errors
            for facts in table:
                assert facts.error or (facts.width, facts.size_bytes) in {
                    (40, len(small.getvalue())),
                    (300, len(large.getvalue())),
                }
    finally:
        stop.set()
        thread.join()


def test_a_second_scan_reads_no_unchanged_file(tmp_path: Path) -> None:
    paths = folder_of_images(tmp_path, 30)
    cache = tmp_path / "cache" / "facts.sqlite"
    first = gather_facts(paths, processes=2, cache=cache)
    status = Path(paths[0]).stat()
    Path(paths[0]).write_bytes(bytes(status.st_size))  # no image any more, but of the same age
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    told: list[int] = []
    again = gather_facts(paths, processes=2, cache=cache, tick=told.append)
    assert same(first, again), "known by size and mtime"
    assert sum(told) == 30
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    third = gather_facts(paths, processes=2, cache=cache)
    assert "is not a" in third.reasons[0]
    noise(seed=77).save(paths[4])
    assert gather_facts(paths, processes=2, cache=cache)[4].error is None, "mended"
    four = gather_facts(paths, processes=2, cache=cache, channels=4)
    assert "expected 4" in four.reasons[1], "facts read otherwise are read again"


def test_a_killed_scan_goes_on_where_it_was(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i:04}.png") for i in range(700)]
    content = io.BytesIO()
    noise().save(content, "PNG")
    for path in paths:
        Path(path).write_bytes(content.getvalue())
    cache = tmp_path / "facts.sqlite"
    code = (
        "import sys, time; from pathlib import Path; from plusx.data import gather_facts\n"
        "paths = Path(sys.argv[1]).read_text().splitlines(); done = 0\n"
        "def tick(n):\n    global done; done += n\n"
        "    if done == 400: print('now', flush=True); time.sleep(1000)\n"
        "gather_facts(paths, processes=1, cache=Path(sys.argv[2]), tick=tick)"
    )
    (tmp_path / "paths").write_text("\n".join(paths), encoding="utf-8")
    scan = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "paths", cache], stdout=subprocess.PIPE
    )
    assert scan.stdout is not None
    assert scan.stdout.readline() == b"now\n"
    scan.send_signal(signal.SIGKILL)
    scan.wait()
    scan.stdout.close()
    with sqlite3.connect(cache) as file:
        kept = file.execute("SELECT count(*) FROM facts").fetchone()[0]
    file.close()
    assert 256 <= kept <= 512
    told: list[float] = []
    table = gather_facts(
        paths, processes=1, cache=cache, tick=lambda n: told.append(time.monotonic())
    )
    assert table.errors == []
    assert len(told) == 700
    assert same(table, gather_facts(paths, processes=1))


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("not a data base, but long enough to be taken for one" * 99)
    with pytest.raises(DataError, match=r"cache: cannot be used as a cache .*remove it"):
        gather_facts([], processes=1, cache=tmp_path / "cache")
    with pytest.raises(DataError, match="cannot be used as a cache"):
        gather_facts([], processes=1, cache=tmp_path / "cache" / "below")


def test_a_table_is_small_and_says_all_again(tmp_path: Path) -> None:
    assert ROW.itemsize <= 200
    paths = folder_of_images(tmp_path, 12)
    table = gather_facts(paths, processes=2)
    assert table.rows.nbytes == 12 * ROW.itemsize
    assert isinstance(table.thumbs, np.memmap), "thumbnails take no memory"
    assert len(table) == 12
    facts = table[3]
    assert facts.path == paths[3]
    assert facts.width == table.rows["width"][3] == 30
    assert facts.thumb == table.thumbs[3].tobytes()
    assert facts.file_hash == table.rows["file_hash"][3].tobytes() != bytes(16)
    assert [item.error for item in table] == [table.reasons.get(i) for i in range(12)]


def test_real_photographs_agree_with_pillow(shared_data: Path) -> None:
    samples = read_folder(shared_data / "data" / "hymenoptera").samples[::25]
    table = gather_facts([sample.path for sample in samples], processes=2)
    assert table.errors == []
    for facts in table:
        with Image.open(facts.path) as image:
            assert (facts.width, facts.height) == image.size
            level = np.asarray(image.convert("L"), dtype=float)
        assert facts.mean == pytest.approx(level.mean(), abs=0.5)
        assert facts.std == pytest.approx(level.std(), rel=0.1)
        thumb = np.frombuffer(facts.thumb, np.uint8).reshape(32, 32)
        small = np.asarray(Image.fromarray(level.astype(np.uint8)).resize((32, 32), 2), float)
        restored = (thumb.astype(float) - 128) / facts.thumb_gain + small.mean()
        assert np.abs(restored - small).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_at_reduced_scale_stands_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    soft = noise((600, 300)).filter(ImageFilter.GaussianBlur(20))
    soft = soft.point(lambda level: (level - 110) * 6)
    soft.save(tmp_path / "a.jpg", exif=exif, quality=95)
    found = facts_of(tmp_path / "a.jpg")
    upright = Image.fromarray(read_image(tmp_path / "a.jpg"))
    assert (found.width, found.height) == upright.size
    small = np.asarray(upright.convert("L").resize((32, 32), 2), float)
    thumb = np.frombuffer(found.thumb, np.uint8).reshape(32, 32)
    assert np.corrcoef(thumb.ravel(), small.ravel())[0, 1] > 0.99


def test_neither_reading_facts_nor_its_workers_load_torch() -> None:
    code = (
        "import sys, plusx.data.fact_reading, plusx.data.facts_cache, plusx.data.duplicates; "
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'scipy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr
