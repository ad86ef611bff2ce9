"""TIFF files of several bands, as satellites and microscopes have. Needs the extra ``geotiff``."""

from __future__ import annotations

from typing import Any

import numpy as np

from plusx.data.filebytes import Refused
from plusx.data.photograph import check_size
from plusx.data.reading import Reading
from plusx.data.remarks import NO_DATA

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(content: bytes) -> bool:
    """Whether these are the first bytes of a TIFF or BigTIFF file."""
    return content[:4] in _TIFF


def read_bands(content: bytes, channels: int, reading: Reading, notes: list[str]) -> np.ndarray:
    """The chosen bands, (H, W, C), without any resampling.

    uint8 where the file has uint8 values, no range is asked for and no pixel lacks data; else
    float32 with the stated range on 0..255: not rounded, cut at both ends, NaN where there is
    no data (``nodata``, masks, NaN). Preprocessing puts the mean there.

    Raises:
        Refused: no such bands, values of more than 8 bits without a range, complex values, over
            a limit, or the extra is not installed. Any other exception: the decoder's.
    """
    try:
        import rasterio
        from rasterio.io import MemoryFile
    except ImportError:
        raise Refused("is a TIFF of bands; to read it: pip install 'plusx[geotiff]'") from None
    # One driver, no files beside this one, no network, no threads of its own.
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_NUM_THREADS": "1",
               "GDAL_PAM_ENABLED": "NO", "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none"}  # fmt: skip
    with (
        rasterio.Env(**options),
        MemoryFile(content, filename="image.tif") as memory,
        memory.open(driver="GTiff") as source,
    ):
        bands = _bands(source.count, channels, reading)
        kinds = {source.dtypes[band - 1] for band in bands}
        _check_kinds(kinds, reading)
        itemsize = max(np.dtype(kind).itemsize for kind in kinds)
        check_size((source.width, source.height), len(bands) * (itemsize + 5), reading.limits)
        values = source.read(bands)
        present = source.read_masks(bands) > 0
    return np.ascontiguousarray(_scaled(values, present, reading, notes).transpose(1, 2, 0))


def _bands(count: int, channels: int, reading: Reading) -> list[int]:
    if reading.bands is None:
        if count != channels:
            raise Refused(f"has {count} bands; expected {channels} (choose with --bands)")
        return list(range(1, count + 1))
    if max(reading.bands) > count:
        raise Refused(f"has {count} bands; band {max(reading.bands)} was asked for")
    if len(reading.bands) != channels:
        raise Refused(f"gives {len(reading.bands)} bands; expected {channels}")
    return list(reading.bands)


def _check_kinds(kinds: set[str], reading: Reading) -> None:
    if strange := {kind for kind in kinds if np.dtype(kind).kind not in "iuf"}:
        raise Refused(f"holds {', '.join(sorted(strange))} values, which are not read")
    if reading.range is None and kinds != {"uint8"}:
        raise Refused(
            f"holds {', '.join(sorted(kinds))} values: say which become 0 and 1, with --range "
            "LOW,HIGH"
        )


def _scaled(values: Any, present: Any, reading: Reading, notes: list[str]) -> np.ndarray:
    """(C, H, W) in the file's units -> on 0..255, NaN where there is no data."""
    if values.dtype.kind == "f":
        present = present & np.isfinite(values)
    if not present.any():
        raise Refused("has no data in the chosen bands")
    whole = bool(present.all())
    if reading.range is None and whole:
        return np.asarray(values)
    if not whole:
        notes.append(NO_DATA)
    pairs = reading.range or ((0.0, 255.0),)
    low, high = (np.array(side, np.float64)[:, None, None] for side in zip(*pairs, strict=True))
    scaled = ((values - low) * (255 / (high - low))).clip(0, 255).astype(np.float32)
    scaled[~present] = np.nan
    return np.asarray(scaled)
