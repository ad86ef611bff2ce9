"""``choose-NAME/``: a choice as one page to look at, as data and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plusx.evaluate.bench_plots import Picture, Point, front, save_plot
from plusx.jobs import wording
from plusx.jobs.choose_figures import Judged
from plusx.jobs.report_classes import inline_svg
from plusx.jobs.run import write_json, write_text

Json = dict[str, Any]


def write_choice(found: Json, nets: Sequence[Judged], folder: Path) -> None:
    """Write ``report.html``, ``front.svg``, ``front.png`` and, last, ``choose.json``.

    Args:
        found: the content of ``choose.json``.
        nets: from fast to slow.
        folder: made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = draw_front(nets, found["take"], found["latency_budget_ms"])
    for kind in ("svg", "png"):
        save_plot(picture, folder / f"front.{kind}")
    write_text(folder / "report.html", _render(gather_choice(found, picture)))
    write_json(folder / "choose.json", found)


def draw_front(nets: Sequence[Judged], take: str, budget_ms: float | None) -> Picture:
    """Accuracy against latency."""
    points = [Point(one.name, one.timing.p50_ms, one.top1, one.on_front, one.name == take)
              for one in nets]  # fmt: skip
    return front(points, budget_ms=budget_ms)


def gather_choice(found: Json, picture: Picture) -> Json:
    """Everything the page shows, as plain data."""
    return {
        "found": found,
        "front": inline_svg("front", picture.svg()),
        "rows": [_row(one, found["take"]) for one in found["nets"]],
        "machine": found["machine"],
        "skipped": wording.by_reason(found["skipped"]),
    }


def _row(one: Json, take: str) -> Json:
    time = one["latency"]
    gap = one["to_best"]
    behind = "the most accurate"
    if gap is not None:
        behind = (f"{100 * gap['value']:.1f} ({100 * gap['low']:.1f} to "
                  f"{100 * gap['high']:.1f})")  # fmt: skip
    return {
        "name": one["name"],
        "what": f"{one['variant']}, {one['weights']}",
        "top1": one["top1"],
        "p50": f"{time['p50_ms']:.3g}",
        "p95": f"{time['p95_ms']:.3g}",
        "behind": behind,
        "verdict": "" if gap is None else "may be noise" if one["as_good_as_best"]
        else "more than chance",
        "size": f"{one['file_mib']:.1f}",
        "params": f"{one['params'] / 1e6:.3g} M",
        "macs": f"{one['macs'] / 1e9:.3g} G",
        "front": one["on_front"],
        "take": one["name"] == take,
    }  # fmt: skip


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
    return environment.get_template("choose.html").render(**data)
