"""HDF5 and ``.keras`` files, read without Keras and without trust.

Keras 3 writes ``layers/conv2d_7/vars/0`` with the layer's name as an attribute of ``vars``; older
ones, and ``.h5``, write ``conv2_block1_1_conv/.../kernel``. Either way a flat ``layer/variable``
comes out. Links are never followed, nothing is extracted from a zip, no object is built.

Sources: ``keras/src/saving/saving_lib.py`` and ``keras/src/legacy/saving/legacy_h5_format.py`` of
https://github.com/keras-team/keras.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plusx.errors import MissingExtra, WeightsError

WEIGHTS, CONFIG = "model.weights.h5", "config.json"

MOST_NODES, MOST_DEPTH = 50_000, 16
"""Groups and tensors in a file, and how deep they nest: a link to itself goes on forever."""

MOST_BYTES, EXPANSION, FLOOR = 1 << 32, 100, 1 << 26
"""All tensors together; and, from 64 MiB on, how many times as much as the file holds."""

_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
"""What Keras 3 numbers 0, 1, ... in a layer of each class."""

_NAMES = {name for names in _VARIABLES.values() for name in names}

_CLASS = {"Conv2D": "conv2d", "Dense": "dense", "BatchNormalization": "batch_normalization"}


@dataclass(frozen=True)
class KerasFile:
    """``tensors`` under ``layer/variable``; ``layers`` is what the file's config says of each
    layer: name -> (class, settings), empty for weights alone."""

    tensors: dict[str, Tensor]
    layers: dict[str, tuple[str, dict[str, Any]]]


def read_keras(path: Path) -> KerasFile:
    """A ``.h5``, ``.hdf5``, ``.weights.h5`` or ``.keras`` file.

    Raises:
        MissingExtra: h5py is not installed.
        WeightsError: damaged, not such a file, or one that plays tricks (links, huge tensors).
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra(f"{path}: reading Keras weights", "keras") from error
    config: Any = None
    opened: Any = path
    size = path.stat().st_size
    if path.suffix == ".keras":
        config, content = _unzip(path)
        opened, size = io.BytesIO(content), len(content)
    try:
        with h5py.File(opened, "r") as file:
            if config is None:
                config = _model_config(file)
            layers = {name: (kind, own) for kind, name, own in _layers(config)}
            root = file["model_weights"] if _is_group(file, "model_weights") else file
            tensors = _tensors(root, layers, size, path)
    except WeightsError:
        raise
    except Exception as error:  # a damaged file can raise anything at all
        raise WeightsError(
            f"{path}: is truncated or not a Keras weights file; save or download it again"
        ) from error
    if not tensors:
        raise WeightsError(
            f"{path}: holds no weights of layers; save the model or its weights again"
        )
    return KerasFile(tensors, layers)


def _unzip(path: Path) -> tuple[Any, bytes]:
    """config.json, parsed, and the bytes of model.weights.h5."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            for name in names:
                if name.startswith("/") or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                    raise WeightsError(
                        f"{path}: holds the path {name!r}; Keras writes no such file"
                    )
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise WeightsError(f"{path}: holds {twice[0]!r} twice; save the model again")
            if missing := [name for name in (CONFIG, WEIGHTS) if name not in names]:
                raise WeightsError(f"{path}: has no {missing[0]}; save it with model.save()")
            for member in members:
                limit = max(FLOOR, EXPANSION * member.compress_size)
                if member.file_size > min(limit, MOST_BYTES):
                    raise WeightsError(
                        f"{path}: {member.filename} would unpack {member.compress_size} bytes to "
                        f"{member.file_size}; that is no model that Keras writes"
                    )
            return json.loads(archive.read(CONFIG)), archive.read(WEIGHTS)
    except WeightsError:
        raise
    except Exception as error:  # as above
        raise WeightsError(
            f"{path}: is truncated or not a .keras file; save or download it again"
        ) from error


def _model_config(file: Any) -> Any:
    text = file.attrs.get("model_config")
    if text is None:
        return None
    return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)


def _layers(config: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(class, name, settings) of each layer, nested models included, in the file's order."""
    pending = [config]
    while pending:
        node = pending.pop()
        if not isinstance(node, Mapping):
            continue
        own = node.get("config")
        if not isinstance(own, Mapping):
            continue
        if isinstance(own.get("layers"), list):
            pending += reversed(own["layers"])
        elif isinstance(own.get("name"), str):
            yield str(node.get("class_name")), own["name"], dict(own)


def _is_group(parent: Any, name: str) -> bool:
    import h5py

    return (
        isinstance(parent.get(name, getlink=True, default=None), h5py.HardLink)
        and parent.get(name, getclass=True) is h5py.Group
    )


def _tensors(
    root: Any, layers: Mapping[str, tuple[str, dict[str, Any]]], size: int, path: Path
) -> dict[str, Tensor]:
    # For files of Keras 3 that do not name their layers: the n-th of its class in the config.
    counted: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for name, (kind, _) in layers.items():
        if kind in _CLASS:
            number = numbers[kind]
            counted[_CLASS[kind] + (f"_{number}" if number else "")] = name
            numbers[kind] += 1
    found: dict[str, Tensor] = {}
    total = 0
    for place, data in _datasets(root, path):
        key = _key(place, data, counted, path)
        if key is None:
            continue
        if data.dtype.kind != "f":
            if key.rpartition("/")[2] not in _NAMES:  # a counter of some other layer
                continue
            raise WeightsError(f"{path}: {'/'.join(place)} has {data.dtype}; weights are floats")
        total += math.prod(data.shape) * data.dtype.itemsize
        if total > min(MOST_BYTES, max(FLOOR, EXPANSION * size)):
            raise WeightsError(
                f"{path}: its tensors claim more than {total} bytes in a file of {size}; "
                "that is no model that Keras writes"
            )
        if key in found:
            raise WeightsError(f"{path}: two layers are called {key.rpartition('/')[0]!r}")
        with np.errstate(over="ignore"):  # infinite values are named later
            found[key] = torch.from_numpy(data[()].astype("float32"))
    return found


def _datasets(root: Any, path: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every tensor with its place; links of any kind but the plain one are refused."""
    import h5py

    pending: list[tuple[tuple[str, ...], Any]] = [((), root)]
    seen = 0
    while pending:
        place, node = pending.pop()
        for name in node:
            seen += 1
            here = (*place, name)
            shown = "/".join(here)
            if seen > MOST_NODES or len(here) > MOST_DEPTH:
                raise WeightsError(f"{path}: holds more groups than any model; not read")
            link = node.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise WeightsError(
                    f"{path}: {shown} is a link ({type(link).__name__}) to somewhere else, which "
                    "is never followed; save the model again"
                )
            child = node[name]
            if isinstance(child, h5py.Group):
                pending.append((here, child))
            elif not isinstance(child, h5py.Dataset) or child.external or child.is_virtual:
                raise WeightsError(f"{path}: {shown} has its data elsewhere, which is not followed")
            else:
                yield here, child


def _key(place: tuple[str, ...], data: Any, counted: Mapping[str, str], path: Path) -> str | None:
    """``layer/variable``; None for what is no layer's weight (optimizer, random generators)."""
    if place[0].startswith(("optimizer", "_optimizer", "top_level_model_weights", "metrics")):
        return None
    if len(place) < 3 or place[-2] != "vars":
        return f"{place[-2]}/{place[-1].partition(':')[0]}" if len(place) > 1 else None
    kind = re.sub(r"_\d+$", "", place[-3])
    names = _VARIABLES.get(kind)
    if "seed_generator" in kind:
        return None
    layer = data.parent.attrs.get("name", counted.get(place[-3]))
    if layer is None:
        raise WeightsError(
            f"{path}: does not name its layers, as files of older versions of Keras 3; load it "
            "there and save the whole model: model.save('NAME.keras')"
        )
    number = int(place[-1]) if place[-1].isdigit() else -1
    variable = names[number] if names and 0 <= number < len(names) else place[-1]
    return f"{layer}/{variable}"
