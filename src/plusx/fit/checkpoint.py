"""Checkpoints of the loop: flushed, renamed into place, checked by hash, read without running code.

A file is what ``torch.save`` writes and a last line with the SHA-256 of all before it, which
``torch.load`` passes over. The one before is kept: where the last is damaged, training goes on from
there, and since a resumed run repeats every step exactly, to the same end.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from plusx.atomic import replacing
from plusx.errors import ArtifactError

_MARK = b"\nplusx sha256 "
_FOOTER = len(_MARK) + 64
_CHUNK = 1 << 20


class Checkpoints:
    """``last.pt``, the one ``before.pt``, and ``best.pt`` with the best weights so far.

    Args:
        folder: they lie in; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last, self.before = folder / "last.pt", folder / "before.pt"
        self.best = folder / "best.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write ``last.pt``; what it was becomes ``before.pt``.

        Raises:
            ArtifactError: the disk is full or the folder cannot be written; both stay as they were.
        """
        save_checkpoint(self.last, state, replaced=self.before)

    def load(self, note: Callable[[str], None]) -> dict[str, Any] | None:
        """The latest that is whole; None where there is none.

        Args:
            note: told of a damaged one that is passed over.

        Raises:
            ArtifactError: there are some, and all are damaged.
        """
        damage: ArtifactError | None = None
        for path in (self.last, self.before):
            try:
                state = load_checkpoint(path)
            except ArtifactError as error:
                damage = error
                continue
            if state is None:
                continue
            if damage is not None:
                note(f"{self.last}: is damaged: going on from the checkpoint before it")
            return state
        if damage is not None:
            raise damage
        return None


def save_checkpoint(path: Path, state: dict[str, Any], *, replaced: Path | None = None) -> None:
    """Write plain data and tensors to ``path``, atomically.

    Args:
        path: of the file.
        state: dicts, lists, tuples, strings, numbers and tensors.
        replaced: takes the file that stood at ``path``.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=True) as beside:
            torch.save(state, beside)
            with beside.open("r+b") as file:
                digest = _digest(file, os.path.getsize(beside))  # noqa: PTH202
                file.write(_MARK + digest)
            if replaced is not None and path.exists():
                path.replace(replaced)
    except OSError as error:
        raise ArtifactError(
            f"{path}: cannot be written: {error.strerror}; the checkpoint before it is kept"
        ) from error
    except RuntimeError as error:  # torch says no more than at which byte it had to stop
        raise ArtifactError(
            f"{path}: cannot be written: the disk is probably full; make room, or give --out "
            "on another disk; the checkpoint before it is kept"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What ``save_checkpoint`` wrote; None where there is none.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = _digest(file, max(0, size - _FOOTER))
            if file.read() != _MARK + digest:
                raise ValueError("its hash is another")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise ArtifactError(
            f"{path}: the checkpoint is damaged; remove it to train from the start"
        ) from error
    assert isinstance(state, dict)
    return state


def _digest(file: Any, size: int) -> bytes:
    """SHA-256 (hexadecimal) of the next ``size`` bytes."""
    found = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        found.update(chunk)
        size -= len(chunk)
    return found.hexdigest().encode()
