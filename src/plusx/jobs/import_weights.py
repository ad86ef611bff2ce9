"""``plusx import``: a run from weights that exist."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch

from plusx.data.records import Task
from plusx.decide import Decision
from plusx.errors import UsageError
from plusx.jobs.card import model_card
from plusx.jobs.origin import versions
from plusx.jobs.run import Run, check_free, run_folder, write_config
from plusx.jobs.talk import Talk
from plusx.model.surgery import replace_head
from plusx.weights import (
    Artifact,
    Network,
    Reading,
    architecture,
    create_network,
    load_artifact,
    save_artifact,
    title,
    write_decision,
)
from plusx.weights.artifact import WEIGHTS, find_artifact

PathLike = str | os.PathLike[str]


def import_weights(
    weights: PathLike,
    out: PathLike,
    *,
    model: PathLike | None = None,
    classes: PathLike | Sequence[str] | None = None,
    overwrite: bool = False,
    talk: Talk | None = None,
    reading: Reading | None = None,
) -> Run:
    """Make a run of existing weights, so that predict and evaluate work on them.

    Args:
        weights: a file, a model folder or a hub id.
        out: the run folder to make.
        model: a variant or SPEC.json; None where the weights say it.
        classes: names in the order of the logits, or a file of them (see ``read_classes``).
            None takes those that the weights state, else ``class_0``, ``class_1``, ...
        overwrite: replace a run that is already there.
        talk: where notes are said.
        reading: what weights of other libraries leave open: their tongue, where they stride, what
            pixels they saw.

    Raises:
        UsageError: the number of names is not the number of logits, or ``weights`` names none.
        WeightsError: the weights cannot be read or do not fit the model.
    """
    talk = talk or Talk()
    source = os.fspath(weights)
    if source in ("auto", "bundled", "none"):
        raise UsageError(f"weights {source!r}: give a file, a model folder or a hub id to import")
    check_free(os.fspath(out), overwrite=overwrite)
    network = create_network(
        None if model is None else os.fspath(model), weights=source, reading=reading or Reading()
    )
    for text in network.notes:
        talk.note(text)
    names = _names(network, classes, talk)
    known = _artifact(Path(source).expanduser(), network)
    task: Task = "single" if known is None else known.task
    provenance = {"weights": network.origin, "weights_sha256": network.sha256, "ships": "imported"}
    if not network.has_head:
        provenance["head"] = "fresh, not trained"
    spec = network.model.spec
    with run_folder(os.fspath(out), source, overwrite=overwrite, resume=False) as folder:
        tables = {
            "network": {"weights": network.origin, "sha256": network.sha256, **spec.to_dict()},
            "preprocessing": network.preprocessing.to_dict(),
            "data": {"classes": names},
            "versions": versions(),
        }
        write_config(folder / "config.toml", tables)
        save_artifact(
            folder / "model",
            network.model,
            classes=names,
            preprocessing=network.preprocessing,
            task=task,
            provenance=provenance,
            card=model_card(
                classes=names,
                provenance=provenance,
                name=folder.name,
                architecture=architecture(spec),
                task=task,
                kind=title(spec),
            ),
        )
        if known is not None and known.decision != Decision():
            if known.classes == names:
                write_decision(folder / "model", known.decision)
            else:
                talk.note(
                    "its temperature, thresholds and other rules of deciding are left behind, for "
                    "--classes gives other names"
                )
        return Run(folder)


def _artifact(path: Path, network: Network) -> Artifact | None:
    """The model folder that these weights are from, where they are used as it has them."""
    folder = find_artifact(path if path.is_dir() else path.parent)
    if folder is None or not (path.is_dir() or path.name == WEIGHTS):
        return None
    artifact = load_artifact(folder)
    same = (artifact.sha256, artifact.spec) == (network.sha256, network.model.spec)
    return artifact if same and artifact.preprocessing == network.preprocessing else None


def _names(
    network: Network, classes: PathLike | Sequence[str] | None, talk: Talk
) -> tuple[str, ...]:
    """Of the classes, one for each output; a head that is missing is made for those given."""
    names = network.class_names
    if classes is not None:
        names = read_classes(classes) if isinstance(classes, str | os.PathLike) else tuple(classes)
    if not network.has_head and names:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            replace_head(network.model, len(names))
    count = network.model.spec.classes
    if names is None:
        names = tuple(f"class_{i:0{len(str(count - 1))}d}" for i in range(count))
        talk.note(f"the weights name no classes: they are called {names[0]} to {names[-1]}")
    if len(names) != count or len(set(names)) != count:
        raise UsageError(
            f"--classes has {len(names)} names ({len(set(names))} different), but {network.origin} "
            f"has {count} classes"
        )
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f"--classes: every name must be text and not empty, not {list(names)[:9]}")
    return names


def read_as(layout: str, stride: str | None, pixels: str | None) -> Reading:
    """The three options of the command line as one.

    Raises:
        UsageError: one of them has an unknown value.
    """
    return Reading(layout, cast(Any, stride), cast(Any, pixels))


def read_classes(file: PathLike) -> tuple[str, ...]:
    """Class names from a file.

    Args:
        file: a text file with one name a line, a JSON list, or ``FILE:N``, the N-th column of a
            comma- or tab-separated file.

    Raises:
        UsageError: the file cannot be read, has no such column, or holds no list of names.
    """
    name = os.fspath(file)
    path, _, column = name.rpartition(":")
    if not (path and column.isdigit()) or Path(name).exists():
        path, column = name, ""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if column:
            if int(column) < 1:
                raise UsageError(f"--classes {name}: columns are counted from 1")
            delimiter = "\t" if "\t" in text else ","
            rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
            return tuple(row[int(column) - 1].strip() for row in rows if row)
        if path.lower().endswith(".json"):
            names = json.loads(text)
            if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
                raise UsageError(f"--classes {path}: must be a JSON list of names")
            return tuple(names)
    except OSError as error:
        raise UsageError(f"--classes {path}: cannot be read: {error.strerror}") from error
    except IndexError as error:
        raise UsageError(f"--classes {path}: has no column {column} in every row") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"--classes {path}: is no list of names: {error}") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())
