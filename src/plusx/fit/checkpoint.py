"""Checkpoints of the loop: written beside and renamed, read without running code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from plusx.atomic import replacing
from plusx.errors import ArtifactError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write plain data and tensors to ``path``, atomically.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            torch.save(state, beside)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error
    except RuntimeError as error:  # torch says no more than at which byte it had to stop
        raise ArtifactError(
            f"{path}: cannot be written: the disk is probably full; make room, or give --out "
            "on another disk"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote; None where there is none.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ArtifactError(
            f"{path}: the checkpoint is damaged; remove it to train from the start"
        ) from error
    assert isinstance(state, dict)
    return state
