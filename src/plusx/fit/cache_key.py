"""All that an activation depends on, and the names of images by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from PIL import features
from torch import nn

from plusx._version import __version__
from plusx.data import AnyAugmentation, Preprocessing
from plusx.data.filebytes import open_bytes
from plusx.fit.cache_rows import Keys
from plusx.fit.trunk_engine import TrunkEngine
from plusx.model.classifier import Classifier
from plusx.model.surgery import split_trunk

DECODERS = ("pillow", "numpy", "torch", "pillow-heif", "pydicom", "rasterio", "pylibjpeg")
"""Packages that turn a file into pixels and pixels into a view."""


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes, kinds and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(array.shape)} {array.dtype}\n".encode())
        digest.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def decoders() -> dict[str, str]:
    """Versions of all that reads images here."""
    found = {"plusx": __version__, "libjpeg": str(features.version("jpg"))}
    for name in DECODERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def depends(
    model: Classifier, top_blocks: int, preprocessing: Preprocessing, engine: TrunkEngine
) -> dict[str, Any]:
    """What the trunk before the last ``top_blocks`` blocks gives for an image depends on this
    alone, the image apart."""
    spec = {k: v for k, v in model.spec.to_dict().items() if k != "classes"}
    return {
        "network": spec,
        "weights": weights_hash(split_trunk(model, top_blocks)[0]),
        "split": top_blocks,
        "preprocessing": preprocessing.to_dict(),
        "engine": asdict(engine),
        "decoders": decoders(),
    }


def depends_views(
    plain: dict[str, Any], augmentation: AnyAugmentation, seed: int
) -> dict[str, Any]:
    """The same for augmented views."""
    return plain | {"augmentation": asdict(augmentation), "seed": seed}


def file_keys(paths: Sequence[str], threads: int = 1) -> Keys:
    """(n,) content hash of each file, as a scan has it; of one that cannot be read, of its name."""
    with ThreadPoolExecutor(threads) as pool:
        return np.array(list(pool.map(_file_key, paths)), dtype="S16")


def _file_key(path: str) -> bytes:
    try:
        with open_bytes(path) as file:
            content = file.read()
    except (OSError, ValueError):
        content = b"absent " + path.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(content, digest_size=16).digest()
