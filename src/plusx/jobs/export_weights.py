"""``plusx export-weights``: a run's weights for torchvision, for timm, or as one file."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torchvision

from plusx.atomic import replacing
from plusx.errors import ArtifactError, PlusxError, UsageError
from plusx.model import TIMM_NAMES, VARIANTS, ResNetSpec
from plusx.weights import architecture, title
from plusx.weights.artifact import CONFIG, WEIGHTS, Artifact, load_artifact, read_config
from plusx.weights.families import torchvision_state
from plusx.weights.family_config import written_config
from plusx.weights.files import write_tensors
from plusx.weights.load import disk_state
from plusx.weights.metadata import with_config

KINDS = ("torchvision", "timm", "safetensors")
_SUFFIXES = {"torchvision": (".pth", ".pt"), "safetensors": (".safetensors",)}

_FREE = ("name", "classes", "in_channels", "image_size")
"""Fields that may differ from the other library's network of that name."""

_WHY = {
    "bottleneck_stride": "v1 strides the first 1x1, theirs the 3x3 (v1.5): the same names and "
    "shapes would give other answers",
    "shortcut": "zero-pad is option A, conv-all option C, none the plain twin",
    "stem_pool": "the stem pools in another way",
    "feature_stages": "the head pools more than the last stage",
    "stem": "the stem is another one",
}
"""Said of a field that stands in the way, where its name alone says too little."""


@dataclass(frozen=True)
class Exported:
    """What was written: where, bytes, what to know, and the line of code that loads it."""

    path: str
    kind: str
    architecture: str
    bytes: int
    use: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def export_weights(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    kind: str,
    overwrite: bool = False,
) -> Exported:
    """Write the weights of a run for another library.

    Args:
        run: a run or model folder.
        out: the file to write; with ``timm``, the folder.
        kind: ``torchvision`` (a state dict, ``.pth``), ``timm`` (a folder for
            ``timm.create_model("local-dir:...")``) or ``safetensors`` (one file whose metadata
            states network, classes and preprocessing).
        overwrite: replace a file, or a folder that an earlier export wrote.

    Raises:
        UsageError: an unknown kind, a name that is taken, or a network that the library cannot
            represent with equal answers.
        ArtifactError: no model at ``run``, or ``out`` cannot be written.
    """
    if kind not in KINDS:
        raise UsageError(f"--as {kind!r} is not one of {', '.join(KINDS)}")
    path = Path(out)
    _check_out(path, kind, overwrite)
    artifact = load_artifact(Path(run))
    write = {"torchvision": _torchvision, "timm": _timm, "safetensors": _safetensors}[kind]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write(artifact, path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error


def _check_out(path: Path, kind: str, overwrite: bool) -> None:
    suffixes = _SUFFIXES.get(kind)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"--out {path}: the file's name must end in {' or '.join(suffixes)}")
    if not path.exists():
        return
    if not overwrite:
        raise UsageError(f"--out {path}: exists already; give another name, or --overwrite")
    if suffixes and path.is_dir():
        raise UsageError(f"--out {path}: is a folder; give the name of a file")
    if not suffixes and not (
        path.is_dir() and {p.name for p in path.iterdir()} <= {CONFIG, WEIGHTS}
    ):
        raise UsageError(f"--out {path}: holds something else than an export; give another name")


def _torchvision(artifact: Artifact, path: Path) -> Exported:
    spec = artifact.spec
    name = architecture(spec)
    if name not in torchvision.models.list_models(torchvision.models):
        raise UsageError(_cannot(artifact, "torchvision"))
    if spec.in_channels != 3:
        raise UsageError(
            f"--as torchvision: {name} takes 3 channels there, this one {spec.in_channels}; use "
            "--as timm or --as safetensors"
        )
    state = disk_state(artifact.model)
    if name.startswith("vgg"):
        state = torchvision_state(state)
    _compare(artifact, state, name)
    with replacing(path) as beside:
        torch.save(state, beside)
    used = artifact.preprocessing
    return Exported(
        str(path), "torchvision", name, path.stat().st_size,
        f"torchvision.models.{name}(num_classes={spec.classes})"
        f".load_state_dict(torch.load({path.name!r}, weights_only=True))",
        (
            f"the file holds no class names; in order: {', '.join(artifact.classes[:20])}"
            + (", ..." if len(artifact.classes) > 20 else ""),
            f"nor the preprocessing: {used.mode} side to {used.resize} ({used.interpolation}, "
            f"antialiased), centre crop {used.size}, mean {list(used.mean)}, std {list(used.std)}",
        ),
    )  # fmt: skip


def _compare(artifact: Artifact, state: dict[str, torch.Tensor], name: str) -> None:
    """Load the state into torchvision's own network and compare the logits of one image."""
    with torch.device("meta"):
        peer = getattr(torchvision.models, name)(num_classes=artifact.spec.classes)
    try:
        peer.load_state_dict(state, assign=True)
    except RuntimeError:
        raise UsageError(
            f"--as torchvision: torchvision's {name} has other layers than {artifact.spec.name}; "
            "use --as timm or --as safetensors"
        ) from None
    size = 64 if isinstance(artifact.spec, ResNetSpec) else artifact.spec.image_size
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = artifact.model(x), peer.eval()(x)
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.abs().max())):
        raise PlusxError(
            f"{artifact.path}: torchvision's {name} gives other logits for these weights; nothing "
            "was written"
        )


def _timm(artifact: Artifact, path: Path) -> Exported:
    config = written_config(artifact.spec, artifact.classes, artifact.preprocessing)
    name = str(config["architecture"])
    if name.startswith("plusx_"):
        raise UsageError(_cannot(artifact, "timm"))
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    fresh.mkdir()
    try:
        write_tensors(disk_state(artifact.model), fresh / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (fresh / CONFIG).write_text(text + "\n", encoding="utf-8")
        if path.exists():
            shutil.rmtree(path)
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Exported(
        str(path), "timm", name, sum(file.stat().st_size for file in path.iterdir()),
        f'timm.create_model("local-dir:{path}", pretrained=True)',
        ("classes and preprocessing are in config.json, as timm reads them",),
    )  # fmt: skip


def _safetensors(artifact: Artifact, path: Path) -> Exported:
    config = read_config(artifact.path / CONFIG)
    config["plusx"] = {**config["plusx"], "provenance": {}}  # the run's own business
    with replacing(path) as beside:
        write_tensors(disk_state(artifact.model), beside, metadata=with_config(config))
    return Exported(
        str(path), "safetensors", architecture(artifact.spec), path.stat().st_size,
        f"plusx train DATA --weights {path}",
        ("network, classes and preprocessing are in the file's metadata, under 'plusx'",),
    )  # fmt: skip


def _cannot(artifact: Artifact, library: str) -> str:
    """Why the library has no such network: the fields that differ from the nearest one it has."""
    spec = artifact.spec
    if not architecture(spec).startswith("plusx_"):
        return f"--as {library}: {library} has no {spec.name}; use --as timm or --as safetensors"
    if not isinstance(spec, ResNetSpec):
        kind = f"{title(spec)} like {spec.name}"
        return f"--as {library}: {library} has no {kind}; use --as safetensors"
    nearest, differing = min(
        ((name, _differing(spec, VARIANTS[name])) for name in TIMM_NAMES),
        key=lambda found: len(found[1]),
    )
    said = []
    for field in sorted(differing, key=lambda one: one not in _WHY)[:4]:  # the telling ones first
        ours = getattr(spec, field)
        theirs = getattr(VARIANTS[nearest], field)
        why = f" ({_WHY[field]})" if field in _WHY else ""
        said.append(f"{field}={ours!r} instead of {theirs!r}{why}")
    return (
        f"--as {library}: {library} cannot represent {spec.name}: nearest is {nearest}, but "
        f"{'; '.join(said)}; use --as safetensors"
    )


def _differing(spec: ResNetSpec, other: ResNetSpec) -> list[str]:
    names = [field.name for field in fields(spec) if field.name not in _FREE]
    return [name for name in names if getattr(spec, name) != getattr(other, name)]
