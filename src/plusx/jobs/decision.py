"""What the thresholds of a training of task multi are, and that they stand in the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plusx.data import Sample
from plusx.decide import USUAL, Decision
from plusx.evaluate import Predictions
from plusx.evaluate.thresholds import FEWEST, best_thresholds, decided, few
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.predict import Predictor
from plusx.weights import write_decision


def score(
    setup: Setup, artifact: Path, samples: Sequence[Sample], label: str, talk: Talk
) -> Predictions:
    """Predictions of an artifact on disk for labelled image files."""
    predictor = Predictor(artifact, device=str(setup.hardware.device), threads=setup.threads)
    with talk.phase(label, len(samples)) as tick:
        predictions, bad = predictor.predictions(samples, tick=lambda n: tick(n, ""))
    for item in bad:
        talk.note(f"not scored: {item.path}: {item.reason}")
    return predictions


def score_and_decide(
    setup: Setup, artifact: Path, samples: Sequence[Sample], label: str, talk: Talk
) -> tuple[Predictions, Decision]:
    """``score`` on the images that choose; of task multi they also set the thresholds, which are
    written into the artifact."""
    predictions = score(setup, artifact, samples, label, talk)
    if predictions.task == "single":
        return predictions, Decision()
    decision = best_thresholds(predictions)
    write_decision(artifact, decision)
    if names := few(predictions):
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        talk.note(
            f"{len(names)} of {len(predictions.classes)} classes keep the threshold {USUAL} "
            f"(fewer than {FEWEST} validation images with or without the class): {shown}"
        )
    return decided(predictions, decision), decision
