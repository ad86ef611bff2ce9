"""``plusx push``: a model onto the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plusx.errors import ArtifactError, UsageError
from plusx.weights.artifact import CARD, CONFIG, WEIGHTS, find_artifact, read_config, verify_weights
from plusx.weights.decision_file import verify_bank
from plusx.weights.files import sha256_file
from plusx.weights.upload import Remote, check_login, look, send

_HUBS_OWN = {".gitattributes"}
"""In every repository of the hub from the beginning."""


@dataclass(frozen=True)
class Sent:
    """One file; ``fate`` is ``new``, ``unchanged`` or ``replaces the one there``."""

    name: str
    bytes: int
    fate: str


@dataclass(frozen=True)
class Pushed:
    """What was, or would be, sent; ``url`` is the commit's, None for a dry run."""

    repo: str
    where: str
    files: tuple[Sent, ...]
    url: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def push(
    run: str | os.PathLike[str],
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    message: str | None = None,
    overwrite: bool = False,
) -> Pushed:
    """Commit weights, config.json and model card of a run to a repository of the hub.

    Nothing else of the run is sent, and of paths in the config only their last part.

    Args:
        run: a run or model folder.
        repo: USER/NAME; made where it does not exist.
        private: whether a new repository is seen by its owner alone.
        dry_run: look only, and send nothing.
        revision: branch, made where it does not exist; None for main.
        message: of the commit.
        overwrite: replace files of another model that are there.

    Raises:
        UsageError: not logged in, no such kind of name, or another model is there.
        ArtifactError: no model at ``run``, or its files do not belong together.
        WeightsError: the hub refuses or cannot be reached; nothing was committed.
    """
    folder = find_artifact(Path(run))
    if folder is None:
        raise ArtifactError(f"{run}: no model there; give a run folder or the model folder in it")
    digest = verify_weights(read_config(folder / CONFIG), folder / WEIGHTS)
    files = _files(folder)
    if not dry_run:
        check_login()
    remote = look(repo, revision)
    _check_private(repo, remote, private)
    hashes = {name: sha256_file(at) for name, at in files.items() if isinstance(at, Path)}
    hashes[WEIGHTS] = digest
    sent = tuple(
        _fate(name, content, remote, hashes.get(name, "")) for name, content in files.items()
    )
    if not overwrite:
        _check_same(repo, remote, digest)
    where = f"{repo}{f'@{revision}' if revision else ''}"
    kind = "private" if private or remote.private else "public"
    where += f" ({kind}, {'there already' if remote.exists else 'to be made'})"
    if dry_run:
        return Pushed(repo, where, sent, None)
    text = message or f"{Path(run).absolute().name}, by plusx"
    url = send(repo, files, remote, private=private, revision=revision, message=text)
    return Pushed(repo, where, sent, url)


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without the folders of whoever made it: of each path its last part."""
    own = dict(config["plusx"])
    own["provenance"] = {key: _last_part(value) for key, value in own["provenance"].items()}
    return {**config, "plusx": own}


def _last_part(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _last_part(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_last_part(one) for one in value]
    if not isinstance(value, str) or value.startswith("hub:"):
        return value
    kind, colon, rest = value.partition(":")
    prefix = f"{kind}:" if colon and kind in ("file", "bundled") else ""
    path = rest if prefix else value
    if not prefix and not re.match(r"[\\/~.]|[A-Za-z]:[\\/]", path):
        return value
    return prefix + ([part for part in re.split(r"[\\/]", path) if part] or [""])[-1]


def _files(folder: Path) -> dict[str, Path | bytes]:
    text = json.dumps(public_config(read_config(folder / CONFIG)), indent=2, ensure_ascii=False)
    files: dict[str, Path | bytes] = {
        WEIGHTS: folder / WEIGHTS,
        CONFIG: f"{text}\n".encode(),
    }
    own = read_config(folder / CONFIG)["plusx"]
    if (bank := verify_bank(own.get("decision", {}), folder / CONFIG)) is not None:
        files[bank.name] = bank
    try:
        if card := (folder / CARD).read_bytes():
            files[CARD] = card
    except FileNotFoundError:
        pass
    return files


def _fate(name: str, content: Path | bytes, remote: Remote, digest: str) -> Sent:
    if isinstance(content, Path):
        size, hashed = content.stat().st_size, digest
    else:
        size = len(content)
        blob = b"blob %d\0" % size + content  # git's hash of a small file
        hashed = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    there = remote.files.get(name)
    if there is None:
        return Sent(name, size, "new")
    return Sent(name, size, "unchanged" if there == hashed else "replaces the one there")


def _check_private(repo: str, remote: Remote, private: bool) -> None:
    if private and remote.exists and not remote.private:
        raise UsageError(
            f"--private: {repo} exists and is public; make it private in its settings on the hub, "
            "or give another name"
        )


def _check_same(repo: str, remote: Remote, digest: str) -> None:
    """Refuse what is not this very model; its card and config may always be brought up to date."""
    others = sorted(set(remote.files) - _HUBS_OWN)
    if not others or remote.files.get(WEIGHTS) == digest:
        return
    shown = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    raise UsageError(
        f"{repo}: holds another model or other files ({shown}); give another name, or --overwrite "
        f"to replace {WEIGHTS}, {CONFIG} and {CARD} there"
    )
