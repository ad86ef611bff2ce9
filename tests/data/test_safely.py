from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.data import Preprocessing, Sample, load_batches, plain_reader
from plusx.data.decode import read_image
from plusx.data.reading import Reading
from plusx.data.safely import _own, read_safely
from plusx.errors import UnreadableImage

HERE = ("jpg", "png", "gif", "bmp", "webp")
APART = ("tif", "avif")


@pytest.fixture(autouse=True)
def no_worker() -> None:
    vars(_own).clear()


def picture(folder: Path, ending: str) -> str:
    y, x = np.mgrid[0:40, 0:60]
    pixels = np.stack([4 * x, 6 * y, 2 * x + 2 * y], 2).astype(np.uint8)
    path = folder / f"picture.{ending}"
    Image.fromarray(pixels).save(path)
    return str(path)


@pytest.mark.parametrize("ending", HERE + APART)
def test_it_is_the_same_image_wherever_it_is_decoded(tmp_path: Path, ending: str) -> None:
    path = picture(tmp_path, ending)
    image, notes = read_safely(path, channels=3, reading=Reading())
    assert (image == read_image(path)).all()
    assert notes == []
    assert hasattr(_own, "call") == (ending in APART)


def test_bad_files_are_refused_in_the_same_words(tmp_path: Path) -> None:
    cut = tmp_path / "cut.tif"
    cut.write_bytes(Path(picture(tmp_path, "tif")).read_bytes()[:2000])
    for path in (str(cut), str(tmp_path / "absent.jpg"), str(tmp_path)):
        with pytest.raises(UnreadableImage) as plain:
            read_image(path)
        with pytest.raises(UnreadableImage) as safe:
            read_safely(path, channels=3, reading=Reading())
        assert str(safe.value) == str(plain.value)


def test_a_killed_decoder_is_one_bad_image(tmp_path: Path) -> None:
    """The worker dies between two images, as if the first had damaged it."""
    path = picture(tmp_path, "tif")
    samples = [Sample(path, None)] * 6
    read = plain_reader(Preprocessing.for_size(32))

    def now_and_then(sample: Sample, place: int):
        if place == 2:
            os.kill(_own.call._worker.process.pid, signal.SIGSEGV)
            _own.call._worker.process.wait()
        return read(sample, place)

    batch = next(load_batches(samples, now_and_then, batch_size=6, threads=1))
    assert batch.index.tolist() == [0, 1, 3, 4, 5]
    assert [bad.reason for bad in batch.bad] == [
        "cannot be decoded (its process crashed (SIGSEGV))"
    ]
