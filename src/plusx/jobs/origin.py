"""What a run was made of and with: its images by content, its files, its versions and machine."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch

from plusx._version import __version__
from plusx.data.shard_files import is_shards
from plusx.jobs.audit import Audit
from plusx.jobs.options import TrainOptions


def versions() -> dict[str, str]:
    """What the run was made with."""
    return {
        "plusx": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "command": " ".join(sys.argv),
    }


def fingerprint(audit: Audit) -> str:
    """A hash of what the images are, by content, and of how they are labelled; where they lie does
    not matter."""
    names = audit.listing.classes
    rows = sorted(
        (
            _relative(sample.path, audit.listing.root),
            ";".join(names[target] for target in sample.targets),
            str(sample.split),
            str(sample.group),
            digest.tobytes().hex(),
        )
        for sample, digest in zip(audit.listing.samples, audit.table.rows["file_hash"], strict=True)
    )
    found = hashlib.sha256()
    for row in rows:
        found.update("\0".join(row).encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()


def _relative(path: str, root: str) -> str:
    """The path below ``root``; as it is where it lies elsewhere."""
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return path


def named_files(options: TrainOptions) -> dict[str, object]:
    """Where the files lie that the options name, for a resume from another folder."""
    named = {"data": options.data, "weights": options.weights, "model": options.model,
             "teacher": options.teacher, "init": options.init}  # fmt: skip
    return {name: os.path.abspath(text) for name, text in named.items()  # noqa: PTH100
            if text and (Path(text).exists() or is_shards(text))}  # fmt: skip
