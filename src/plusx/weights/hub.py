"""The Hugging Face hub: verified downloads, the cache when offline, one clear error otherwise."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.errors import HubUnreachable, WeightsError

TIMEOUT_S = 10
"""How long the hub may take to answer what a file is. (The download itself waits as long for each
part: the library's HF_HUB_DOWNLOAD_TIMEOUT.)"""

CONFIG = ("config.json",)
PREPROCESSOR = ("preprocessor_config.json",)
"""What transformers puts beside the config; other entries have none."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; the pickle only where there is no safetensors."""

REMEDIES = (
    "use --weights bundled (a small backbone that comes with plusx), --weights FILE, "
    "or --weights none (from scratch)"
)


@dataclass(frozen=True)
class HubFile:
    """A verified file in the cache; ``commit`` names the version, ``notes`` what was unusual."""

    path: Path
    commit: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HubWeights:
    """One entry of the hub: its config, its weights file, its commit; transformers' preprocessor
    config where the entry is of transformers and has one."""

    config: dict[str, Any]
    path: Path
    commit: str
    notes: tuple[str, ...]
    preprocessor: dict[str, Any] | None = None


def download(hub_id: str) -> HubWeights:
    """Config and weights of ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

    Whatever comes out of the cache or the network is checked against the hash that the hub states
    for it (SHA-256 for large files, git's SHA-1 for small ones); what differs is removed and never
    loaded. When the hub cannot be reached, a cached copy is used, and a note says so.

    Raises:
        HubUnreachable: the hub cannot be reached and nothing is cached.
        WeightsError: no such entry, no access, a damaged download, no config or weights in it.
    """
    repo, _, revision = hub_id.partition("@")
    config = _fetch(hub_id, repo, revision or "main", CONFIG)
    content = _parse(hub_id, config)
    preprocessor = None
    if "model_type" in content and "architecture" not in content:
        preprocessor = _optional(hub_id, repo, config.commit, PREPROCESSOR)
    weights = _fetch(hub_id, repo, config.commit, WEIGHTS)
    notes = tuple(dict.fromkeys(config.notes + weights.notes))
    settings = None if preprocessor is None else _parse(hub_id, preprocessor)
    return HubWeights(content, weights.path, config.commit, notes, settings)


def _parse(hub_id: str, file: HubFile) -> dict[str, Any]:
    try:
        content = json.loads(file.path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{hub_id}: its {file.path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{hub_id}: its {file.path.name} is not a JSON object")
    return content


def _optional(hub_id: str, repo: str, revision: str, filenames: tuple[str, ...]) -> HubFile | None:
    """As ``_fetch``; None where the entry has no such file, or nobody can tell."""
    try:
        return _first(hub_id, repo, revision, filenames)
    except HubUnreachable:
        return None


def _fetch(hub_id: str, repo: str, revision: str, filenames: tuple[str, ...]) -> HubFile:
    """The first of ``filenames`` that the entry has; it must have one."""
    found = _first(hub_id, repo, revision, filenames)
    if found is None:
        raise WeightsError(
            f"{hub_id}: has no {' or '.join(filenames)}; give another hub id or a file"
        )
    return found


def _first(hub_id: str, repo: str, revision: str, filenames: tuple[str, ...]) -> HubFile | None:
    """The first of ``filenames`` that the entry has."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for filename in filenames:
        try:
            with quiet():
                # Once: hf_hub_download alone would go on for minutes where nobody answers.
                url = hf_hub_url(repo, filename, revision=revision)
                etag = get_hf_file_metadata(url, timeout=TIMEOUT_S).etag
        except EntryNotFoundError:
            continue
        except Exception as error:  # httpx, requests and hf_xet share no base class
            if is_unreachable(error):
                return _from_cache(hub_id, repo, revision, filenames, error)
            raise WeightsError(f"{hub_id}: {_why(error)}") from error
        try:
            with quiet():
                path = Path(hf_hub_download(repo, filename, revision=revision))
        except Exception as error:
            raise WeightsError(f"{hub_id}: {filename}: {_why(error)}") from error
        return HubFile(path, path.parent.name, _verify(path, etag, hub_id))
    return None


def _from_cache(
    hub_id: str, repo: str, revision: str, filenames: tuple[str, ...], error: Exception
) -> HubFile:
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    why = f"{constants.ENDPOINT} cannot be reached"
    if isinstance(error, OfflineModeIsEnabled):
        why = "HF_HUB_OFFLINE is set"
    elif status := status_of(error):
        why = f"{constants.ENDPOINT} is out of order (status {status})"
    for filename in filenames:
        found = try_to_load_from_cache(repo, filename, revision=revision)
        if isinstance(found, str):
            path = Path(found)
            said = f"{hub_id}: {why}; used the cached copy"
            return HubFile(path, path.parent.name, (said, *_verify(path, None, hub_id)))
    raise HubUnreachable(
        f"{hub_id}: {why} and nothing is cached; try again when online, or {REMEDIES}"
    ) from error


def _verify(path: Path, etag: str | None, hub_id: str) -> tuple[str, ...]:
    """Compare the file with the hash in its etag; remove it and raise where they differ."""
    if path.is_symlink():
        etag = path.readlink().name  # the cache names each blob by its etag
    if etag is None or len(etag) not in (40, 64):
        return (f"{hub_id}: no hash of {path.name} is known, so it could not be verified",)
    digest = hashlib.sha256() if len(etag) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(etag) == 40:  # git's hash of a blob
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() == etag:
        return ()
    blob = path.resolve()
    path.unlink()
    blob.unlink(missing_ok=True)
    raise WeightsError(
        f"{hub_id}: the copy of {path.name} is not what the hub states (hash "
        f"{digest.hexdigest()[:12]}... instead of {etag[:12]}...): damaged or tampered with; it "
        "was removed, so try again to download it afresh"
    )


def is_unreachable(error: Exception) -> bool:
    """Whether nobody answered, or only to say that the hub is down."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return status_of(error) >= 500 or status_of(error) == 429
    network = type(error).__module__.partition(".")[0] in ("httpx2", "httpx", "requests")
    return network or isinstance(error, OfflineModeIsEnabled | ConnectionError | TimeoutError)


def _why(error: Exception) -> str:
    """What went wrong and what to do, where the hub did answer."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = status_of(error)
    if isinstance(error, HFValidationError):
        return "is not a hub id (OWNER/NAME or OWNER/NAME@REVISION)"
    if isinstance(error, GatedRepoError):
        return "is gated; accept its terms on the hub and log in (hf auth login)"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision; leave out @... for the latest"
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403, 404):
        return (
            f"does not exist on the hub, or is private (status {status}); check the id, or log in "
            "(hf auth login)"
        )
    if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
        return f"cannot be stored in the hub's cache: {error}"
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the download was cut short or failed ({first}); try again, or {REMEDIES}"


def status_of(error: Exception) -> int:
    """The HTTP status that the hub answered with; 0 where it did not."""
    return int(getattr(getattr(error, "response", None), "status_code", 0))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the hub library's bars and remarks to itself unless a person is watching."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty():
        yield
        return
    logger = logging.getLogger("huggingface_hub")
    level, bars_were_off = logger.level, are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        disable_progress_bars()
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            if not bars_were_off:
                enable_progress_bars()


def cached_folder(hub_id: str) -> Path | None:
    """Where the hub's cache holds both config and weights of an entry, whole; None where it lacks
    one. Nothing is asked of the network, and nothing verified.
    """
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = hub_id.partition("@")
    config = try_to_load_from_cache(repo, CONFIG[0], revision=revision or "main")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if any((folder / name).is_file() for name in WEIGHTS) else None
