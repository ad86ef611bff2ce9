"""Bands of TIFF files: chosen, scaled, masked; end to end through an adapted stem."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx.data import Augmentation, Preprocessing, read_image, view_rng
from plusx.data.decode import read_thumbnail
from plusx.data.reading import Limits, Reading
from plusx.data.remarks import NO_DATA
from plusx.errors import UnreadableImage, UsageError

try:
    import rasterio
except ImportError:
    pytest.skip("extra 'geotiff' absent", allow_module_level=True)


def write(path: Path, values: np.ndarray, **options: Any) -> Path:
    """(C, H, W) as a GeoTIFF."""
    options = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)} | options
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width,
                       dtype=values.dtype, **options) as target:  # fmt: skip
        target.write(values)
    return path


def cube(dtype: Any = np.uint16) -> np.ndarray:
    """(5, 4, 6): band b holds b * 1000 + the pixel's number (b * 10 where that is too much)."""
    step = 1000 if np.dtype(dtype).itemsize > 1 else 10
    return (np.arange(1, 6)[:, None, None] * step + np.arange(24).reshape(4, 6)).astype(dtype)


def reason(path: Path, **options: Any) -> str:
    with pytest.raises(UnreadableImage) as caught:
        read_image(path, **options)
    return caught.value.reason


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, np.float64, np.int32])
def test_bands_and_range(tmp_path: Path, dtype: Any) -> None:
    path = write(tmp_path / "x.tif", cube(dtype))
    got = read_image(path, reading=Reading(bands=(4, 3, 2), range=((0, 10_000),)))
    assert (got.shape, got.dtype) == ((4, 6, 3), np.float32)
    assert np.allclose(got, cube()[[3, 2, 1]].transpose(1, 2, 0) / 10_000 * 255)
    each = Reading(bands=(1, 5), range=((1000, 1023), (0, 2000)))
    got = read_image(path, channels=2, reading=each)
    assert got[..., 0].min() == 0
    assert got[..., 0].max() == 255
    assert (got[..., 1] == 255).all(), "cut at the end of the stated range"


def test_bytes_stay_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", cube(np.uint8))
    got = read_image(path, reading=Reading(bands=(5, 1, 3)))
    assert got.dtype == np.uint8
    assert (got == cube(np.uint8)[[4, 0, 2]].transpose(1, 2, 0)).all()
    whole = read_image(path, channels=5)
    assert (whole == cube(np.uint8).transpose(1, 2, 0)).all()


def test_no_data_is_masked(tmp_path: Path) -> None:
    values = cube(np.uint8)
    values[:, 0, 0] = 0
    path = write(tmp_path / "x.tif", values, nodata=0)
    notes: list[str] = []
    got = read_image(path, channels=5, notes=notes)
    assert got.dtype == np.float32
    assert np.isnan(got[0, 0]).all()
    assert np.isfinite(got).sum() == 23 * 5
    assert notes == [NO_DATA]
    floats = cube(np.float32)
    floats[2, 1, 1] = np.nan
    path = write(tmp_path / "y.tif", floats)
    got = read_image(path, channels=5, reading=Reading(range=((0, 10_000),)))
    assert np.isnan(got).sum() == 1
    assert "no data" in reason(write(tmp_path / "z.tif", 0 * cube(np.uint8), nodata=0), channels=5)


def test_no_data_is_zero_for_the_network() -> None:
    reading = Reading(bands=(1, 2, 3), range=((0, 1),))
    preprocessing = Preprocessing(8, 8, reading=reading)
    image = torch.full((8, 8, 3), 200.0)
    image[2:5, 2:5] = torch.nan
    seen = preprocessing(image)
    assert seen[:, 3, 3].abs().max() < 1e-6
    assert torch.isfinite(seen).all()
    plain = Preprocessing(8, 8)(torch.full((8, 8, 3), 200, dtype=torch.uint8))
    assert torch.equal(seen[:, 0, 0], plain[:, 0, 0]), "the same value, bytes or floats"
    view = Augmentation(scale=(1, 1), ratio=(1, 1))(image, preprocessing, rng=view_rng(0, 0, 0))
    assert torch.isfinite(view).all()
    with pytest.raises(UsageError, match="expected"):
        Preprocessing(8, 8)(image)  # a float photograph may be on another scale


def test_what_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", cube())
    assert "--range" in reason(path, channels=5)
    assert "has 5 bands; band 9" in reason(path, reading=Reading(bands=(1, 2, 9)))
    assert "gives 2 bands; expected 3" in reason(path, reading=Reading(bands=(1, 2)))
    assert "has 5 bands; expected 4" in reason(path, channels=4)
    assert "--bands" in reason(write(tmp_path / "f.tif", cube(np.float64)))
    assert "complex64 values" in reason(write(tmp_path / "c.tif", cube(np.complex64)), channels=5)
    small = Reading(bands=(1, 2, 3), range=((0, 1),), limits=Limits(pixels=23))
    assert "more than 23 pixels" in reason(path, reading=small)
    small = Reading(bands=(1, 2, 3), range=((0, 1),), limits=Limits(decoded_bytes=100))
    assert "unpacks to more than 100 bytes" in reason(path, reading=small)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    assert "no TIFF" in reason(tmp_path / "x.png", reading=Reading(bands=(1, 2, 3)))


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"tiled": True}])
def test_truncated(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(0, 255, (5, 200, 200), dtype=np.uint8)
    path = write(tmp_path / "x.tif", values, **options)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    said = reason(path, channels=5)
    assert "vsimem" not in said
    path.write_bytes(whole[:100])
    assert "vsimem" not in reason(path, channels=5)


def test_files_beside_it_take_no_part(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", cube(np.uint8))
    before = read_image(path, channels=5)
    (tmp_path / "x.tif.msk").write_bytes(path.read_bytes())
    (tmp_path / "x.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>11</NoDataValue></PAMRasterBand>"
        "</PAMDataset>"
    )
    assert (read_image(path, channels=5) == before).all()


def test_thumbnails_show_bands(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", np.tile(cube(), (1, 20, 20)), nodata=1005)
    bands = Reading(bands=(5, 4, 1), range=((0, 6000),))
    small = read_thumbnail(path, 30, reading=bands)
    assert (small.shape, small.dtype) == ((20, 30, 3), np.uint8)


def test_real_scenes(shared_data: Path) -> None:
    folder = shared_data / "data" / "geotiff"
    landsat = read_image(folder / "landsat_RGB.byte.tif", reading=Reading(bands=(3, 2, 1)))
    as_photograph = read_image(folder / "landsat_RGB.byte.tif")
    seen = np.isfinite(landsat)
    assert 0.2 < 1 - seen.mean() < 0.5, "the rim without data"
    assert (landsat[seen] == as_photograph[:, :, ::-1][seen]).all()
    eight = read_image(folder / "worldview_8band_uint8.tif", channels=8)
    assert (eight.shape, eight.dtype) == ((650, 500, 8), np.uint8)


def tiles(scenes: Path, folder: Path) -> Path:
    """``burnt`` and ``unburnt`` tiles of 24 x 24 pixels and 5 float bands, cut from real scenes."""
    for scene in sorted((scenes / "post_fire").glob("*.tif")):
        with rasterio.open(scene) as source, rasterio.open(scenes / "masks" / scene.name) as mask:
            values, burnt = source.read(), mask.read(1)
        for top in range(0, 201, 24):
            for left in range(0, 201, 24):
                box = np.s_[top : top + 24, left : left + 24]
                share = burnt[box].mean()
                if 0.1 < share < 0.6:
                    continue
                place = folder / ("burnt" if share >= 0.6 else "unburnt")
                place.mkdir(parents=True, exist_ok=True)
                write(place / f"{scene.stem}_{top}_{left}.tif", values[(slice(None), *box)])
    return folder


def test_train_evaluate_predict(
    shared_data: Path, tmp_path: Path, tiny_weights: Path, command: Callable[..., Any]
) -> None:
    data = tiles(shared_data / "data" / "geotiff" / "wildfire", tmp_path / "data")
    images, run = len(list(data.rglob("*.tif"))), tmp_path / "run"
    ranges = "0,255,0,255,0,255,0,6000,0,5000"
    said = command("train", data, "--weights", tiny_weights, "--bands", "1,2,3,4,5", "--range",
                   ranges, "--out", run, "--epochs", 3, "--batch-size", 16, "--views", 2,
                   "--device", "cpu", "--precision", "float32", "--threads", 2)  # fmt: skip
    assert said.code == 0, said.err
    assert "left out" not in said.err
    said = command("evaluate", run, data, "--split", "all", "--device", "cpu", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["n"] == images
    assert found["figures"]["balanced_accuracy"]["value"] > 0.7
    said = command("predict", run, data / "burnt", "--device", "cpu", "--json")
    assert said.code == 0, said.err
    assert len(said.out.splitlines()) == len(list((data / "burnt").iterdir()))
    config = json.loads((run / "model" / "config.json").read_text())
    stored = config["plusx"]["preprocessing"]["reading"]
    assert stored["bands"] == [1, 2, 3, 4, 5]
    assert stored["range"][3] == [0, 6000]
    assert "bands = [" in (run / "config.toml").read_text()


def test_options_that_cannot_be(command: Callable[..., Any], photos: Path) -> None:
    for options, word in (
        (["--bands", "4,x"], "--bands '4,x'"),
        (["--bands", "0,1"], "from 1"),
        (["--bands", "1,2", "--channels", "3"], "--channels is 3"),
        (["--range", "5"], "--range '5'"),
        (["--range", "9,1"], "must rise"),
        (["--bands", "1,2,3", "--range", "0,1,0,1"], "2 pairs for 3 bands"),
        (["--depth", "deep"], "--depth 'deep'"),
        (["--background", "red"], "--background 'red'"),
        (["--max-pixels", "0"], "--max-pixels 0"),
    ):
        said = command("train", photos, *options, "--weights", "none")
        assert word in said.error, said.error
