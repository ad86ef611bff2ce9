"""``compare-NAME/report.html``: a comparison as one page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plusx.evaluate import Figure
from plusx.evaluate.contest_plots import differences, race
from plusx.jobs import wording
from plusx.jobs.report_classes import inline_svg
from plusx.jobs.run import write_text

Json = dict[str, Any]


def write_page(folder: Path, found: Json, curves: dict[str, list[list[Json]]]) -> Path:
    """Write ``report.html``; it asks for nothing outside itself.

    Args:
        folder: of the comparison.
        found: the content of ``comparison.json``.
        curves: contestant -> one curve a seed.
    """
    target = folder / "report.html"
    write_text(target, _render(gather_page(folder, found, curves)))
    return target


def gather_page(folder: Path, found: Json, curves: dict[str, list[list[Json]]]) -> Json:
    """Everything the page shows, as plain data."""
    drawn = any(row["val_top1"] is not None for several in curves.values()
                for curve in several for row in curve)  # fmt: skip
    gaps = {
        f"{gap['a']} less {gap['b']}": Figure(**gap["top1"])
        for gap in found["differences"]
        if gap["top1"] is not None
    }
    return {
        "found": found,
        "name": wording.one_line(folder.resolve().name),
        "data": wording.one_line(found["data"]),
        "race": inline_svg("race", race(curves, goal=found["goal_val_top1"])) if drawn else None,
        "gaps": inline_svg("gaps", differences(gaps)) if gaps else None,
        "rows": [_row(one, len(found["seeds"])) for one in found["contestants"]],
        "pairs": [_pair(gap) for gap in found["differences"]],
        "kinds": next((list(one["shift"]["by_kind"]) for one in found["contestants"]
                       if one["shift"]), []),
    }  # fmt: skip


def _row(one: Json, seeds: int) -> Json:
    top1 = one["top1"]
    return one | {
        "spread": _spread(top1),
        "speed": "–" if one["seconds_per_epoch"] is None
        else wording.duration(one["seconds_per_epoch"]),
        "to_goal": to_goal(one),
        "reached_of": f"{one['reached']} of {one['runs']}",
        "rate": "–" if one["lr"] is None else f"{one['lr']:g}",
        "tried": ", ".join(f"{t['lr']:g}" for t in one["rates"]),
        "size": f"{one['parameters'] / 1e6:.3g} M",
        "drop": None if not one["shift"]
        else f"{100 * (one['shift']['unharmed'] - one['shift']['value']):+.1f}",
    }  # fmt: skip


def to_goal(one: Json) -> str:
    """``3 epochs, 12 s``, ``never``, or that the head alone was enough."""
    epochs = one["epochs_to_goal"]
    if epochs is None:
        return "never"
    after = f"{epochs:g} epoch{'s' if epochs != 1 else ''}" if epochs else "its head alone"
    return f"{after}, {wording.duration(one['seconds_to_goal'])}"


def _spread(top1: Json | None) -> str:
    if top1 is None:
        return "–"
    low, high = min(top1["by_seed"]), max(top1["by_seed"])
    return f"{100 * low:.1f}% to {100 * high:.1f}%"


def _pair(gap: Json) -> Json:
    def points(value: Json | None) -> str:
        if value is None:
            return "–"
        return (f"{100 * value['value']:+.1f} ({100 * value['low']:+.1f} to "
                f"{100 * value['high']:+.1f})")  # fmt: skip

    verdict = "no network to compare"
    if gap["top1"] is not None:
        better = gap["a"] if gap["top1"]["value"] > 0 else gap["b"]
        verdict = f"{better} is better" if gap["settled"] else "no difference can be shown"
    return {"name": f"{gap['a']} less {gap['b']}", "top1": points(gap["top1"]),
            "shift": points(gap["shift"]), "verdict": verdict, "seeds": gap["seeds"]}  # fmt: skip


def _render(data: Json) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda figure: wording.number("top1", figure["value"])
    environment.filters["limits"] = lambda figure: wording.interval("top1", figure)
    environment.filters["line"] = wording.one_line
    environment.filters["drawing"] = Markup  # only our own pictures: matplotlib escapes the names
    return environment.get_template("contest.html").render(**data)
