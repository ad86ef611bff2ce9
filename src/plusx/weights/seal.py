"""A hash that an exported file carries of itself, so that an edited or damaged one is refused.

In ONNX and OpenVINO files 64 hexadecimal digits stand behind ``plusx_sha256``: the SHA-256 of the
file's bytes with zeros in their place (for OpenVINO, followed by the ``.bin`` file). A torch
archive holds them as an extra file: the SHA-256 over names and contents of all its other members.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

from plusx.errors import ArtifactError

SEAL = "plusx_sha256"
BLANK = "0" * 64
"""What stands in the seal's place until it is known."""

_PLACE = re.compile(SEAL.encode() + rb".{1,40}?([0-9a-f]{64})", re.DOTALL)


def seal(path: Path) -> None:
    """Put the hash into an ONNX or OpenVINO file that was written with ``BLANK`` for it.

    Raises:
        ArtifactError: there is no such place.
        OSError: the file cannot be written.
    """
    data = path.read_bytes()
    start = _place(data, path)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(_digest(data, start, path).encode())


def check_seal(path: Path) -> None:
    """Refuse an exported file that is not as it was written.

    Raises:
        ArtifactError: it was changed, is cut short, or carries no seal.
    """
    try:
        if path.suffix.lower() == ".pt2":
            with zipfile.ZipFile(path) as archive:
                found, wanted = _sealed_as(archive), archive_digest(archive)
        else:
            data = path.read_bytes()
            start = _place(data, path)
            found, wanted = data[start : start + 64].decode(), _digest(data, start, path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if found != wanted:
        raise ArtifactError(
            f"{path}: is not as plusx wrote it (SHA-256 {wanted[:12]}... instead of "
            f"{found[:12]}...): it was edited, damaged or is incomplete; export it again"
        )


def archive_digest(archive: zipfile.ZipFile) -> str:
    """Over all members but hashes, in the order of their names below the archive's own folder."""
    whole = hashlib.sha256()
    for name, inside in sorted((name.partition("/")[2], name) for name in archive.namelist()):
        if not name.endswith((SEAL, "serialization_id")):  # the other is torch's hash of them all
            member = hashlib.sha256(archive.read(inside)).hexdigest()
            whole.update(f"{name}\n{member}\n".encode())
    return whole.hexdigest()


def _sealed_as(archive: zipfile.ZipFile) -> str:
    for name in archive.namelist():
        if name.endswith(SEAL):
            return archive.read(name).decode("ascii", "replace")
    raise ArtifactError(_foreign(str(archive.filename)))


def _place(data: bytes, path: Path) -> int:
    # The last one: class names, which could hold the word, stand before it.
    places = [found.start(1) for found in _PLACE.finditer(data)]
    if not places:
        raise ArtifactError(_foreign(str(path)))
    return places[-1]


def _digest(data: bytes, start: int, path: Path) -> str:
    whole = hashlib.sha256()
    whole.update(memoryview(data)[:start])
    whole.update(BLANK.encode())
    whole.update(memoryview(data)[start + 64 :])
    if path.suffix.lower() == ".xml":
        try:
            whole.update(path.with_suffix(".bin").read_bytes())
        except FileNotFoundError:
            raise ArtifactError(
                f"{path}: its weights, {path.with_suffix('.bin').name}, are not beside it; copy "
                "both files"
            ) from None
    return whole.hexdigest()


def _foreign(name: str) -> str:
    return (
        f"{name}: carries no {SEAL}, so plusx did not export it, or it is damaged; "
        "give a file that plusx export wrote, or export the run again"
    )
