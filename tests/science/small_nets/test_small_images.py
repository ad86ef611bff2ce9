"""Images come into memory as they are, from every source, and are augmented as the paper says."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from plusx.errors import DataError
from plusx.science.cifar import augment, load_small_images


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), np.uint8)


def folder_of(root: Path, images: np.ndarray) -> Path:
    for number, pixels in enumerate(images):
        place = root / ("train" if number % 3 else "test") / "ab"[number // 3 % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:02}.png")
    return root


def rows(images: torch.Tensor) -> set[bytes]:
    return {one.permute(1, 2, 0).contiguous().numpy().tobytes() for one in images}


def test_a_folder_and_its_tar_file_give_the_same_pixels(tmp_path: Path) -> None:
    images = pictures(12)
    root = folder_of(tmp_path / "images", images)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for part in ("train", "test"):
            tar.add(root / part, part)
        escape = tarfile.TarInfo("../escaped.png")
        escape.size = 3
        tar.addfile(escape, io.BytesIO(b"abc"))
    one, other = load_small_images([root]), load_small_images([tmp_path / "x.tar"])
    assert one.classes == other.classes == ("a", "b")
    assert torch.equal(one.train.images, other.train.images)
    assert torch.equal(one.test.targets, other.test.targets)
    assert rows(one.train.images) == {images[i].tobytes() for i in range(12) if i % 3}
    assert not (tmp_path / "escaped.png").exists()
    normal = one.normalise(one.train.images)
    assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(normal.std((0, 2, 3)), torch.ones(3), atol=1e-3)


def test_the_binary_version_is_read_and_the_pickled_one_refused(tmp_path: Path) -> None:
    images = pictures(6, 1)
    for name, part in (("data_batch_1.bin", images[:4]), ("test_batch.bin", images[4:])):
        records = [bytes([i]) + p.transpose(2, 0, 1).tobytes() for i, p in enumerate(part)]
        (tmp_path / name).write_bytes(b"".join(records))
    found = load_small_images([tmp_path])
    assert rows(found.test.images) == {p.tobytes() for p in images[4:]}
    assert sorted(found.train.targets.tolist()) == [0, 1, 2, 3]
    (tmp_path / "test_batch.bin").write_bytes(b"123")
    with pytest.raises(DataError, match=r"test_batch\.bin: is no file of CIFAR-10's binary"):
        load_small_images([tmp_path])
    pickled = tmp_path / "py"
    pickled.mkdir()
    (pickled / "data_batch_1").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match="python version"):
        load_small_images([pickled])


def test_what_cannot_be_studied_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "one" / "train" / "a"
    place.mkdir(parents=True)
    Image.fromarray(pictures(1)[0]).save(place / "0.png")
    with pytest.raises(DataError, match="shows 1 class"):
        load_small_images([tmp_path / "one"])
    (tmp_path / "one" / "train" / "b").mkdir()
    (tmp_path / "one" / "train" / "b" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png is unreadable"):
        load_small_images([tmp_path / "one"])
    with pytest.raises(DataError, match="names no source"):
        load_small_images([])


def test_crops_are_windows_of_the_padded_image_and_half_are_flipped() -> None:
    images = torch.from_numpy(pictures(64, 2)).permute(0, 3, 1, 2) | 1  # no pixel is zero
    rng = np.random.Generator(np.random.PCG64(3))
    flips, shifts = 0, set()
    for before, after in zip(images, augment(images, rng), strict=True):
        padded = torch.nn.functional.pad(before, (4, 4, 4, 4))
        here = [
            (dy, dx, flip)
            for dy in range(9) for dx in range(9) for flip in (False, True)
            if torch.equal(after.flip(2) if flip else after, padded[:, dy : dy + 32, dx : dx + 32])
        ]  # fmt: skip
        assert len(here) == 1
        flips += here[0][2]
        shifts.add(here[0][:2])
    assert 16 < flips < 48
    assert len(shifts) > 30
