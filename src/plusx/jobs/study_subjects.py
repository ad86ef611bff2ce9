"""Which nets and which images a study is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plusx.errors import UsageError
from plusx.jobs.run import read_config
from plusx.science.subject import Asked
from plusx.weights.artifact import find_artifact


def asked_for(
    nets: Sequence[str],
    models: Sequence[str],
    data: str | None,
    *,
    limit: int | None = None,
    split: str | None = None,
    seed: int = 0,
) -> list[Asked]:
    """Each net with its images.

    Args:
        nets: runs, model folders, weights files.
        models: the variants' names of those that are weights files, in their order; one is enough
            for all.
        data: a folder or list of images; by default what the run was trained on.
        limit, split, seed: see ``plusx.science.subject.read_images``.

    Raises:
        UsageError: another number of names, or a net that does not say where its images are.
    """
    return [
        Asked(net, model, data or data_of(net), limit, split, seed)
        for net, model in named_nets(nets, models)
    ]


def named_nets(nets: Sequence[str], models: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each net with its network's name; None where it says that itself.

    Raises:
        UsageError: neither one name nor one for each weights file.
    """
    files = [net for net in nets if find_artifact(Path(net)) is None]
    if models and len(models) not in (1, len(files)):
        raise UsageError(
            f"--model was given {len(models)} times for {len(files)} weights files; give it once "
            "for all, or once for each in their order (a model folder says it itself)"
        )
    left = iter(list(models) * (len(files) if len(models) == 1 else 1))
    # a file may be given twice, as ``none`` is for two nets with random weights
    return [(net, next(left, None) if net in files else None) for net in nets]


def data_of(net: str) -> str:
    """Where the images are that a run was trained on.

    Raises:
        UsageError: it is no run, or they are gone.
    """
    config = Path(net, "config.toml")
    if not config.is_file():
        raise UsageError(f"{net}: does not say where its images are; give --data FOLDER")
    tables = read_config(config)
    root = str(tables.get("asked", {}).get("data") or tables.get("data", {}).get("root", ""))
    if not root or not Path(root).exists():
        raise UsageError(f"{net}: its images at {root!r} are gone; give --data FOLDER")
    return root
