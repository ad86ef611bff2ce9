"""The artifact: a folder that turns an image into a decision. The only file that knows its format.

    model.safetensors   the weights under the names they have elsewhere (names.py, families.py)
    config.json         as timm writes it, plus plusx's own data under a top-level key "plusx"
    decision.safetensors  features of training images, where the model knows unknown images
    README.md           the model card

``architecture`` is timm's name only where timm's network gives the same logits; all else is
``plusx_...``, so that timm refuses the folder instead of loading it wrongly.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from plusx._version import __version__
from plusx.atomic import replacing
from plusx.data.preprocessing import Preprocessing
from plusx.data.records import Task
from plusx.decide import Decision
from plusx.errors import ArtifactError, MissingExtra, PlusxError, WeightsError
from plusx.model.classifier import Classifier, Spec
from plusx.weights.decision_file import DECISION, read_decision, save_bank
from plusx.weights.families import build, spec_from_dict
from plusx.weights.family_config import read_config as read_timm_config
from plusx.weights.family_config import written_config
from plusx.weights.files import EXPORTED, ONLY_EXPORTED, read_state, sha256_file, write_tensors
from plusx.weights.load import disk_state, load_weights

FORMAT_VERSION = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


@dataclass(frozen=True)
class Artifact:
    """A model folder, read. ``model`` is in evaluation mode; ``path`` is the artifact's folder."""

    model: Classifier
    spec: Spec
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: Task
    provenance: dict[str, Any]
    format_version: int
    path: Path
    sha256: str
    decision: Decision = field(default_factory=Decision)


@dataclass(frozen=True)
class Described:
    """What a config.json beside some weights says about them."""

    spec: Spec
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None


def save_artifact(
    folder: Path | str,
    model: Classifier,
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    task: Task = "single",
    provenance: Mapping[str, Any],
    card: str,
) -> None:
    """Write ``folder``: beside it first, then renamed, so that no half artifact is ever seen.

    An artifact that is already there is replaced: the old one is moved aside, and back again if
    the new one cannot take its place.

    Args:
        folder: usually ``RUN/model``.
        model: its weights and spec are written.
        classes: names in the order of the logits.
        preprocessing: must have as many channels as the model.
        task: ``single`` or ``multi`` label.
        provenance: what made the model; anything JSON can hold.
        card: the text of README.md.

    Raises:
        ArtifactError: classes or channels do not fit the model, the folder exists and holds
            something else, or cannot be written.
    """
    target = Path(folder)
    if problem := _misfit(model.spec, classes, preprocessing):
        raise ArtifactError(f"{target}: not written: {problem}")
    try:
        if target.exists() and not (is_artifact(target) or _is_empty(target)):
            raise ArtifactError(f"{target}: exists and is no model folder of plusx; give another")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"
        fresh.mkdir()
        try:
            write_tensors(disk_state(model), fresh / WEIGHTS, metadata={"format": "pt"})
            digest = sha256_file(fresh / WEIGHTS)
            config = written_config(model.spec, classes, preprocessing)
            config["plusx"] = {
                "format_version": FORMAT_VERSION,
                "plusx_version": __version__,
                "weights_sha256": digest,
                "task": task,
                "spec": model.spec.to_dict(),
                "preprocessing": preprocessing.to_dict(),
                "provenance": dict(provenance),
            }
            text = json.dumps(config, indent=2, ensure_ascii=False)
            (fresh / CONFIG).write_text(text + "\n", encoding="utf-8")
            (fresh / CARD).write_text(card, encoding="utf-8")
            _replace_folder(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from error


def write_card(folder: Path | str, card: str) -> None:
    """Replace the model card of an artifact, atomically.

    Raises:
        ArtifactError: it cannot be written.
    """
    target = Path(folder) / CARD
    try:
        with replacing(target) as beside:
            beside.write_text(card, encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{target}: cannot be written: {error.strerror}") from error


def write_decision(folder: Path | str, decision: Decision) -> None:
    """Put how probabilities become an answer into an artifact, atomically.

    Raises:
        ArtifactError: it cannot be read or written.
    """
    target = Path(folder) / CONFIG
    config = read_config(target)
    try:
        config["plusx"]["decision"] = save_bank(target.parent, decision)
        with replacing(target) as beside:
            text = json.dumps(config, indent=2, ensure_ascii=False)
            beside.write_text(text + "\n", encoding="utf-8")
        if decision.unknown is None:
            (target.parent / DECISION).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{target}: cannot be written: {error}") from error


def load_artifact(path: Path | str) -> Artifact:
    """Read ``RUN`` or ``RUN/model``.

    Raises:
        ArtifactError: no artifact there, of a later format, incomplete, or its weights are not
            the ones its config was written for.
    """
    folder = find_artifact(Path(path))
    if folder is None:
        if Path(path).suffix.lower() in EXPORTED and Path(path).is_file():
            raise ArtifactError(f"{path}: {ONLY_EXPORTED}")
        raise ArtifactError(f"{path}: no model there; give a run folder or the model folder in it")
    config = read_config(folder / CONFIG)
    own = _own_section(config, folder / CONFIG)
    described = describe(config, folder / CONFIG)
    if described.classes is None:
        raise ArtifactError(f"{folder / CONFIG}: names no classes (label_names)")
    digest = verify_weights(config, folder / WEIGHTS)
    model = build(described.spec)
    try:
        state, _ = read_state(folder / WEIGHTS)
        load_weights(model, state, origin=str(folder / WEIGHTS), adapt=False)
    except WeightsError as error:
        raise ArtifactError(str(error)) from error
    return Artifact(
        model=model.eval(),
        spec=described.spec,
        classes=described.classes,
        preprocessing=described.preprocessing,
        task=own["task"],
        provenance=own["provenance"],
        format_version=own["format_version"],
        path=folder,
        sha256=digest,
        decision=read_decision(own.get("decision", {}), described.spec, folder / CONFIG),
    )


def verify_weights(config: Mapping[str, Any], path: Path) -> str:
    """The file's SHA-256, which must be the one in the config that plusx wrote for it.

    Raises:
        ArtifactError: it is not, or the file cannot be read.
    """
    wanted = _own_section(config, path.parent / CONFIG)["weights_sha256"]
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
    if digest != wanted:
        raise ArtifactError(
            f"{path}: is not the file that {CONFIG} was written for (SHA-256 {digest[:12]}... "
            f"instead of {str(wanted)[:12]}...); copy the model folder again as a whole"
        )
    return digest


def is_artifact(folder: Path) -> bool:
    """Whether the folder itself holds a config.json that plusx wrote."""
    config = folder / CONFIG
    return config.is_file() and "plusx" in read_config(config)


def find_artifact(path: Path) -> Path | None:
    """``RUN`` or ``RUN/model``, whichever is the artifact; None if neither is."""
    return next((folder for folder in (path, path / "model") if is_artifact(folder)), None)


def read_config(path: Path) -> dict[str, Any]:
    """The parsed config.json.

    Raises:
        ArtifactError: it cannot be read or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: is not a JSON object")
    return content


def describe(
    config: Mapping[str, Any], where: Path | str, *, asked: Spec | None = None
) -> Described:
    """Spec, preprocessing and classes from a config.json of plusx's or timm's.

    Args:
        config: the parsed file.
        where: its path or address, for messages.
        asked: the network that is asked for, if it is known.

    Raises:
        ArtifactError: written by a later plusx, or its parts do not fit together.
        WeightsError: a timm architecture that plusx does not build.
    """
    labels = config.get("label_names")
    classes = tuple(map(str, labels)) if isinstance(labels, list) and labels else None
    try:
        if "plusx" in config:
            own = _own_section(config, where)
            spec = spec_from_dict(own["spec"])
            preprocessing = Preprocessing.from_dict(own["preprocessing"])
        else:
            spec, preprocessing = read_timm_config(config, where, asked)
    except (WeightsError, ArtifactError, MissingExtra):
        raise
    except (PlusxError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{where}: {error}") from error
    if classes is not None and (problem := _misfit(spec, classes, preprocessing)):
        raise ArtifactError(f"{where}: {problem}")
    return Described(spec, preprocessing, classes)


def _misfit(spec: Spec, classes: Sequence[str], preprocessing: Preprocessing) -> str:
    """Why these do not belong together; empty if they do."""
    if len(classes) != spec.classes:
        return f"{len(classes)} class names for a network with {spec.classes} outputs"
    if len(set(classes)) != len(classes):
        return "two classes have the same name"
    if preprocessing.channels != spec.in_channels:
        return (
            f"preprocessing gives {preprocessing.channels} channels, the network takes "
            f"{spec.in_channels}"
        )
    return ""


def _own_section(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    own = config["plusx"]
    version = own.get("format_version") if isinstance(own, dict) else None
    if not isinstance(version, int):
        raise ArtifactError(f"{where}: its plusx section states no format_version")
    if version > FORMAT_VERSION:
        raise ArtifactError(
            f"{where}: format_version {version} was written by a later plusx (this one reads up "
            f"to {FORMAT_VERSION}); update with: pip install -U plusx"
        )
    wanted = ("spec", "preprocessing", "task", "provenance", "weights_sha256")
    if missing := [key for key in wanted if key not in own]:
        raise ArtifactError(f"{where}: its plusx section lacks {', '.join(missing)}")
    return dict(own)


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _replace_folder(fresh: Path, target: Path) -> None:
    """Rename ``fresh`` to ``target``; what stood there is put back if that fails."""
    if not target.exists():
        fresh.rename(target)
        return
    aside = fresh.with_name(fresh.name + "-old")
    target.rename(aside)
    try:
        fresh.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
