"""How accuracy falls as images are harmed, for a report: what ``robustness.json`` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plusx.evaluate.plots import robustness_curves
from plusx.jobs.report_classes import inline_svg
from plusx.jobs.report_reading import read
from plusx.jobs.wording import label, number, which_images

Json = dict[str, Any]


def gather_robustness(run: Path) -> tuple[Json | None, str]:
    """Curves and figures; or None, and why.

    Args:
        run: the folder; its ``robustness.json`` is what ``plusx evaluate --robustness --out``
            writes.
    """
    absent = {"robustness": ""}
    found = read(run / "robustness.json", absent, "robustness")
    about = found.get("robustness") if "robustness" in found else found
    points = about.get("points") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(points, list) or not points:
        return None, absent["robustness"] or "robustness.json holds no curves."
    figure = str(about["figure"])
    kinds = list(dict.fromkeys(str(point["kind"]) for point in points))
    rows = []
    for kind in kinds:
        own = {point["strength"]: point for point in points if point["kind"] == kind}
        rows.append(
            {
                "kind": kind,
                "cells": [
                    number(figure, own[strength]["value"]) if strength in own else "–"
                    for strength in sorted({point["strength"] for point in points})
                ],
                "lost": own[min(own)]["value"] - own[max(own)]["value"],
            }
        )
    worst = max(rows, key=lambda row: row["lost"])
    said = {"n": about["n"], "split": found.get("split", "new images"), "role": "report"}
    return {
        "figure": label(figure),
        "images": which_images(said | ({"role": found["role"]} if "role" in found else {})),
        "strengths": sorted({point["strength"] for point in points}),
        "picture": inline_svg("robustness", robustness_curves(points, figure=figure)),
        "rows": rows,
        "worst": worst["kind"],
        "lost": f"{100 * worst['lost']:.0f}",
    }, ""
