"""Experiment trackers besides ``history.csv`` and TensorBoard: Weights & Biases and MLflow.

Both work without a network: ``WANDB_MODE=offline`` keeps what W&B is told below the run folder for
``wandb sync``, and MLflow writes a local folder unless ``MLFLOW_TRACKING_URI`` names a server.
"""

from __future__ import annotations

import importlib.util
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from plusx.atomic import replacing
from plusx.errors import MissingExtra, UsageError

NAMES = ("wandb", "mlflow")
_IDS = "trackers.json"


class Tracker(Protocol):
    """What is told the rows of the history."""

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Figures of one epoch."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class _WandB:
    """https://docs.wandb.ai/ref/python/"""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None) -> None:
        import wandb

        self.id = known or uuid.uuid4().hex
        self._run = wandb.init(
            project="plusx", name=folder.name, id=self.id, resume="allow", dir=str(folder),
            config=dict(config), settings=wandb.Settings(silent=True),
        )  # fmt: skip

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(figures), step=epoch)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """https://mlflow.org/docs/latest/python_api/"""

    def __init__(self, folder: Path, config: Mapping[str, Any], known: str | None) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        if known is not None:
            self.id = known
            return
        found = self._client.get_experiment_by_name("plusx")
        experiment = found.experiment_id if found else self._client.create_experiment("plusx")
        self.id = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for name, value in config.items():
            self._client.log_param(self.id, name, value)

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self.id, name, value, step=epoch)

    def close(self) -> None:
        self._client.set_terminated(self.id)


class _Patient:
    """A tracker that may fail without costing the training: it is said, and it is told no more."""

    def __init__(self, name: str, tracker: Tracker, note: Callable[[str], None]) -> None:
        self._name, self._note = name, note
        self._tracker: Tracker | None = tracker

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        if self._tracker is not None:
            self._try(lambda tracker: tracker.log(figures, epoch))

    def close(self) -> None:
        if self._tracker is not None:
            self._try(lambda tracker: tracker.close())

    def _try(self, tell: Callable[[Tracker], None]) -> None:
        assert self._tracker is not None
        try:
            tell(self._tracker)
        except Exception as error:  # whatever its library raises, a server that is gone included
            self._tracker = None
            self._note(f"--track {self._name}: is told no more: {_first_line(error)}")


_MAKE: dict[str, type[_WandB] | type[_MLflow]] = {"wandb": _WandB, "mlflow": _MLflow}


def check_trackers(text: str | None) -> tuple[str, ...]:
    """The names in ``wandb,mlflow``; none for None.

    Raises:
        UsageError: an unknown one.
        MissingExtra: it is not installed.
    """
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    for name in names:
        if name not in NAMES:
            raise UsageError(f"--track {name!r} is not one of {', '.join(NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(f"--track {name}", name)
    return names


def open_trackers(
    names: tuple[str, ...],
    folder: Path,
    config: Mapping[str, Any],
    *,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[Tracker, ...]:
    """Begin a run in each, or go on with the one that the run folder remembers.

    Args:
        names: of trackers; see ``check_trackers``.
        folder: of the run, whose name it gets; ``trackers.json`` there holds their ids.
        config: the recipe's numbers.
        note: told where one fails later.

    Raises:
        UsageError: one cannot begin.
    """
    found: list[Tracker] = []
    file = folder / _IDS
    ids: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for name in names:
        try:
            tracker = _MAKE[name](folder, config, ids.get(name))
        except Exception as error:  # whatever its library raises
            hint = "WANDB_MODE=offline" if name == "wandb" else "MLFLOW_TRACKING_URI"
            raise UsageError(
                f"--track {name}: cannot begin: {_first_line(error)}; see {hint}, or leave it out"
            ) from error
        ids[name] = tracker.id
        found.append(_Patient(name, tracker, note))
    if names:
        with replacing(file) as beside:
            beside.write_text(json.dumps(ids), encoding="utf-8")
    return tuple(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
