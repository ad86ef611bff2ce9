"""How accuracy falls as images get worse, for a report: what ``robustness.json`` holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plusx.jobs.report_reading import read

Json = dict[str, Any]


def gather_robustness(run: Path) -> tuple[Json | None, str]:
    """Curves and figures; or None, and why.

    Args:
        run: the folder.
    """
    absent = {"robustness": ""}
    found = read(run / "robustness.json", absent, "robustness")
    if not found:
        return None, absent["robustness"] or "robustness.json is empty."
    return found, ""
