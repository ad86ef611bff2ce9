"""Damaged files of every format: an array or one clear error each, no crash, no hang, no leak.

The cases run in child processes, so that a fault in a native decoder fails the test and leaves the
case behind instead of ending pytest. This file is also what the children run.
"""

from __future__ import annotations

import faulthandler
import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
PHOTO = HERE.parents[1] / "samples" / "river_highway" / "test" / "River"
CASES_EACH = 140
SECONDS_PER_CASE = 20
GROWTH_MIB = 150


def photograph() -> Image.Image:
    """40 x 32 pixels of a real photograph."""
    return Image.open(sorted(PHOTO.glob("*.jpg"))[0]).convert("RGB").crop((8, 8, 48, 40))


def seeds() -> dict[str, bytes]:
    """A small sound file of every format and kind that is read."""
    found = _pillow_seeds()
    if importlib.util.find_spec("pi_heif"):
        found["heic"] = (HERE / "heic" / "rgb_29x100.heic").read_bytes()
    if importlib.util.find_spec("pydicom"):
        import pydicom.data

        folder = Path(pydicom.data.__file__).parent / "test_files"
        for name in ("MR_small", "MR_small_RLE", "MR_small_jp2klossless", "SC_rgb_small_odd_jpeg"):
            found[f"dicom {name}"] = (folder / f"{name}.dcm").read_bytes()
    if importlib.util.find_spec("rasterio"):
        found |= _geotiff_seeds()
    return found


def _pillow_seeds() -> dict[str, bytes]:
    from PIL import ImageCms

    image = photograph()
    grey = np.asarray(image.convert("L"))
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged = {"icc_profile": profile, "exif": exif}
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "jpeg": (image, "JPEG", {"quality": 80} | tagged),
        "jpeg progressive": (image, "JPEG", {"progressive": True}),
        "jpeg cmyk": (image.convert("CMYK"), "JPEG", {}),
        "png": (image, "PNG", dict(tagged)),
        "png palette": (image.quantize(16), "PNG", {"transparency": 3}),
        "png 16": (Image.fromarray(grey.astype(np.uint16) * 257), "PNG", {}),
        "webp": (image, "WEBP", {"quality": 60} | tagged),
        "webp lossless": (image.convert("RGBA"), "WEBP", {"lossless": True}),
        "avif": (image, "AVIF", {"quality": 60, "speed": 10} | tagged),
        "bmp": (image.quantize(16), "BMP", {}),
        "tiff lzw": (image, "TIFF", {"compression": "tiff_lzw"} | tagged),
        "tiff jpeg": (image, "TIFF", {"compression": "jpeg"}),
        "tiff float": (Image.fromarray(grey.astype(np.float32)), "TIFF", {}),
        "gif": (image, "GIF", {"save_all": True, "append_images": [image.rotate(180)]}),
    }
    found = {}
    for name, (picture, kind, options) in kinds.items():
        file = io.BytesIO()
        picture.save(file, format=kind, **options)
        found[name] = file.getvalue()
    return found


def _geotiff_seeds() -> dict[str, bytes]:
    import rasterio
    from rasterio.io import MemoryFile

    pixels = np.asarray(photograph()).transpose(2, 0, 1)
    five = np.concatenate([pixels, pixels[:2]])
    kinds: dict[str, tuple[np.ndarray, dict[str, object]]] = {
        "geotiff deflate": (five.astype(np.uint16) * 30, {"compress": "deflate", "nodata": 0}),
        "geotiff tiled": (five.astype(np.float32), {"tiled": True, "blockxsize": 16,
                                                    "blockysize": 16, "compress": "lzw"}),
    }  # fmt: skip
    found = {}
    for name, (array, options) in kinds.items():
        with rasterio.Env(), MemoryFile() as memory:
            with memory.open(driver="GTiff", count=5, height=32, width=40, dtype=array.dtype,
                             crs="EPSG:32633", transform=rasterio.Affine(10, 0, 0, 0, -10, 0),
                             **options) as target:  # fmt: skip
                target.write(array)
            found[name] = memory.read()
    return found


def mutate(sound: dict[str, bytes], name: str, rng: np.random.Generator) -> bytes:
    """One damaged copy of a sound file."""
    data = bytearray(sound[name])
    for _ in range(int(rng.integers(1, 3))):
        kind = rng.choice(["bits", "cut", "lie", "splice", "fill", "drop", "repeat"])
        _DAMAGE[str(kind)](data, sound, rng)
    return bytes(data) or b"\0"


def _place(data: bytearray, rng: np.random.Generator) -> int:
    """Somewhere, half of the time in the header."""
    end = len(data) if rng.random() < 0.5 else min(len(data), 200)
    return int(rng.integers(max(1, end)))


def _bits(data: bytearray, _: object, rng: np.random.Generator) -> None:
    for _i in range(int(rng.integers(1, 17))):
        if data:
            data[_place(data, rng)] ^= 1 << int(rng.integers(8))


def _cut(data: bytearray, _: object, rng: np.random.Generator) -> None:
    del data[int(rng.integers(1, len(data) + 1)) :]


def _lie(data: bytearray, _: object, rng: np.random.Generator) -> None:
    """A size or an offset that is not so."""
    width = int(rng.choice([2, 4, 8]))
    value = int(rng.choice([0, 1, 255, 32767, 65535, 2**31 - 1, 2**32 - 1, 2**63 - 1]))
    order = "big" if rng.random() < 0.5 else "little"
    start = _place(data, rng)
    data[start : start + width] = (value % 256**width).to_bytes(width, order)


def _splice(data: bytearray, sound: dict[str, bytes], rng: np.random.Generator) -> None:
    """The header of another format, or its end."""
    other = sound[list(sound)[int(rng.integers(len(sound)))]]
    at, where = _place(bytearray(other), rng), _place(data, rng)
    if rng.random() < 0.5:
        data[:where] = other[:at]
    else:
        data[where:] = other[at:]


def _fill(data: bytearray, _: object, rng: np.random.Generator) -> None:
    start, length = _place(data, rng), int(rng.integers(1, 64))
    kept = data[start : start + length]
    data[start : start + length] = bytes([int(rng.choice([0, 255]))]) * len(kept)


def _drop(data: bytearray, _: object, rng: np.random.Generator) -> None:
    start = _place(data, rng)
    del data[start : start + int(rng.integers(1, 64))]


def _repeat(data: bytearray, _: object, rng: np.random.Generator) -> None:
    start = _place(data, rng)
    data[start:start] = data[start : start + int(rng.integers(1, 256))]


_DAMAGE: dict[str, Callable[[bytearray, dict[str, bytes], np.random.Generator], None]] = {
    "bits": _bits, "cut": _cut, "lie": _lie, "splice": _splice, "fill": _fill, "drop": _drop,
    "repeat": _repeat}  # fmt: skip


def case(sound: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """Case ``number``, always the same: the seed's name and the damaged bytes."""
    name = list(sound)[number % len(sound)]
    return name, mutate(sound, name, np.random.default_rng([2026, number]))


def run_cases(folder: Path, first: int, last: int, step: int) -> None:
    """In a child: read the cases one after the other; what is at hand lies in ``folder``."""
    import resource

    faulthandler.enable()

    from plusx.data.decode import read_image, read_thumbnail
    from plusx.data.reading import Reading
    from plusx.errors import UnreadableImage

    sound = seeds()
    bands = Reading(bands=(4, 2, 5), range=((0, 10_000),))
    readable = 0
    settled: float | None = None
    for number in range(first, last, step):
        name, data = case(sound, number)
        path = folder / "case"
        path.write_bytes(data)
        (folder / "number").write_text(f"{number} ({name})")
        faulthandler.dump_traceback_later(SECONDS_PER_CASE, exit=True)
        array, reason = None, ""
        geo = name.startswith("geotiff")
        try:
            array = read_image(path, reading=bands if geo else Reading())
            read_thumbnail(path, 16, reading=bands if geo else Reading(depth="window"))
        except UnreadableImage as error:
            reason = error.reason
        faulthandler.cancel_dump_traceback_later()
        assert reason.isprintable(), reason
        assert len(reason) < 400, reason
        if array is not None:
            assert array.ndim == 3, array.shape
            assert array.shape[2] == 3, array.shape
            assert array.dtype == (np.float32 if geo else np.uint8), array.dtype
            readable += 1
        if settled is None and number - first > (last - first) // 4:
            settled = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (settled or 0)
    (folder / "done").write_text(f"{readable} {grown // 1024}")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    cases = CASES_EACH * len(seeds())
    assert cases >= 2000 or not importlib.util.find_spec("pydicom"), cases
    children = []
    for part in range(2):
        folder = tmp_path / str(part)
        folder.mkdir()
        command = [sys.executable, str(Path(__file__)), str(folder), str(part), str(cases), "2"]
        children.append((folder, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    for folder, child in children:
        _, said = child.communicate(timeout=600)
        at = (folder / "number").read_text() if (folder / "number").exists() else "the start"
        assert child.returncode == 0, f"case {at}, kept in {folder}/case, ended the child:\n{said}"
        readable, grown = map(int, (folder / "done").read_text().split())
        assert 0.03 * cases / 2 < readable < 0.8 * cases / 2, (
            "the damage is too great, or too small"
        )
        assert grown < GROWTH_MIB, f"{grown} MiB more at the end than after a quarter of the cases"


def test_every_bad_file_is_named_once_and_every_good_one_predicted(
    tmp_path: Path, tiny_weights: Path
) -> None:
    from plusx.data import BadImage, read_image, unlabelled
    from plusx.errors import UnreadableImage
    from plusx.predict import Predictor

    sound = seeds()
    expected: dict[str, bool] = {}
    for number in range(150):
        good = number % 5 == 0
        name = ["jpeg", "png palette", "webp", "avif", "gif"][number % 25 // 5]
        path = tmp_path / f"{number:03}.jpg"
        path.write_bytes(sound[name] if good else case(sound, number)[1])
        try:
            read_image(path)
            expected[str(path)] = True
        except UnreadableImage:
            expected[str(path)] = False
        assert expected[str(path)] or not good, path
    predictor = Predictor(tiny_weights, device="cpu", threads=2)
    answers = list(predictor.stream(unlabelled(tmp_path)))
    assert sorted(answer.path for answer in answers) == sorted(expected)
    for answer in answers:
        assert isinstance(answer, BadImage) != expected[answer.path], answer
    assert 30 <= sum(expected.values()) < 100


if __name__ == "__main__":
    run_cases(Path(sys.argv[1]), *map(int, sys.argv[2:]))
