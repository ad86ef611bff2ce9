"""What a training decides with: fitted on its validation images, written into the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plusx.data import Sample
from plusx.data.records import target_array
from plusx.decide import USUAL, Decision
from plusx.evaluate import Predictions
from plusx.evaluate.deciding import fit_decision, judged
from plusx.evaluate.thresholds import FEWEST, few
from plusx.evaluate.wish import Wish
from plusx.fit.rows import sample
from plusx.fit.trunk import ActivationStore, Rows
from plusx.jobs.beginning import Fitted
from plusx.jobs.material import Material
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.model.surgery import Top
from plusx.predict import Predictor
from plusx.weights import write_decision

BANK = 4_000
"""Training images whose features ship, at most: 16 MB at 2,048 numbers of two bytes."""

_BATCH = 64

Features = npt.NDArray[np.float32]


def score(
    setup: Setup,
    artifact: Path,
    samples: Sequence[Sample],
    label: str,
    talk: Talk,
    *,
    features: bool = False,
) -> Predictions:
    """Predictions of an artifact on disk for labelled image files."""
    predictor = Predictor(artifact, device=str(setup.hardware.device), threads=setup.threads)
    with talk.phase(label, len(samples)) as tick:
        predictions, bad = predictor.predictions(
            samples, features=features, tick=lambda n: tick(n, "")
        )
    for item in bad:
        talk.note(f"not scored: {item.path}: {item.reason}")
    return predictions


def decide(
    artifact: Path,
    raw: Predictions,
    wish: Wish,
    *,
    bank: Features | None = None,
    seed: int,
    talk: Talk,
) -> tuple[Predictions, Decision]:
    """Fit a decision on the validation images and write it into the artifact.

    Args:
        artifact: has no decision yet.
        raw: its predictions of the validation images, with features where there is a bank.
        wish: what the decision shall promise.
        bank: see ``training_features``; None for no unknown score.
        seed: of the halves that judge the temperature.
        talk: where it is said what was left out, and why.

    Returns:
        The predictions calibrated, of task multi with the classes that each image is said to have;
        and the decision.
    """
    decision, why = fit_decision(raw, wish, bank=bank, seed=seed)
    for text in why:
        talk.note(text)
    write_decision(artifact, decision)
    if raw.task == "multi" and (names := few(raw)):
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        talk.note(
            f"{len(names)} of {len(raw.classes)} classes keep the threshold {USUAL} "
            f"(fewer than {FEWEST} validation images with or without the class): {shown}"
        )
    return judged(raw, decision), decision


def wants_features(setup: Setup) -> bool:
    """Whether a score of unknown images is wished for and possible."""
    single = setup.listing.task == "single"
    return single and Wish.parse(setup.options.decide).unknown is not None


def training_features(
    setup: Setup, material: Material, fitted: Fitted, epoch: int, artifact: Path, *, talk: Talk
) -> Features | None:
    """(M, D) features of at most about ``BANK`` training images, classes in proportion.

    They are what the network that ``fitted`` holds now (that of ``epoch``) makes of them: those of
    the first pass for the probe, else from the cached activations through the trained blocks; where
    nothing is cached, from the files through the artifact, one forward pass.
    """
    if not wants_features(setup):
        return None
    positions = fitted.positions["train"]
    samples = [setup.listing.samples[p] for p in positions]
    targets = target_array(samples, len(setup.listing.classes), setup.listing.task)
    rows = positions[sample(targets, BANK, np.random.default_rng(setup.recipe.seed))]
    if epoch == 0 and material.first is not None:
        return material.first.features[rows]
    if material.store is not None and isinstance(fitted.net, Top):
        with talk.phase("features of training images"):
            return through_top(fitted.net, material.store, rows)
    chosen = [setup.listing.samples[p] for p in rows]
    label = "features of training images"
    found = score(setup, artifact, chosen, label, talk, features=True)
    return None if found.features is None else found.features.astype(np.float32)


@torch.inference_mode()
def through_top(net: Top, store: ActivationStore, rows: Rows) -> Features:
    """(n, D) features of cached activations behind the blocks that were trained."""
    where = next(net.parameters())
    net.eval()
    found = []
    for start in range(0, len(rows), _BATCH):
        activation, pooled = store.read(rows[start : start + _BATCH])
        features = net.features(activation.to(where), pooled.to(where.device))
        found.append(features.float().cpu().numpy())
    return np.concatenate(found)


def stated(about: dict[str, Any], decision: Decision) -> dict[str, Any]:
    """``decision`` of ``metrics.json``: what ships, and what it is worth (see ``worth``)."""
    values = decision.to_dict()
    if decision.unknown is not None and decision.unknown.bank is not None:
        values["unknown"]["bank"] = list(decision.unknown.bank.shape)
    return {"ships": values, **about}
