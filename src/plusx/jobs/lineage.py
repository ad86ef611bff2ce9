"""What a training takes over from an earlier run: a head's classes, or a teacher."""

from __future__ import annotations

import torch

from plusx.data.classes import quoted
from plusx.data.records import Task
from plusx.engines import TorchEngine
from plusx.errors import UsageError
from plusx.fit.teacher import Teacher
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.model.classifier import Classifier
from plusx.weights import Artifact, load_artifact


def keep_head(model: Classifier, setup: Setup, talk: Talk) -> None:
    """Put the rows of the head of ``--init`` into ``model``, by the names of their classes; those
    of new classes stay fresh, and what is gone is said.

    Raises:
        ArtifactError: no run there.
        UsageError: it is of another task, or has none of the classes.
    """
    run = str(setup.options.init)
    earlier = load_artifact(run)
    _check_task(earlier, setup.listing.task, f"--init {run}")
    classes = setup.listing.classes
    known = {name: row for row, name in enumerate(earlier.classes)}
    pairs = [(row, known[name]) for row, name in enumerate(classes) if name in known]
    if not pairs:
        raise UsageError(
            f"--init {run}: has none of the classes {quoted(classes)}; give --weights {run} to "
            "use its backbone alone"
        )
    to, of = (list(rows) for rows in zip(*pairs, strict=True))
    with torch.no_grad():
        model.head.fc.reset_parameters()
        model.head.fc.weight[to] = earlier.model.head.fc.weight[of]
        model.head.fc.bias[to] = earlier.model.head.fc.bias[of]
    new = [name for name in classes if name not in known]
    gone = [name for name in earlier.classes if name not in classes]
    said = [f"{len(pairs)} classes kept by name"]
    said += [f"new: {quoted(new)}"] if new else []
    said += [f"gone: {quoted(gone)}"] if gone else []
    talk.note(f"--init {run}: {'; '.join(said)}")


def open_teacher(setup: Setup, talk: Talk) -> Teacher | None:
    """The model of ``--teacher``; None where there is none.

    Raises:
        ArtifactError: no run there.
        UsageError: it is of another task, lacks a class, or reads other images.
    """
    run = setup.options.teacher
    if run is None:
        return None
    earlier = load_artifact(run)
    _check_task(earlier, setup.listing.task, f"--teacher {run}")
    if lacking := [name for name in setup.listing.classes if name not in earlier.classes]:
        raise UsageError(
            f"--teacher {run}: does not know {quoted(lacking)}; train it on these classes as well"
        )
    own, pupil = earlier.preprocessing, setup.preprocessing
    if (own.channels, own.reading) != (pupil.channels, pupil.reading):
        raise UsageError(
            f"--teacher {run}: reads other images ({own.channels} channels, {own.reading}) than "
            f"this training ({pupil.channels}, {pupil.reading}); give both the same options"
        )
    if own.size != pupil.size:
        talk.note(f"--teacher {run}: was trained at {own.size} pixels and sees {pupil.size} here")
    columns = [earlier.classes.index(name) for name in setup.listing.classes]
    engine = TorchEngine(earlier.model, device=setup.hardware.device, dtype=setup.hardware.dtype)
    return Teacher(engine, own, pupil, columns)


def _check_task(earlier: Artifact, task: Task, what: str) -> None:
    if earlier.task != task:
        raise UsageError(
            f"{what}: its images have {_LABELS[earlier.task]} each, these have {_LABELS[task]}; "
            "give a run of the same kind"
        )


_LABELS: dict[Task, str] = {"single": "one class", "multi": "several labels"}
