"""Finished pieces of a long study, so that a killed one goes on and several processes share one.

A piece is one training, one point of a grid, one removed block. Each is a small JSON file named by
the hash of its key; a piece that a living process is at work on is locked.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plusx.atomic import replacing
from plusx.errors import ArtifactError

Key = Mapping[str, Any]


class Ledger:
    """Values by key, below ``folder``; any number of processes may work on one.

    Args:
        folder: made if absent.
        study: what all keys have in common, such as the settings; values of another study are
            never taken for this one's.
    """

    def __init__(self, folder: Path, study: Key) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._study = folder, dict(study)

    def get(self, key: Key) -> Any:
        """The value, or None where that piece is not finished.

        Raises:
            ArtifactError: its file is damaged.
        """
        path = self._path(key, ".json")
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return json.loads(text)["value"]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{path}: is damaged ({error}); remove it to do it again"
            ) from error

    def put(self, key: Key, value: Any) -> None:
        """Keep a JSON value (NaN and infinities included), atomically."""
        with replacing(self._path(key, ".json")) as beside:
            beside.write_text(
                json.dumps({"study": self._study, "key": dict(key), "value": value}),
                encoding="utf-8",
            )

    def work(
        self, keys: Sequence[Key], do: Callable[[Key], Any], *, tick: Callable[[int], None]
    ) -> list[Any]:
        """The value of every key, doing those that are not finished; ``tick`` counts all pieces.

        A piece that another process is at work on is left to it, and waited for at the end; where
        the other died meanwhile, it is done here.
        """
        waiting: list[Key] = []
        for key in keys:
            if self.get(key) is None:
                with self._locked(key) as mine:
                    if not mine:
                        waiting.append(key)
                        continue
                    if self.get(key) is None:
                        self.put(key, do(key))
            tick(1)
        for key in waiting:
            with self._locked(key, wait=True):
                if self.get(key) is None:
                    self.put(key, do(key))
            tick(1)
        return [self.get(key) for key in keys]

    def _path(self, key: Key, ending: str) -> Path:
        named = json.dumps([self._study, dict(key)], sort_keys=True)
        return self.folder / (hashlib.sha256(named.encode()).hexdigest()[:24] + ending)

    @contextmanager
    def _locked(self, key: Key, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process holds the piece; a lock goes with the process that held it."""
        import fcntl

        path = self._path(key, ".lock")
        while True:
            handle = os.open(path, os.O_CREAT | os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(handle)  # the file stays: it is the other's lock
                yield False
                return
            if _is_file(handle, path):
                break
            os.close(handle)  # what was waited for is gone, and with it its lock
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)


def _is_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
