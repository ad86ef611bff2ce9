"""Experiment trackers besides ``history.csv`` and TensorBoard: Weights & Biases and MLflow.

Both work without a network: ``WANDB_MODE=offline`` keeps what W&B is told below the run folder for
``wandb sync``, and MLflow writes a local folder unless ``MLFLOW_TRACKING_URI`` names a server.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from plusx.errors import MissingExtra, UsageError

NAMES = ("wandb", "mlflow")


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

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        # The same id again goes on with the same run after a resume.
        self._run = wandb.init(
            project="plusx", name=folder.name, id=folder.name, resume="allow",
            dir=str(folder), config=dict(config),
        )  # fmt: skip

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(figures), step=epoch)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """https://mlflow.org/docs/latest/python_api/"""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        known = self._client.get_experiment_by_name("plusx")
        experiment = known.experiment_id if known else self._client.create_experiment("plusx")
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for name, value in config.items():
            self._client.log_param(self._run, name, value)

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=epoch)

    def close(self) -> None:
        self._client.set_terminated(self._run)


_MAKE: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "wandb": _WandB,
    "mlflow": _MLflow,
}


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
    names: tuple[str, ...], folder: Path, config: Mapping[str, Any]
) -> tuple[Tracker, ...]:
    """Begin a run in each; see ``check_trackers``.

    Args:
        names: of trackers.
        folder: of the run, whose name it gets.
        config: the recipe's numbers.
    """
    return tuple(_MAKE[name](folder, config) for name in names)
