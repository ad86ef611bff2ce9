"""How far a model's answers can be trusted, for a report: calibration, silence, decisions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plusx.errors import DataError
from plusx.evaluate import Figure, Predictions
from plusx.evaluate.abstain import risk_coverage
from plusx.evaluate.calibration import calibration_figures, reliability
from plusx.evaluate.plots import reliability_diagram, risk_curve
from plusx.jobs.report_classes import inline_svg
from plusx.jobs.report_robustness import gather_robustness
from plusx.jobs.wording import interval, number, one_line, which_images

Json = dict[str, Any]
Kept = tuple[Predictions, Mapping[str, Any]]

FEWEST = 20
"""Images below which neither curve says anything."""

_ANSWERED = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
_NAMES = {"nll": "Negative log likelihood", "brier": "Brier score", "ece": "Calibration error"}


def gather_trust(run: Path, kept: Kept | str, model: Json) -> Json:
    """``calibration``, ``risk``, ``robustness`` and ``decision``; each None where its data lacks,
    with the reason under ``why_calibration`` and so on.

    Args:
        run: the folder.
        kept: predictions and the evaluation they belong to, or why there are none. Their logits
            are those that answers are made of: a temperature has divided them.
        model: what ``model/config.json`` says.
    """
    decision = (model.get("plusx") or {}).get("decision") or {}
    temperature = float(decision.get("temperature", 1.0))
    found: Json = {"calibration": None, "risk": None, "decision": _decision(decision, model)}
    robustness, why = gather_robustness(run)
    found |= {"robustness": robustness, "why_robustness": why}
    why = kept if isinstance(kept, str) else _too_little(kept[0])
    if not why and not isinstance(kept, str):
        predictions, about = kept
        predictions = predictions.take(predictions.targets >= 0)
        about = {**about, "n": len(predictions)}
        try:
            found["calibration"] = _calibration(predictions, about, temperature)
            found["risk"] = _risk(predictions, about)
        except DataError as error:
            why = one_line(error)
    return {**found, "why_calibration": why, "why_risk": why}


def _too_little(predictions: Predictions) -> str:
    if predictions.task != "single":
        return "These curves are for one class an image; here an image may have several."
    labelled = int((predictions.targets >= 0).sum())
    if labelled < FEWEST:
        images = f"{labelled} image{'s' if labelled != 1 else ''}"
        return f"Left out: {images} are too few to say anything ({FEWEST} are needed)."
    return ""


def _calibration(predictions: Predictions, about: Mapping[str, Any], temperature: float) -> Json:
    after, before = reliability(predictions), None
    rows: list[Json] = []
    figures = calibration_figures(predictions)
    were = None
    if temperature != 1:
        raw = Predictions(
            predictions.logits * np.float32(temperature),
            predictions.targets,
            predictions.paths,
            predictions.classes,
            groups=predictions.groups,
        )
        before, were = reliability(raw), calibration_figures(raw)
    for name, figure in figures.items():
        shown = "top1" if name == "ece" else name
        old = None if were is None else were[name].to_json()
        rows.append(
            {
                "label": _NAMES.get(name, name),
                "value": number(shown, figure.value),
                "interval": interval(shown, figure.to_json()),
                "before": "" if old is None else number(shown, old["value"]),
                "before_interval": "" if old is None else interval(shown, old),
            }
        )
    sure = float(np.exp(predictions.log_probabilities).max(axis=1).mean())
    right = float((predictions.predicted == predictions.targets).mean())
    return {
        "images": which_images(about),
        "picture": inline_svg("reliability", reliability_diagram(after, before)),
        "rows": rows,
        "temperature": None if temperature == 1 else f"{temperature:.3g}",
        "sure": number("top1", sure),
        "right": number("top1", right),
        "verdict": _sureness(sure - right, figures["ece"]),
    }


def _sureness(gap: float, error: Figure) -> str:
    """In words: too sure, too modest, or as sure as it is right, as far as can be told."""
    if error.low < 0.01 or error.value < 0.02:
        return "It is about as often right as it says."
    if gap > 0.01:
        return "It is surer of itself than it is right."
    if gap < -0.01:
        return "It is right more often than it says."
    return "It is too sure of some answers and too modest about others."


def _risk(predictions: Predictions, about: Mapping[str, Any]) -> Json:
    sure = np.exp(predictions.log_probabilities).max(axis=1)
    curve = risk_coverage(sure, predictions.predicted == predictions.targets)
    rows, n = [], len(predictions)
    for share in _ANSWERED:
        # The curve holds only coverages that a threshold reaches: the largest up to this one.
        fits = np.flatnonzero(curve.coverage <= share + 1e-9)
        if not len(fits):
            continue
        at = int(fits[-1])
        answered = round(float(curve.coverage[at]) * n)
        least = float(np.sort(sure)[::-1][answered - 1])
        rows.append(
            {
                "answered": number("top1", float(curve.coverage[at])),
                "wrong": number("top1", float(curve.risk[at])),
                "count": f"{round(float(curve.risk[at]) * answered):,} of {answered:,}",
                "least": number("top1", least),
            }
        )
    unique = [row for i, row in enumerate(rows) if row not in rows[:i]]
    return {
        "images": which_images(about),
        "picture": inline_svg("risk", risk_curve(curve)),
        "rows": unique,
        "half": unique[-1] if unique else None,
        "area": number("top1", curve.area),
    }


def _decision(decision: Mapping[str, Any], model: Json) -> list[str]:
    """What ships beside the weights, in sentences."""
    said = []
    if (temperature := decision.get("temperature")) is not None:
        said.append(f"Its probabilities are calibrated: {temperature:.3g} divides the logits.")
    if (least := decision.get("sureness")) is not None:
        said.append(
            f"It answers where the most probable class has {100 * least:.1f}% or more; elsewhere "
            "it says that it is unsure."
        )
    if favoured := decision.get("favoured"):
        names = model.get("label_names") or []
        index = favoured["index"]
        name = names[index] if index < len(names) else f"class {index}"
        said.append(f"“{name}” is its answer from {100 * favoured['threshold']:.1f}% on.")
    if sets := decision.get("sets"):
        where = " of every class" if sets.get("per_class") else ""
        said.append(
            f"Its sets of classes hold the right one for {100 * sets['coverage']:.0f}% of the "
            f"images{where}."
        )
    if unknown := decision.get("unknown"):
        said.append(
            "Images unlike all that it was trained on are called unknown; of images of its classes "
            f"{100 * unknown['false_reject']:.0f}% are lost to that."
        )
    return said
