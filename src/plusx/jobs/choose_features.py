"""Features of images, kept by the net that made them and by the images' content.

One file a net, ``features/NAME-KEY.npz`` in the cache folder: the key names weights, network,
preprocessing and precision; a row is found by the hash of its image's bytes, so images may be
moved, renamed or joined by others.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from plusx.atomic import replacing
from plusx.data import BadImage, Sample
from plusx.data.filebytes import open_bytes
from plusx.data.remarks import Remarks
from plusx.engines import TorchEngine
from plusx.fit.features import Loading, first_pass
from plusx.jobs.choose_candidates import Net
from plusx.jobs.talk import Talk
from plusx.weights import Network

VERSION = 1
"""To be raised when features are computed differently."""

Features = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint8]

_HASH = 16


def content_hashes(samples: Sequence[Sample], threads: int) -> Hashes:
    """(n, 16) BLAKE2b of each file's bytes; zeros where it cannot be read."""

    def one(sample: Sample) -> bytes:
        digest = hashlib.blake2b(digest_size=_HASH)
        try:
            with open_bytes(sample.path) as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except (OSError, ValueError):
            return bytes(_HASH)
        return digest.digest()

    with ThreadPoolExecutor(threads) as pool:
        joined = b"".join(pool.map(one, samples))
    return np.frombuffer(joined, np.uint8).reshape(-1, _HASH)


class FeatureFile:
    """The kept features of one net.

    Args:
        folder: where such files are.
        net: whose they are.
        dtype: in which it runs.
    """

    def __init__(self, folder: Path, net: Net, dtype: torch.dtype) -> None:
        said = [VERSION, net.sha256, net.spec, net.preprocessing.to_dict(), str(dtype)]
        key = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
        self.path = folder / f"{re.sub(r'[^0-9A-Za-z_]+', '-', net.name)}-{key[:24]}.npz"
        self._hashes: Hashes = np.zeros((0, _HASH), np.uint8)
        self._rows: Features = np.zeros((0, 0), np.float32)
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        """What is damaged is computed again."""
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                hashes, rows = kept["hashes"], kept["features"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return
        fits = hashes.ndim == rows.ndim == 2 and hashes.shape == (len(rows), _HASH)
        if fits and hashes.dtype == np.uint8 and rows.dtype == np.float32:
            self._hashes, self._rows = hashes, rows

    def find(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        """(n,) the row of each image, -1 where it has none."""
        known = {row.tobytes(): at for at, row in enumerate(self._hashes)}
        return np.array([known.get(row.tobytes(), -1) for row in hashes], np.int64)

    def rows(self, found: npt.NDArray[np.int64]) -> Features:
        """Features (n, d) of rows that ``find`` gave."""
        return self._rows[found]

    def add(self, hashes: Hashes, features: Features) -> None:
        """Keep more, on disk as well."""
        if not len(features):
            return
        same = self._rows.shape[1] == features.shape[1]
        self._rows = np.concatenate([self._rows, features]) if same else features
        self._hashes = np.concatenate([self._hashes, hashes]) if same else hashes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as beside, beside.open("wb") as file:
            np.savez(file, allow_pickle=False, hashes=self._hashes, features=self._rows)


def extract(
    net: Net,
    network: Network,
    samples: Sequence[Sample],
    *,
    device: torch.device,
    dtype: torch.dtype,
    threads: int,
    talk: Talk,
) -> tuple[Features, npt.NDArray[np.bool_], tuple[BadImage, ...]]:
    """Run images through a net; nothing is kept.

    Returns:
        (n, d) features, (n,) which could be read, and those that could not.
    """
    engine = TorchEngine(network.model, device=device, dtype=dtype)
    remarks = Remarks()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        talk.phase(f"features of {net.name}", len(samples)) as tick,
    ):
        first = first_pass(
            engine, samples, net.preprocessing, folder=Path(folder),
            loading=Loading(threads, tick=lambda n: tick(n, ""), remarks=remarks),
        )  # fmt: skip
        features = np.array(first.features)
    for line in remarks.lines():
        talk.note(line)
    return features, first.readable, first.bad
