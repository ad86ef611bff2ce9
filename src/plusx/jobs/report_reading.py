"""What a report finds in a run folder: settings, curves, the audit, times; as plain data."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

from plusx.errors import PlusxError
from plusx.evaluate import SCORES, learning_curves
from plusx.jobs import wording
from plusx.jobs.report_classes import bounded, inline_svg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EPOCHS, VALUE, FINDINGS = 1000, 2000, 12  # most shown: of epochs, letters of a value, findings

Json = dict[str, Any]


def read(path: Path, absent: dict[str, str], part: str) -> Json:
    """A JSON or TOML file, its strings fit to be shown; empty, with the reason, where it cannot."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        absent[part] = f"This run has no {path.name}."
    except (OSError, ValueError) as error:
        absent[part] = wording.one_line(f"{path.name} cannot be read: {error}")
    else:
        if isinstance(content, dict):
            return {key: _shown(value) for key, value in content.items()}
        absent[part] = f"{path.name} cannot be read: it holds no table."
    return {}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return wording.one_line(value)
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {wording.one_line(key): _shown(one) for key, one in value.items()}
    return value


def gather_curves(
    path: Path, config: Json, absent: dict[str, str], prefix: str = "curves"
) -> Json | None:
    """Every epoch of ``history.csv``, and a picture; ``prefix`` makes the picture's ids its own."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # A column that is empty throughout belongs to the other task.
        used = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
        rows = [{name: row[name] for name in used} for row in rows]
        score = next((name for name in SCORES if name in used), "val_top1")
        start = next((float(row[score]) for row in rows if not float(row["epoch"])), None)
        known = [{k: float(v) for k, v in row.items() if v} for row in rows]
        epochs = [row for row in known if row["epoch"] and math.isfinite(row.get("train_loss", 0))]
        if not epochs:
            absent["curves"] = "No epoch was run: the probe needs none."
            return None
        probe = None if _from_scratch(config) else start
        picture = inline_svg(prefix, learning_curves(epochs, score=score, probe=probe))
    except FileNotFoundError:
        absent["curves"] = "This run has no history.csv: nothing was trained epoch by epoch."
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PlusxError) as error:
        absent["curves"] = wording.one_line(f"history.csv cannot be read: {error}")
    else:
        table = bounded(rows, EPOCHS)
        return {
            "picture": picture,
            "rows": table,
            "probe": probe,
            "epochs": len(epochs),
            "score": SCORES[score].removeprefix("validation "),
        }
    return None


def _from_scratch(config: Any) -> bool:
    """Whether any table of the settings says ``weights = "none"``: there is no probe then."""
    return isinstance(config, dict) and (
        config.get("weights") == "none" or any(map(_from_scratch, config.values()))
    )


def tables(content: Json) -> list[tuple[str, list[tuple[str, str]]]]:
    """Nested tables as a flat list of them: (name, its settings as text)."""
    tables: dict[str, list[tuple[str, str]]] = {}

    def visit(name: str, table: Json) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and value:
                visit(f"{name}.{key}" if name else key, value)
            else:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False,
                                                                       default=str)  # fmt: skip
                cut = text if len(text) <= VALUE else f"{text[:VALUE]}… ({len(text):,} letters)"
                tables.setdefault(name, []).append((key, cut))

    visit("", content)
    return list(tables.items())


def gather_audit(run: Path) -> Json | None:
    """The audit of the data: how many findings of which severity, and the gravest in words; None
    where the run has none."""
    found = read(run / "audit.json", {}, "audit").get("findings")
    if not isinstance(found, list):
        return None
    severities = [one["severity"] for one in found]
    counts = [(severities.count(name), name) for name in ("error", "warning", "note")]
    said = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count]
    return {
        "said": ", ".join(said) or "nothing wrong found",
        "href": "audit.html" if (run / "audit.html").is_file() else "",
        "findings": bounded(
            [{key: one.get(key, "") for key in ("severity", "text", "remedy")} for one in found],
            FINDINGS,
        ),
    }


def gather_speed(metrics: Json, config: Json) -> Json | None:
    """How long each phase took, and how many images a second were scored from their files."""
    seconds = metrics.get("seconds") or {}
    if not seconds:
        return None
    scored = {one["split"]: one["n"] for one in metrics.get("evaluations") or []}
    rows = []
    for phase, taken in seconds.items():
        images = scored.get(phase.removeprefix("scoring "), 0)
        rate = f"{images / taken:,.0f}" if images and taken else ""
        rows.append({"phase": phase, "seconds": taken, "rate": rate})
    hardware = config.get("hardware") or {}
    said = [f"{key.replace('_', ' ')} {hardware[key]}" for key in
            ("device", "precision", "threads") if key in hardware]  # fmt: skip
    return {"rows": rows, "all": sum(seconds.values()), "where": ", ".join(said)}
