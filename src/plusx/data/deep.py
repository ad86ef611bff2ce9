"""Grey values with more than 8 bits, to bytes, by a stated rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plusx.data.filebytes import Refused
from plusx.data.reading import Reading
from plusx.data.remarks import OWN_RANGE

Bytes = npt.NDArray[np.uint8]


def grey_bytes(values: npt.NDArray[Any], reading: Reading, notes: list[str]) -> Bytes:
    """(H, W) uint8 from deep grey values.

    ``full-range``: 16-bit integers give value >> 8. 32-bit integers and floats have no stated
    range: it is the first of 0..1 (floats only), 0..255 (floats only) and 0..65535 that holds
    every value, else the image's own minimum to maximum (remarked); mapped linearly to 0..255.

    ``window``: the image's two percentiles become 0 and 255; what lies beyond is cut there.

    Raises:
        Refused: a value is not a finite number.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refused("holds values that are not finite numbers")
    if reading.depth == "window":
        low, high = np.percentile(values, reading.percentiles)
        return stretch(values, float(low), float(high))
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _high_bytes(values)
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "iu":
        if low >= 0 and high <= 65535:
            return _high_bytes(values)
    else:
        for top in (1.0, 255.0, 65535.0):
            if low >= 0 and high <= top:
                return stretch(values, 0.0, top)
    notes.append(OWN_RANGE)
    return stretch(values, low, high)


def stretch(values: npt.NDArray[Any], low: float, high: float) -> Bytes:
    """Values so that ``low`` becomes 0 and ``high`` 255, rounded; beyond, cut."""
    scaled = values.astype(np.float64)
    scaled -= low
    scaled *= 255.0 / max(high - low, 1e-300)
    np.rint(scaled.clip(0, 255, out=scaled), out=scaled)
    whole: Bytes = scaled.astype(np.uint8)
    return whole


def _high_bytes(values: npt.NDArray[Any]) -> Bytes:
    high: Bytes = (values >> 8).astype(np.uint8)
    return high
