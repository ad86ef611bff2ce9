"""A run: the folder that training leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from plusx.atomic import replacing
from plusx.data.manifest import is_manifest
from plusx.errors import ArtifactError, UsageError
from plusx.jobs.lock import held

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from plusx.jobs.evaluate import Result
    from plusx.jobs.export import Exported
    from plusx.predict import Prediction, Predictor

PathLike = str | os.PathLike[str]


class Run:
    """A finished run.

    Attributes:
        path: the run folder.
        metrics: what ``metrics.json`` says; empty for imported weights that were not evaluated.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        if not (self.path / "model" / "config.json").is_file():
            raise ArtifactError(
                f"{self.path}: is no run of plusx (it has no model/config.json); give the folder "
                "that plusx train or plusx import made"
            )
        self.metrics: dict[str, Any] = read_json(self.path / "metrics.json")
        self._predictor: Predictor | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def of_other_process(cls, path: PathLike) -> Run:
        """The run that the first of several processes is still making, perhaps on another machine:
        its folder alone."""
        run = cls.__new__(cls)
        run.path, run.metrics, run._predictor = Path(path), {}, None
        return run

    @property
    def model_path(self) -> Path:
        """The artifact."""
        return self.path / "model"

    @property
    def report_path(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"

    @property
    def top1(self) -> float | None:
        """The headline figure, a fraction; None where nothing was evaluated, and for task multi
        (its headline is a mean average precision)."""
        headline = self.metrics.get("headline")
        if headline is None or headline["figure"] != "top1":
            return None
        return float(headline["value"])

    def predict(self, source: PathLike | Iterable[PathLike]) -> Prediction | list[Prediction]:
        """Classify one image (one Prediction) or several, a folder or a glob (a list)."""
        from plusx.predict import Predictor  # loads torch

        if self._predictor is None:
            self._predictor = Predictor(self.model_path)
        return self._predictor.predict(source)

    def evaluate(self, data: PathLike, **options: Any) -> Result:
        """Score the run on labelled images; see ``plusx.jobs.evaluate.evaluate``."""
        from plusx.jobs.evaluate import evaluate

        return evaluate(self.path, data, **options)

    def export(self, **options: Any) -> Exported:
        """Write the run as a file for another runtime; see ``plusx.jobs.export.export``."""
        from plusx.jobs.export import export

        return export(self.path, **options)


def load(path: PathLike) -> Run:
    """Open a run folder.

    Raises:
        ArtifactError: the folder is no run.
    """
    return Run(path)


@contextmanager
def run_folder(out: str | None, data: str, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """The folder of a new run; an existing one is never lost to a run that fails.

    A new folder whose run fails before there is anything to go on from is removed.

    Raises:
        UsageError: ``out`` exists, and neither ``overwrite`` nor ``resume`` was asked for, or it
            holds something else than a run; or another process is at work in it.
    """
    if out is not None and resume:
        with held(Path(out)):
            yield Path(out)
        return
    if out is None:
        folder = _fresh(Path("runs"), name_of(data))
    else:
        folder = Path(out)
        check_free(out, overwrite=overwrite)
        if _taken(folder):
            yield from _in_place_of(folder)
            return
        _make(folder)
    try:
        with held(folder):
            yield folder
    except BaseException:
        if not resumable(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resumable(folder: Path) -> bool:
    """Whether a run has come far enough that there is something to go on from."""
    return any(any(folder.glob(found)) for found in _WORTH_KEEPING)


_WORTH_KEEPING = (
    "checkpoints/*.pt",
    "folds/*/checkpoints/*.pt",
    "folds/*/held.npz",
    "model/config.json",
)


def check_free(out: str | None, *, overwrite: bool) -> None:
    """Refuse an ``out`` that is taken and may not be overwritten.

    Raises:
        UsageError: see ``run_folder``; or ``out`` is an empty name.
    """
    if out == "":
        raise UsageError("--out '': is an empty name; give the folder to make")
    if out is None or not _taken(Path(out)):
        return
    if not overwrite:
        raise UsageError(f"--out {out}: exists already; give another name, or --overwrite")
    if not _is_run(Path(out)):
        raise UsageError(f"--out {out}: holds no run of plusx, so it is not overwritten")


def _taken(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _is_run(folder: Path) -> bool:
    """Whether its config.toml was written by plusx (other programs have files of that name)."""
    try:
        return "plusx" in read_config(folder / "config.toml").get("versions", {})
    except ArtifactError:
        return False


def _in_place_of(folder: Path) -> Iterator[Path]:
    aside = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    with held(folder):  # not while it is still being made
        pass
    folder.rename(aside)
    try:
        _make(folder)
        with held(folder):
            yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def write_config(path: Path, tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Write ``config.toml``, atomically; values that are None are left out."""
    kept = {
        name: {key: _plain(value) for key, value in table.items() if value is not None}
        for name, table in tables.items()
    }
    write_text(path, tomli_w.dumps(kept))


def read_config(path: Path) -> dict[str, Any]:
    """Read ``config.toml``.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read: {error}") from error
    return tables


def write_text(path: Path, text: str) -> None:
    """Write a text file, atomically; lines end in one byte on every system.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    try:
        with replacing(path, durable=True) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON without NaN, atomically; bytes of file names that are no UTF-8 stand escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    if not text.isascii() and text.encode("utf-8", "ignore").decode() != text:
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where the file is missing.

    Raises:
        ArtifactError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: is damaged: {error}") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path}: is damaged: not a JSON object")
    return value


def name_of(data: str) -> str:
    """What the user calls the data: a symbolic link keeps its own name, a manifest loses its
    ending, and a pattern of shards is called by what they have in common."""
    where = Path(data).absolute()
    if ".." in where.parts or not where.name:
        where = where.resolve()
    if not where.is_dir() and where.suffix == ".tar":
        common = re.split(r"[{*?\[]", where.stem, maxsplit=1)[0].strip("-_. ")
        return common or where.parent.name or "run"
    return (where.stem if is_manifest(where.name) else where.name) or "run"


def _fresh(parent: Path, name: str) -> Path:
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UsageError(f"{folder}: cannot be made: {error.strerror}; give --out") from error
        else:
            return folder


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be made: {error.strerror}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, bool | int | float):
        return value
    return str(value).encode("utf-8", "backslashreplace").decode()
