"""What tells a model's files from those that were there before."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(path: Path) -> Stamp:
    """What changes when a model's files do: their names, inodes, sizes and times. Empty where
    there are none, or they go away meanwhile."""
    folder = path / "model" if (path / "model").is_dir() else path
    found = []
    try:
        exported = path.parent.glob(f"{path.stem}.*")  # a file's weights and seal lie beside it
        for file in sorted(folder.iterdir() if folder.is_dir() else exported):
            status = file.stat()
            found.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError:
        return ()
    return tuple(found)
