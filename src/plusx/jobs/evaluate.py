"""``plusx evaluate``: what a run is worth on labelled images. It never changes the run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plusx._version import __version__
from plusx.data import BadImage, align, read_listing
from plusx.errors import UsageError
from plusx.evaluate import SCHEMA_VERSION, Evaluation, Predictions, to_json
from plusx.evaluate import evaluate as figures
from plusx.evaluate.deciding import worth
from plusx.jobs.talk import Talk
from plusx.predict import Predictor
from plusx.weights import load_artifact

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Result:
    """One evaluation.

    Attributes:
        evaluation: figures with intervals, per class, confusion.
        predictions: what they were computed from.
        bad: images that could not be read, left out.
        split: which images: ``test``, ``val``, ``train`` or ``all``.
        decision: what the run's decisions are worth on these images (``plusx.evaluate.deciding``),
            taken for images of its classes; None for task multi.
    """

    evaluation: Evaluation
    predictions: Predictions
    bad: tuple[BadImage, ...]
    split: str
    decision: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; same schema as an entry of ``metrics.json``."""
        found = to_json(self.evaluation, split=self.split, role="report")
        bad = [{"path": item.path, "reason": item.reason} for item in self.bad]
        about = {"schema_version": SCHEMA_VERSION, "plusx_version": __version__}
        return {**about, **found, "decision": self.decision, "bad_images": bad}


def evaluate(
    run: PathLike,
    data: PathLike,
    *,
    split: str | None = None,
    device: str = "auto",
    precision: str = "float32",
    batch_size: int | None = None,
    threads: int | None = None,
    talk: Talk | None = None,
) -> Result:
    """Score a run on labelled images; classes are matched by name.

    Args:
        run: a run folder or a model folder.
        data: a folder of class folders (with or without splits), a CSV or Parquet file, or a data
            set that Hugging Face datasets saved.
        split: ``train``, ``val``, ``test`` or ``all``; by default ``test`` where the data has
            one, else ``val``, else all.
        device: where to run.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto``.
        batch_size: images per forward; by default 8 on a CPU, else 64.
        threads: for decoding.
        talk: where progress is said.

    Raises:
        DataError: a class of the data is unknown to the model; both sides are listed.
        UsageError: the split is not in the data.
    """
    talk = talk or Talk()
    artifact = load_artifact(Path(run))
    given = read_listing(data, training=False, task=artifact.task)
    if given.unlabelled:
        talk.note(f"images left out because they have no label yet: {given.unlabelled}")
    listing, absent = align(given, artifact.classes)
    if absent:
        shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        talk.note(f"{len(absent)} of the model's classes are absent from the data: {shown}")
    present = {sample.split for sample in listing.samples}
    if split is None:
        split = next((name for name in ("test", "val") if name in present), "all")
        if split != "all":
            talk.note(f"the data has splits: scoring {split} (--split to choose another)")
    samples = listing.samples if split == "all" else listing.part(split)
    if not samples:
        known = ", ".join(sorted(str(name) for name in present)) if present != {None} else "none"
        raise UsageError(f"--split {split!r}: not in the data; it has: {known}; or --split all")
    predictor = Predictor(
        artifact, device=device, precision=precision, batch_size=batch_size, threads=threads
    )
    with talk.phase("scoring", len(samples)) as tick:
        predictions, bad = predictor.predictions(
            samples,
            features=predictor.decision.unknown is not None,
            tick=lambda n: tick(n, ""),
        )
    for line in predictor.remarks.lines():
        talk.note(line)
    single = predictions.task == "single"
    decision = worth([(predictor.decision, predictions)]) if single else None
    predictions = replace(predictions, features=None)
    return Result(figures(predictions), predictions, tuple(bad), split, decision)
