"""``plusx slim``: whole blocks out of a residual network, and what is left tuned."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plusx._version import __version__
from plusx.evaluate import SCHEMA_VERSION
from plusx.fit.line import Line
from plusx.fit.removal import removable, score_without
from plusx.jobs.run import PathLike, Run, check_free, name_of, run_folder
from plusx.jobs.slim_options import SlimOptions
from plusx.jobs.slim_run import Judged, build_run, finish_run
from plusx.jobs.slim_search import Found, Search, batches, said
from plusx.jobs.slim_setup import Plan, plan
from plusx.jobs.slim_speed import BATCHES, Speed, measure
from plusx.jobs.slim_tables import settings, tables
from plusx.jobs.talk import Talk
from plusx.runtime import seed_everything


@dataclass(frozen=True, eq=False)
class Slimmed:
    """What slimming gave.

    Attributes:
        run: the smaller run; None where nothing could go, or nothing was gained.
        finding: one sentence.
        found: all of it, plain, as ``--json`` prints it.
    """

    run: Run | None
    finding: str
    found: dict[str, Any]


def slim(
    run: PathLike, data: PathLike | None = None, *, talk: Talk | None = None, **options: Any
) -> Slimmed:
    """Take whole blocks out of a trained residual network and tune what is left.

    The blocks are ranked greedily by what the answers lose, a millisecond that is saved, when they
    go; what is left is tuned on the run's training images, distilling from the parent. The rule:
    of the numbers of blocks that were tried, the largest whose top-1 on the images that choose
    lies at most ``max_drop`` points below the parent's (the point estimate) is shipped, if it is
    faster beyond the spread of the timing. Source: Veit et al. 2016, arXiv 1605.06431.

    Args:
        run: a run or model folder; stays as it is.
        data: labelled images; by default those that the run was trained on.
        talk: where progress is said.
        **options: see ``SlimOptions``.

    Raises:
        PlusxError: one clear line; nothing is left half-written.
    """
    asked = SlimOptions.of(run, data=data, **options)
    talk = talk or Talk()
    check_free(asked.out, overwrite=asked.overwrite)
    seed_everything(asked.seed)
    planned = plan(asked, talk)
    line = Line(planned.parent.model, planned.setup.hardware)
    above = Path(asked.out).absolute().parent if asked.out else Path("runs")
    made = not above.exists()
    above.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".plusx-slim-", dir=above) as work:
            return _slim(planned, line, Path(work), talk)
    finally:
        if made and not any(above.iterdir()):
            above.rmdir()


def _slim(planned: Plan, line: Line, work: Path, talk: Talk) -> Slimmed:
    search = Search(planned, line, work, talk)
    found = search.run()
    speeds = _speeds(planned, line, found, talk)
    random = _random_choices(search, found)
    fast = any(one.shown for one in speeds)
    if found.best is None or not fast:
        finding = _nothing(planned, found, speeds)
        return Slimmed(
            None, finding, _plain(planned, found, speeds, finding=finding, random=random)
        )
    built = work / "run"
    built.mkdir()
    judged = build_run(planned, found, built, talk)
    finding = _finding(planned, found, speeds, judged)
    plain = _plain(planned, found, speeds, finding=finding, random=random, judged=judged)
    asked = planned.options
    name = f"{name_of(asked.run)}-slim"
    with run_folder(asked.out, name, overwrite=asked.overwrite, resume=False) as folder:
        for part in sorted(built.iterdir()):
            part.replace(folder / part.name)
        finish_run(planned, found, judged, folder, plain=plain, talk=talk)
    return Slimmed(Run(folder), finding, plain | {"run": os.fspath(folder)})


def _speeds(planned: Plan, line: Line, found: Found, talk: Talk) -> list[Speed]:
    if found.child is None:
        return []
    p = planned.setup.preprocessing
    with talk.phase("timing both", sum(turns + 2 for turns in BATCHES.values())) as tick:
        child = Line(found.child, planned.setup.hardware)
        return measure(line, child, (p.channels, p.size, p.size), tick=lambda n: tick(n, ""))


def _random_choices(search: Search, found: Found) -> dict[str, Any] | None:
    """As many blocks, chosen by chance, on the images that report: just removed, and with what
    stays fitted to it; neither tuned."""
    planned, line, talk = search.plan, search.line, search.talk
    wanted = planned.options.compare_random
    if not wanted:
        return None
    count = len(found.best.gone) if found.best else max(found.tried)
    random = np.random.default_rng(planned.options.seed)
    sets = [found.ranking.gone(count), *(_drawn(line, planned, count, random)
                                         for _ in range(wanted))]  # fmt: skip
    shown = list(batches(planned, planned.reports, talk))
    rows = []
    for gone in sets:
        bare = score_without(line, shown, gone)
        fitted = score_without(search.left_without(gone), shown, ())
        rows.append({"blocks": gone, "top1": fitted.top1, "nll": fitted.nll,
                     "top1_bare": bare.top1, "nll_bare": bare.nll})  # fmt: skip
    return {"removed": count, "role": "report", "images": len(planned.reports),
            "tuned": False, "ranked": rows[0], "random": rows[1:]}  # fmt: skip


def _drawn(line: Line, planned: Plan, count: int, random: np.random.Generator) -> list[int]:
    """``count`` blocks that can go together."""
    gone: set[int] = set()
    for number in random.permutation(removable(planned.parent.model)).tolist():
        stage = line.stage_of[number]
        left = sum(s == stage and n not in gone for n, s in enumerate(line.stage_of))
        if left > 1 and len(gone) < count:
            gone.add(number)
    return sorted(gone)


def _nothing(planned: Plan, found: Found, speeds: list[Speed]) -> str:
    allowed = planned.options.max_drop
    if found.best is not None:
        one = max(speeds, key=lambda speed: speed.low)
        return (
            f"Nothing is shipped: without {said(len(found.best.gone))} no gain in speed can be "
            f"shown ({one.ratio:.2f} times at {one.batch} images, 95% interval {one.low:.2f} to "
            f"{one.high:.2f}, {one.turns} turns)."
        )
    count, tried = min(found.tried.items())
    change, n = tried.change, len(planned.chooses)
    return (
        f"Nothing is shipped: without {said(count)} the tuned network lost "
        f"{-100 * change.value:.1f} points of top-1 on the {n} images that choose (95% interval of "
        f"the change {100 * change.low:+.1f} to {100 * change.high:+.1f}), more than the "
        f"{allowed:g} allowed (--max-drop)."
    )


def _finding(planned: Plan, found: Found, speeds: list[Speed], judged: Judged) -> str:
    assert found.best is not None
    change, allowed = judged.change, planned.options.max_drop
    times = " and ".join(
        f"{one.ratio:.2f} times as fast at {one.batch} image{'' if one.batch == 1 else 's'} "
        f"(95% interval {one.low:.2f} to {one.high:.2f})" if one.shown else
        f"no gain shown at {one.batch} image{'' if one.batch == 1 else 's'}"
        for one in speeds
    )  # fmt: skip
    text = (
        f"Without {said(len(found.best.gone))} of {len(removable(planned.parent.model))} that can "
        f"go, it is {times}; top-1 changes by {100 * change.value:+.1f} points (95% interval "
        f"{100 * change.low:+.1f} to {100 * change.high:+.1f}) on {judged.n} images that report: "
        f"{planned.who_reports}."
    )
    if -100 * change.high > allowed:
        return text + f" That is more than the {allowed:g} points that were allowed."
    if -100 * change.low > allowed:
        text += (
            f" {judged.n} images are too few to rule out a loss of more than {allowed:g} points."
        )
    return text


def _plain(
    planned: Plan,
    found: Found,
    speeds: list[Speed],
    *,
    finding: str,
    random: dict[str, Any] | None,
    judged: Judged | None = None,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "plusx_version": __version__,
        "run": None,
        "shipped": judged is not None,
        "finding": finding,
        "settings": settings(planned, found),
        "removed": None if found.best is None else list(found.best.gone),
        "speed": [one.to_json() for one in speeds],
        "report": None if judged is None else judged.to_json(),
        "random": random,
        **tables(planned, found),
    }
