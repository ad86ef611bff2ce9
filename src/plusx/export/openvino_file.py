"""ONNX models as OpenVINO's IR: two files, ``.xml`` and ``.bin``.

The IR is made from the ONNX model by OpenVINO's own reader. That reader drops ``antialias`` of a
``Resize`` in silence; the graphs here have none (``plusx.export.graph``), and the check after each
export compares the resize alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plusx.weights.seal import seal


def to_openvino(model: Any) -> Any:
    """An ``onnx.ModelProto`` -> an ``openvino.Model`` with the same names."""
    import openvino  # the extra 'openvino'

    return openvino.Core().read_model(io.BytesIO(model.SerializeToString()))


def write_openvino(model: Any, keys: Mapping[str, str], path: Path, *, half: bool) -> None:
    """Write ``path`` and its ``.bin`` with these keys in ``rt_info``, and seal them.

    Args:
        model: an ``openvino.Model``; its ``rt_info`` is changed.
        keys: go below ``rt_info``.
        path: ends in ``.xml``.
        half: whether weights are stored as float16.

    Raises:
        OSError: it cannot be written.
    """
    import openvino

    for key, value in keys.items():
        model.set_rt_info(value, [key])
    try:
        openvino.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:  # what it makes of a full disk
        said = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise OSError(None, f"OpenVINO could not write it ({said})", str(path)) from error
    seal(path)
