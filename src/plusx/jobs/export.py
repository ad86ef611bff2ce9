"""``plusx export``: a run as a file that other programs run, checked against plusx."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plusx.data import Sample
from plusx.errors import ArtifactError, PlusxError, UsageError
from plusx.export.runtimes import open_exported
from plusx.export.targets import TARGETS, check_suffix, check_target
from plusx.export.write import write_exported
from plusx.jobs.export_images import arrays, calibration_images, images_to_check
from plusx.jobs.parity import Parity, check
from plusx.jobs.run import write_json
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact
from plusx.weights.exported import EXPORT, Format, Precision

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Checking:
    """What an export is checked on, and how much may be lost.

    Attributes:
        data: images, labelled or not; by default the run's validation images.
        tolerance: points of accuracy that a precision below fp32 may lose (without labels: points
            of answers that may change); by default 1 (5).
        skip: don't check; written into the report.

    Raises:
        UsageError: values that do not fit together.
    """

    data: PathLike | None = None
    tolerance: float | None = None
    skip: bool = False

    def __post_init__(self) -> None:
        if self.skip and (self.data is not None or self.tolerance is not None):
            raise UsageError("--no-check leaves nothing for --check and --tolerance to do")
        if self.tolerance is not None and not 0 <= self.tolerance <= 100:
            raise UsageError(f"--tolerance {self.tolerance:g} must be points, 0 to 100")


_USUAL = Checking()


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        files: all of them, the report last.
        to: format.
        precision: of weights and activations.
        bytes: of all files but the report.
        calibrated: on so many images (int8).
        parity: the comparison; None where it was left out on purpose.
    """

    path: str
    files: tuple[str, ...]
    to: Format
    precision: Precision
    bytes: int
    calibrated: int
    parity: Parity | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": self.path,
            "files": list(self.files),
            "to": self.to,
            "precision": self.precision,
            "precision_means": TARGETS[self.to].precisions[self.precision],
            "bytes": self.bytes,
            "calibrated_on": self.calibrated,
            "checked": self.parity is not None,
            "parity": None if self.parity is None else self.parity.to_json(),
        }


def export(
    run: PathLike,
    *,
    to: str = "onnx",
    precision: str = "fp32",
    out: PathLike | None = None,
    calibrate: PathLike | None = None,
    preprocessing: bool = True,
    checking: Checking = _USUAL,
    overwrite: bool = False,
    talk: Talk | None = None,
) -> Exported:
    """Write a run as a file for another runtime, and compare its answers with plusx's.

    Args:
        run: a run or model folder.
        to: ``onnx``, ``openvino`` or ``torch``.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``; ``plusx.export.TARGETS`` says which
            format takes which.
        out: the file; by default ``RUN/export/NAME-PRECISION`` with the format's suffix.
        calibrate: images for int8, at least 32; by default the run's training images.
        preprocessing: whether it goes into the file; else the file takes (N, C, S, S) float32.
        checking: on which images, and how much may be lost.
        overwrite: replace files that are there.
        talk: where progress is said.

    Raises:
        UsageError: an unknown or impossible combination, a name that is taken, no images.
        MissingExtra: a library is not installed.
        ArtifactError: no model at ``run``, or the file cannot be written.
        PlusxError: the file's answers differ by more than allowed; nothing was written.
    """
    talk = talk or Talk()
    form, kind = check_target(to, precision)
    if calibrate is not None and kind != "int8":
        raise UsageError(f"--calibrate is for --precision int8, not {kind}")
    if checking.tolerance is not None and kind == "fp32":
        raise UsageError("--tolerance is for lower precisions; fp32 must be equal to 1e-4")
    artifact = load_artifact(Path(run))
    folder = artifact.path.parent if artifact.path.name == "model" else artifact.path
    name = folder.resolve().name
    path = _place(folder, f"{name}-{kind}", form, out)
    _check_free(path, overwrite)
    calibration = calibration_images(artifact, folder, calibrate) if kind == "int8" else []
    images = arrays(calibration, artifact, talk, preprocessed=not preprocessing)
    samples: list[Sample] = []
    source = ""
    if not checking.skip:
        samples, source = images_to_check(artifact, folder, checking.data, calibration, talk)
    with _beside(path) as fresh:
        with talk.phase(f"exporting to {form}"):
            metadata = write_exported(
                artifact, fresh, to=form, precision=kind, name=name,
                preprocessed=not preprocessing, images=images,
            )  # fmt: skip
        parity = None
        if checking.skip:
            talk.note("not compared with plusx, as --no-check asked")
        else:
            runtime = open_exported(fresh, form, kind, preprocessed=not preprocessing)
            parity = check(runtime, artifact, metadata, samples, source=source,
                           tolerance=checking.tolerance, talk=talk)  # fmt: skip
            del runtime
            if parity.failed:
                raise PlusxError(
                    f"{path.name} was not written: {parity.failed} ({parity.words()}); "
                    + _remedy(kind)
                )
        done = Exported(
            path=str(path),
            files=tuple(str(one) for one in _family(path)),
            to=form,
            precision=kind,
            bytes=sum(one.stat().st_size for one in _family(fresh)[:-1]),
            calibrated=len(images),
            parity=parity,
        )
        write_json(_family(fresh)[-1], done.to_json())
    return done


def _remedy(precision: Precision) -> str:
    if precision == "fp32":
        return "please report it, with the model's name"
    more = "calibrate on more images of the kind, " if precision == "int8" else ""
    return f"{more}allow more with --tolerance, or take --precision fp32"


def _place(folder: Path, stem: str, to: Format, out: PathLike | None) -> Path:
    if out is None:
        return folder / EXPORT / (stem + TARGETS[to].suffix)
    if not str(out):
        raise UsageError("--out '': is an empty name; give the file to write")
    path = Path(out)
    if path.is_dir():
        raise UsageError(f"--out {path}: is a folder; give the name of a file")
    check_suffix(path, to)
    return path


def _family(path: Path) -> list[Path]:
    """The file and those that belong beside it, the report last."""
    weights = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    return [path, *weights, path.with_name(path.name + ".json")]


def _check_free(path: Path, overwrite: bool) -> None:
    for one in _family(path):
        if one.exists() and not overwrite:
            raise UsageError(f"--out {one}: exists already; give another name, or --overwrite")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name in a folder beside ``path``; at the end its files take their places.

    Where the block fails nothing is left, not even a folder that was made for it.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    made = not path.parent.exists()
    fresh = path.parent / f".plusx-{uuid.uuid4().hex[:12]}"
    try:
        fresh.mkdir(parents=True)
        yield fresh / path.name
        for one in sorted(fresh.iterdir(), key=lambda file: file.suffix == path.suffix):
            one.replace(path.parent / one.name)  # the file that is opened comes last
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if made:
            with suppress(OSError):  # it holds what was exported
                path.parent.rmdir()
