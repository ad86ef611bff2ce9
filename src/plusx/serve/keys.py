"""API keys: kept as digests, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from plusx.errors import UsageError

SHORTEST = 16


def read_keys(path: Path) -> tuple[str, ...]:
    """Digests of the keys in a file, one a line; empty lines and ``#`` comments are left out.

    Raises:
        UsageError: it cannot be read, holds none, or one that is too short.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {path}: cannot be read: {error}") from error
    return digests([line.strip() for line in lines if line.strip() and line[0] != "#"], str(path))


def digests(keys: list[str], source: str) -> tuple[str, ...]:
    """SHA-256 of each key.

    Raises:
        UsageError: there is none, or one has fewer than ``SHORTEST`` characters.
    """
    if not keys:
        raise UsageError(f"{source}: holds no API key; write one a line")
    if short := [i for i, key in enumerate(keys, 1) if len(key) < SHORTEST]:
        raise UsageError(
            f"{source}: key {short[0]} has fewer than {SHORTEST} characters; use a longer one, as "
            "python -c 'import secrets; print(secrets.token_hex())' gives"
        )
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)


def admitted(headers: Mapping[str, str], keys: tuple[str, ...]) -> bool:
    """Whether a request carries a key: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

    Every key is compared, so that time tells nothing.
    """
    # header bytes come as latin-1; keys were read as UTF-8
    kind, _, bearer = headers.get("authorization", "").partition(" ")
    given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
    digest = hashlib.sha256(given.encode("latin-1")).hexdigest()
    return bool(sum(hmac.compare_digest(digest, key) for key in keys))
