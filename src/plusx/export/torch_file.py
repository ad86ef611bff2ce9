"""Programs as ``torch.export`` archives, which load without plusx."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from plusx.weights.seal import SEAL, archive_digest


def write_torch(program: ExportedProgram, keys: Mapping[str, str], path: Path) -> None:
    """Write a ``.pt2`` file with these keys as extra files, sealed.

    Raises:
        OSError: it cannot be written.
    """
    sealed = dict(keys)
    for _ in range(2):  # the second time with the hash of all else, which stays the same
        data = io.BytesIO()
        torch.export.save(program, data, extra_files=sealed)
        with zipfile.ZipFile(data) as archive:
            sealed[SEAL] = archive_digest(archive)
    path.write_bytes(data.getvalue())
