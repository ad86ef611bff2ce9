"""Two runs side by side on one page: which is better, on which images, and what was different."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.errors import ArtifactError, PlusxError
from plusx.evaluate import Predictions
from plusx.jobs import wording
from plusx.jobs.compare import Comparison, pair
from plusx.jobs.gallery import common_folder, kept_predictions
from plusx.jobs.report import headline_of, read_run, render
from plusx.jobs.report_classes import bounded
from plusx.jobs.report_pictures import thumbnail
from plusx.jobs.report_reading import gather_curves, tables
from plusx.jobs.run import write_text

_PICTURES, _CLASSES = 24, 1000
_OWN = {("asked", "out"), ("asked", "overwrite"), ("versions", "command")}
"""Settings that differ between any two runs."""

Json = dict[str, Any]


def write_pair(
    run_a: Path, run_b: Path, *, thumbnails: bool | None = None, out: Path | None = None
) -> Path:
    """Write ``RUN_A/report-with-RUN_B.html``. Image by image where both kept predictions of the
    same images; without, figures and settings alone.

    Args:
        run_a: a run folder.
        run_b: the other.
        thumbnails: whether images may be shown; by default where both trainings allow it.
        out: the page.

    Returns:
        The path of the page.

    Raises:
        ArtifactError: one is not a run folder, or the page cannot be written.
    """
    try:
        page = render("pair.html", _gather(run_a, run_b, thumbnails))
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{run_a} or {run_b}: metrics.json is not as plusx writes it "
            f"({type(error).__name__}: {error}); train again, or restore the file"
        ) from error
    target = out or run_a / f"report-with-{run_b.resolve().name}.html"
    write_text(target, page)
    return target


def _gather(run_a: Path, run_b: Path, thumbnails: bool | None) -> Json:
    names = _names(run_a, run_b)
    read = [read_run(run, {}) for run in (run_a, run_b)]
    asked = all((config.get("asked") or {}).get("thumbnails", True) for _, config, _ in read)
    shown = asked if thumbnails is None else thumbnails
    found, about, why = _compared((run_a, run_b), [metrics for metrics, _, _ in read], names)
    return {
        "names": names,
        "plusx_version": __version__,
        "title": _title(found),
        "comparison": None if found is None else _said(found, about, shown=shown),
        "why": why,
        "runs": [
            {
                "name": name,
                "headline": headline_of(metrics),
                "chosen": metrics.get("chosen"),
                "seconds": sum((metrics.get("seconds") or {}).values()),
                "curves": gather_curves(run / "history.csv", config, {}, f"curves{i}"),
            }
            for i, (name, run, (metrics, config, _)) in enumerate(
                zip(names, (run_a, run_b), read, strict=True)
            )
        ],
        "figures": _figures([metrics for metrics, _, _ in read]),
        "settings": _different(*(config for _, config, _ in read)),
    }


def _names(run_a: Path, run_b: Path) -> tuple[str, str]:
    names = [wording.one_line(run.resolve().name) for run in (run_a, run_b)]
    if names[0] == names[1]:
        names = [wording.one_line(run) for run in (run_a, run_b)]
    return names[0], names[1]


def _compared(
    runs: tuple[Path, Path], metrics: list[Json], names: tuple[str, str]
) -> tuple[Comparison | None, Json, str]:
    """The comparison, the evaluation it is of, and why there is none."""
    kept = [
        {one["split"]: one for one in found.get("evaluations") or [] if one.get("predictions")}
        for found in metrics
    ]
    both = [split for split in kept[0] if split in kept[1]]
    both.sort(key=lambda split: any(one[split]["role"] != "report" for one in kept))
    if not both:
        return None, {}, "They kept no predictions of the same split."
    split = both[0]
    predictions: list[Predictions] = []
    for run, found in zip(runs, kept, strict=True):
        loaded = kept_predictions(run, [found[split]])
        if isinstance(loaded, str):
            return None, {}, loaded
        predictions.append(loaded[0])
    about = max((found[split] for found in kept), key=lambda one: one["role"] != "report")
    try:
        return pair(predictions[0], predictions[1], names, split), about, ""
    except PlusxError as error:
        return None, {}, wording.one_line(error)


def _title(found: Comparison | None) -> str:
    if found is None:
        return "Two runs side by side"
    if not found.paired.settled:
        return "No difference can be shown"
    gap = found.paired.difference.value
    better, worse = found.names if gap > 0 else found.names[::-1]
    return f"{better} is better than {worse} by {abs(100 * gap):.1f} points"


def _said(found: Comparison, about: Mapping[str, Any], *, shown: bool) -> Json:
    paired, gap = found.paired, found.paired.difference
    root = common_folder(found.a.paths)
    classes = [
        {
            "name": wording.one_line(name),
            "gap": None if one is None else f"{100 * one.value:+.1f}",
            "value": "" if one is None else one.value,
            "limits": "" if one is None else f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
            "support": int((found.a.targets == k).sum()),
        }
        for k, (name, one) in enumerate(paired.per_class.items())
    ]
    return {
        "images": wording.which_images({**about, "n": paired.n}),
        "meaning": wording.role_meaning(about["role"]),
        "gap": f"{100 * gap.value:+.1f}",
        "limits": f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}",
        "p": f"{paired.p:.3g}",
        "only": [paired.only_a, paired.only_b],
        "top1": [wording.number("top1", float((p.predicted == p.targets).mean()))
                 for p in (found.a, found.b)],
        "classes": bounded(classes, _CLASSES),
        "differing": [
            _differing(found, rows.tolist(), root, shown=shown)
            for rows in (paired.rows_only_a, paired.rows_only_b)
        ],
        "root": wording.one_line(root),
        "thumbnails": shown,
    }  # fmt: skip


def _differing(found: Comparison, rows: list[int], root: str, *, shown: bool) -> Json:
    """Images that just one run got right, those first where the two are farthest apart."""
    shares = [p.take(rows).probabilities if rows else np.empty((0, 1)) for p in (found.a, found.b)]
    called = [p.predicted for p in (found.a, found.b)]
    entries = []
    for i, row in enumerate(rows):
        sure = [float(share[i, own[row]]) for share, own in zip(shares, called, strict=True)]
        entries.append((-min(sure), row, sure))
    entries.sort()
    items = []
    for _, row, sure in entries[:_PICTURES]:
        path = found.a.paths[row]
        picture, gone = thumbnail(path) if shown else ("", "")
        items.append(
            {
                "path": wording.one_line(os.path.relpath(path, root) if root else path),
                "true": wording.one_line(found.a.classes[int(found.a.targets[row])]),
                "called": [wording.one_line(found.a.classes[int(own[row])]) for own in called],
                "sure": [f"{100 * one:.1f}%" for one in sure],
                "picture": picture,
                "gone": gone,
            }
        )
    return {"all": len(rows), "shown": items, "more": len(rows) - len(items)}


def _figures(metrics: list[Json]) -> list[Json]:
    """The figures that both have of the same split and role, beside each other."""
    rows: dict[tuple[str, str, str], Json] = {}
    for i, found in enumerate(metrics):
        for one in found.get("evaluations") or []:
            for name, figure in one["figures"].items():
                if not isinstance(figure, Mapping) or "value" not in figure:
                    continue
                key = (one["split"], one["role"], name)
                row = rows.setdefault(key, {"cells": [None, None]})
                row["cells"][i] = {
                    "text": wording.number(name, figure["value"]),
                    "limits": wording.interval(name, figure),
                    "n": f"{one['n']:,}",
                }
    return [
        {"split": split, "role": role, "label": wording.label(name), **row}
        for (split, role, name), row in rows.items()
        if all(row["cells"])
    ]


def _different(one: Json, other: Json) -> list[tuple[str, str, str]]:
    """Settings that differ: name and both values, a dash where one has none."""
    flat = [
        {(table, key): value for table, rows in tables(config) for key, value in rows}
        for config in (one, other)
    ]
    keys = dict.fromkeys([*flat[0], *flat[1]])
    return [
        (f"{table}.{key}" if table else key, flat[0].get((table, key), "–"),
         flat[1].get((table, key), "–"))
        for table, key in keys
        if (table, key) not in _OWN and flat[0].get((table, key)) != flat[1].get((table, key))
    ]  # fmt: skip
