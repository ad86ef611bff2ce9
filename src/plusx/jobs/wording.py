"""How figures are said to a person: percent with its interval, and which images they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FIGURES = {
    "top1": ("Top-1", "the first guess is right"),
    "top5": ("Top-5", "the right class is among the first five guesses"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall: every class counts the same"),
    "mean_average_precision": ("Mean average precision", "ranking quality, averaged over classes"),
    "subset_accuracy": ("Subset accuracy", "every class of an image is right, present or absent"),
    "macro_precision": ("Macro precision", "of what is called a class, how much is; class mean"),
    "macro_recall": ("Macro recall", "of what is a class, how much is found; class mean"),
    "macro_f1": ("Macro F1", "harmonic mean of precision and recall; class mean"),
    "macro_auroc": (
        "Area under the ROC curve",
        "how often an image of a class is ranked above one of another; class mean",
    ),
    "macro_auprc": ("Area under precision-recall", "average precision; class mean"),
    "nll": ("Negative log likelihood", "nats an image, lower is better; sure and wrong costs most"),
}
"""Figure -> its name for a person, and what it means."""

PROPORTIONS = frozenset(FIGURES) - {"nll", "macro_auroc", "macro_auprc"}

ROLES = {
    "report": "each judged by a model that it neither trained nor helped to choose",
    "selection": "they also chose what ships, so expect a little less on new ones",
    "calibration": "they also set temperature or thresholds, so expect a little less on others",
}
"""Role -> what that says about the images."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]+")


def one_line(text: object) -> str:
    """``text`` fit for any page: control characters become a space, as do those that turn the
    direction of what follows, lone surrogates (of file names that are not UTF-8) and runs of
    them."""
    return _UNSEEN.sub(" ", str(text)).strip()


def label(figure: str) -> str:
    """What a figure of ``metrics.json`` is called."""
    return FIGURES[figure][0] if figure in FIGURES else one_line(figure)


def number(figure: str, value: float) -> str:
    """``93.5%`` for a proportion, else three decimals."""
    return f"{100 * value:.1f}%" if figure in PROPORTIONS else f"{value:.3f}"


def interval(figure: str, found: Mapping[str, Any]) -> str:
    """``89.2% to 96.9%``, or nothing where it has no interval."""
    if found.get("low") is None or found.get("high") is None:
        return ""
    return f"{number(figure, found['low'])} to {number(figure, found['high'])}"


def verdict(headline: Mapping[str, Any]) -> str:
    """The one sentence about the headline figure; in whole images where they come out whole."""
    figure, value, n = headline["figure"], headline["value"], headline["n"]
    kind = "unseen images" if headline.get("role") == "report" else "images that also chose it"
    if figure != "top1":
        return f"{label(figure)} {number(figure, value)} on {n:,} {kind}"
    right = round(value * n)
    if abs(value * n - right) < 1e-6:
        return f"Right on {right:,} of {n:,} {kind}"
    return f"Right on {number(figure, value)} of {n:,} {kind}"


def which_images(about: Mapping[str, Any]) -> str:
    """``153 images of val (role report)``, from ``n``, ``split`` and ``role``."""
    return f"{about['n']:,} images of {one_line(about['split'])} (role {one_line(about['role'])})"


def role_meaning(role: object) -> str:
    """What a role says about the images; empty for an unknown one."""
    return ROLES.get(str(role), "")


def duration(seconds: float) -> str:
    """``0.42 s``, ``13 s``, ``4 min 05 s`` or ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Thing -> why, as why -> things, in order."""
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return found
