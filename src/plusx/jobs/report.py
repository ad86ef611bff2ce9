"""``RUN/report.html``: one page about a run, in one file, from what lies in the run folder.

This file gathers plain data; ``templates/report.html`` draws it. What a run lacks is left out,
with one line why.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from plusx.errors import ArtifactError
from plusx.evaluate import SCHEMA_VERSION
from plusx.jobs import wording
from plusx.jobs.gallery import gather_gallery, kept_predictions
from plusx.jobs.report_classes import bounded, gather_classes
from plusx.jobs.report_reading import gather_audit, gather_curves, gather_speed, read, tables
from plusx.jobs.report_trust import gather_trust
from plusx.jobs.run import write_text

_LISTED = 200  # most shown of files and notes

_PARTS = ("metrics", "settings", "model", "classes", "curves", "gallery", "heat", "nearest")

TEMPLATES = Path(__file__).with_name("templates")

Json = dict[str, Any]


def write_report(run: Path, *, thumbnails: bool | None = None, out: Path | None = None) -> Path:
    """Write ``RUN/report.html`` from ``metrics.json``, ``history.csv``, ``config.toml``,
    ``predictions/*.npz``, ``model/`` and ``neighbours.npz``, as far as they are there.

    The page asks for nothing outside itself: pictures are inline, thumbnails too (of the image
    files that the predictions name, where they still exist). The same run gives the same bytes.

    Args:
        run: the folder.
        thumbnails: whether images may be shown; by default as the training was told.
        out: the page, if not ``RUN/report.html``.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: ``run`` is not a run folder, was written by a later plusx, or the page
            cannot be written.
    """
    try:
        page = render("report.html", gather(run, thumbnails=thumbnails))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{run / 'metrics.json'}: not as plusx writes it ({type(error).__name__}: {error}); "
            "train again, or restore the file"
        ) from error
    target = out or run / "report.html"
    write_text(target, page)
    return target


def gather(run: Path, *, thumbnails: bool | None = None) -> Json:
    """Everything the page shows, as plain data; ``absent`` says why a part is not there."""
    absent = dict.fromkeys(_PARTS, "")
    metrics, config, model = read_run(run, absent)
    evaluations = _by_weight(metrics)
    asked = (config.get("asked") or {}).get("thumbnails", True)
    shown = asked if thumbnails is None else thumbnails
    main = next((one for one in evaluations if one.get("per_class")), None)
    if main is None:
        absent["classes"] = "No evaluation in metrics.json has figures per class."
    speed = gather_speed(metrics, config)
    return {
        "name": wording.one_line(run.resolve().name),
        "run": shlex.quote(wording.one_line(run)),
        "run_python": json.dumps(wording.one_line(run), ensure_ascii=False),
        "plusx_version": metrics.get("plusx_version", ""),
        "chosen": metrics.get("chosen"),
        "class_names": metrics.get("classes") or [],
        "headline": headline_of(metrics, main),
        "evaluations": [_figures(one) for one in evaluations],
        "classes": gather_classes(main, metrics.get("thresholds") or {}) if main else None,
        "counts": metrics.get("counts") or {},
        "curves": gather_curves(run / "history.csv", config, absent),
        "trust": gather_trust(run, kept_predictions(run, evaluations), model),
        "gallery": gather_gallery(run, evaluations, absent, thumbnails=shown),
        "bad_images": bounded(metrics.get("bad_images") or [], _LISTED),
        "notes": bounded(metrics.get("notes") or [], _LISTED),
        "settings": tables(config),
        "model": tables(model),
        "speed": speed,
        "seconds": metrics.get("seconds") or {},
        "audit": gather_audit(run),
        "absent": absent,
    }


def read_run(run: Path, absent: dict[str, str]) -> tuple[Json, Json, Json]:
    """``metrics.json``, ``config.toml`` and ``model/config.json``; empty ones where they lack.

    Raises:
        ArtifactError: none of them can be read, or a later plusx wrote them.
    """
    metrics = read(run / "metrics.json", absent, "metrics")
    config = read(run / "config.toml", absent, "settings")
    model = read(run / "model" / "config.json", absent, "model")
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
    return metrics, config, model


def _by_weight(metrics: Json) -> list[Json]:
    """The evaluations: the headline's first, then the others that report, then the rest."""
    about = ("split", "role", "method")
    headline = [(metrics.get("headline") or {}).get(key) for key in about]

    def weight(one: Json) -> tuple[bool, bool]:
        return [one.get(key) for key in about] != headline, one["role"] != "report"

    return sorted(metrics.get("evaluations") or [], key=weight)


def headline_of(metrics: Json, main: Json | None = None) -> Json | None:
    """The verdict in words with what it rests on; None where nothing was measured."""
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


def render(template: str, data: Json) -> str:
    """A page from one of ``templates/``; all text in ``data`` is escaped. The one script that a
    page may run is named to the browser by its hash."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    environment.filters["duration"] = wording.duration
    environment.filters["percent"] = lambda figure: wording.number("top1", figure["value"])
    environment.filters["limits"] = lambda figure: wording.interval("top1", figure)
    environment.filters["drawing"] = Markup  # only our own pictures: matplotlib escapes the names
    return environment.get_template(template).render(
        script=Markup(script), script_hash=_digest(script), **data
    )


def _digest(script: str) -> str:
    """As a content security policy names a script (https://www.w3.org/TR/CSP3/#hash-source)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
