"""``RUN/report.html``: one page about a run, in one file, from what lies in the run folder.

This file gathers plain data; ``templates/report.html`` draws it. What a run lacks is left out,
with one line why.
"""

from __future__ import annotations

import csv
import json
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from plusx.errors import ArtifactError, PlusxError
from plusx.evaluate import SCHEMA_VERSION, SCORES, learning_curves
from plusx.jobs import wording
from plusx.jobs.audit_words import many
from plusx.jobs.gallery import gather_gallery
from plusx.jobs.report_classes import bounded, gather_classes, inline_svg
from plusx.jobs.run import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LISTED, _EPOCHS, _VALUE = 200, 1000, 2000  # most shown: of files and notes, epochs, letters

_PARTS = ("metrics", "settings", "model", "classes", "curves", "gallery")

Json = dict[str, Any]


def write_report(run: Path) -> Path:
    """Write ``RUN/report.html`` from ``metrics.json``, ``history.csv``, ``config.toml``,
    ``predictions/*.npz`` and ``model/config.json``, as far as they are there.

    The page asks for nothing outside itself: pictures are inline, thumbnails too (of the image
    files that the predictions name, where they still exist). The same run gives the same bytes.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: ``run`` is not a run folder, was written by a later plusx, or the page
            cannot be written.
    """
    try:
        page = render("report.html", gather(run))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{run / 'metrics.json'}: not as plusx writes it ({type(error).__name__}: {error}); "
            "train again, or restore the file"
        ) from error
    target = run / "report.html"
    write_text(target, page)
    return target


def gather(run: Path) -> Json:
    """Everything the page shows, as plain data; ``absent`` says why a part is not there."""
    absent = dict.fromkeys(_PARTS, "")
    metrics = _read(run / "metrics.json", absent, "metrics")
    config = _read(run / "config.toml", absent, "settings")
    model = _read(run / "model" / "config.json", absent, "model")
    if not (metrics or config or model):
        raise ArtifactError(
            f"{run}: not a run folder (no metrics.json, config.toml or model/ that can be read); "
            "give the folder that plusx train made"
        )
    version = metrics.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{run / 'metrics.json'}: schema_version {version!r} was written by a later plusx "
            f"(this one reads up to {SCHEMA_VERSION}); update with: pip install -U plusx"
        )
    evaluations = _by_weight(metrics)
    shown = (config.get("asked") or {}).get("thumbnails", True)
    main = next((one for one in evaluations if one.get("per_class")), None)
    if main is None:
        absent["classes"] = "No evaluation in metrics.json has figures per class."
    return {
        "name": wording.one_line(run.resolve().name),
        "run": shlex.quote(wording.one_line(run)),
        "run_python": json.dumps(wording.one_line(run), ensure_ascii=False),
        "plusx_version": metrics.get("plusx_version", ""),
        "chosen": metrics.get("chosen"),
        "class_names": metrics.get("classes") or [],
        "headline": _headline(metrics, main),
        "evaluations": [_figures(one) for one in evaluations],
        "classes": gather_classes(main, metrics.get("thresholds") or {}) if main else None,
        "counts": metrics.get("counts") or {},
        "curves": _curves(run / "history.csv", config, absent),
        "gallery": gather_gallery(run, evaluations, absent, thumbnails=shown),
        "bad_images": bounded(metrics.get("bad_images") or [], _LISTED),
        "notes": bounded(metrics.get("notes") or [], _LISTED),
        "settings": _tables(config),
        "model": _tables(model),
        "seconds": metrics.get("seconds") or {},
        "audit": _audit(run / "audit.json"),
        "absent": absent,
    }


def _read(path: Path, absent: dict[str, str], part: str) -> Json:
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


def _audit(path: Path) -> Json | None:
    """How many findings of which severity the audit of the data has; None where there is none."""
    found = _read(path, {}, "audit").get("findings")
    if not isinstance(found, list) or not path.with_suffix(".html").is_file():
        return None
    severities = [one["severity"] for one in found]
    counts = [(severities.count(name), name) for name in ("error", "warning", "note")]
    said = [many(count, name) for count, name in counts if count]
    return {"said": ", ".join(said) or "nothing wrong found", "href": path.stem + ".html"}


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return wording.one_line(value)
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return {wording.one_line(key): _shown(one) for key, one in value.items()}
    return value


def _by_weight(metrics: Json) -> list[Json]:
    """The evaluations: the headline's first, then the others that report, then the rest."""
    about = ("split", "role", "method")
    headline = [(metrics.get("headline") or {}).get(key) for key in about]

    def weight(one: Json) -> tuple[bool, bool]:
        return [one.get(key) for key in about] != headline, one["role"] != "report"

    return sorted(metrics.get("evaluations") or [], key=weight)


def _headline(metrics: Json, main: Json | None) -> Json | None:
    found = metrics.get("headline")
    if not found:
        return None
    sentence, text = wording.verdict(found), wording.number(found["figure"], found["value"])
    return {
        **found,
        "method": found.get("method", ""),
        "sentence": sentence,
        "text": text,
        "said": text in sentence,
        "interval": wording.interval(found["figure"], found),
        "images": wording.which_images(found),
        "meaning": wording.role_meaning(found["role"]),
        "chance": _chance(metrics, main) if found["figure"] == "top1" else None,
        "shuffled": _shuffled(found, main),
        "proportion": found["figure"] in wording.PROPORTIONS,
    }


def _chance(metrics: Json, main: Json | None) -> Json | None:
    """The largest class of the headline's images and its share; None where it is not known."""
    about, counts = metrics["headline"], metrics.get("counts") or {}
    parts = about["split"].split("+")
    support: dict[str, int] = {}
    if main is not None and (main["split"], main["n"]) == (about["split"], about["n"]):
        support = {one["class"]: one["support"] for one in main["per_class"]}
    elif all(part in counts for part in parts):
        names = metrics.get("classes") or []
        support = {name: sum(counts[part].get(name, 0) for part in parts) for name in names}
    total = sum(support.values())
    if not total:
        return None
    largest = max(support, key=lambda name: support[name])
    return {"class": largest, "share": support[largest] / total}


def _shuffled(headline: Json, main: Json | None) -> float | None:
    """Mean average precision of images in an order by chance: the mean share of a class's images;
    None for another figure, and where it is not known."""
    if headline["figure"] != "mean_average_precision" or main is None:
        return None
    if (main["split"], main["n"]) != (headline["split"], headline["n"]):
        return None
    held = [one["support"] for one in main["per_class"] if one["support"]]
    return sum(held) / len(held) / main["n"] if held else None


def _figures(evaluation: Json) -> Json:
    """One evaluation as a table: a row per figure, with its interval or the reason for none."""
    rows = []
    for name, found in evaluation["figures"].items():
        row: Json = {
            "label": wording.label(name),
            "meaning": wording.FIGURES.get(name, ("", ""))[1],
            "proportion": name in wording.PROPORTIONS,
        }
        if found is None:
            why = (evaluation.get("undefined") or {}).get(name, "it is undefined on these images")
            row |= {"text": "–", "interval": "", "why": why}
        else:
            value, limits = wording.number(name, found["value"]), wording.interval(name, found)
            row |= {"text": value, "found": found, "interval": limits}
        rows.append(row)
    return {
        "images": wording.which_images(evaluation),
        "meaning": wording.role_meaning(evaluation["role"]),
        "method": evaluation.get("method", ""),
        "reports": evaluation["role"] == "report",
        "rows": rows,
    }


def _curves(path: Path, config: Json, absent: dict[str, str]) -> Json | None:
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
        picture = inline_svg("curves", learning_curves(epochs, score=score, probe=probe))
    except FileNotFoundError:
        absent["curves"] = "This run has no history.csv: nothing was trained epoch by epoch."
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PlusxError) as error:
        absent["curves"] = wording.one_line(f"history.csv cannot be read: {error}")
    else:
        table = bounded(rows, _EPOCHS)
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


def _tables(content: Json) -> list[tuple[str, list[tuple[str, str]]]]:
    """Nested tables as a flat list of them: (name, its settings as text)."""
    tables: dict[str, list[tuple[str, str]]] = {}

    def visit(name: str, table: Json) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and value:
                visit(f"{name}.{key}" if name else key, value)
            else:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False,
                                                                       default=str)  # fmt: skip
                cut = text if len(text) <= _VALUE else f"{text[:_VALUE]}… ({len(text):,} letters)"
                tables.setdefault(name, []).append((key, cut))

    visit("", content)
    return list(tables.items())


def render(template: str, data: Json) -> str:
    """A page from one of ``templates/``; all text in ``data`` is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = wording.duration
    environment.filters["percent"] = lambda figure: wording.number("top1", figure["value"])
    environment.filters["limits"] = lambda figure: wording.interval("top1", figure)
    environment.filters["drawing"] = Markup  # only our own pictures: matplotlib escapes the names
    return environment.get_template(template).render(**data)
