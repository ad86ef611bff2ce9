"""``plusx compare DATA --with ...``: the classic experiment on the user's own images.

A pretrained residual net, the same from scratch, its plain twin, a simple CNN and whoever else is
asked: learning rates found within one budget, the same seeds, the same images.
"""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from plusx.errors import UsageError
from plusx.jobs.contest_entrants import Entrant
from plusx.jobs.contest_figures import gather_figures
from plusx.jobs.contest_options import ContestOptions
from plusx.jobs.contest_page import write_page
from plusx.jobs.contest_plan import Plan, make_plan
from plusx.jobs.contest_run import Record, run_all
from plusx.jobs.origin import versions
from plusx.jobs.run import name_of, read_json, write_json, write_text
from plusx.jobs.talk import Talk

PLAN, FOUND = "plan.json", "comparison.json"

_COLUMNS = ("contestant", "seed", "epoch", "seconds", "val_top1", "val_nll", "train_loss", "lr")


@dataclass(frozen=True)
class Contest:
    """A finished comparison.

    Attributes:
        path: the folder.
        found: what ``comparison.json`` says.
    """

    path: Path
    found: dict[str, Any]

    @property
    def finding(self) -> str:
        """One sentence."""
        return str(self.found["finding"])

    @property
    def report_path(self) -> Path:
        """The page to look at."""
        return self.path / "report.html"


def contest(data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any) -> Contest:
    """Compare networks on the user's images; the same call goes on where a killed one was.

    Args:
        data: as for ``plusx train``.
        talk: where progress is said; by default stderr.
        **options: see ``ContestOptions``.

    Raises:
        PlusxError: one clear line.
    """
    asked, talk = ContestOptions.of(data, **options), talk or Talk()
    folder = Path(asked.out) if asked.out is not None else Path(f"compare-{name_of(asked.data)}")
    _check_folder(folder)
    plan = make_plan(asked, talk)
    _begin(plan, folder)
    talk.log_to(folder / "compare.log")
    records = run_all(plan, folder, talk)
    found = gather_figures(plan, folder, records)
    for one in found["contestants"]:
        if one["edge"]:
            talk.note(
                f"{one['name']}: its best learning rate is the {one['edge']} tried; a --budget of "
                "more trials may find a better one"
            )
        if set(one["ships"]) == {"probe"}:
            talk.note(
                f"{one['name']}: no epoch was better than its linear head alone, which is what is "
                "compared; --unfreeze 2 trains the last blocks only"
            )
    if len(found["seeds"]) == 1:
        talk.note("one seed: the intervals know nothing of other seeds (--seeds 3)")
    found |= {"notes": list(talk.notes), "versions": versions(),
              "device": str(plan.hardware.device)}  # fmt: skip
    write_text(folder / "curves.csv", _curves_csv(plan, records))
    curves = {entrant.name: [one["curve"] for one in counted]
              for entrant, (_, counted) in zip(plan.entrants, records, strict=True)}  # fmt: skip
    write_page(folder, found, curves)
    write_json(folder / FOUND, found)
    return Contest(folder, found)


def _check_folder(folder: Path) -> None:
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (folder / PLAN).is_file():
        raise UsageError(f"--out {folder}: holds no comparison of plusx; give another name")


def _begin(plan: Plan, folder: Path) -> None:
    """Write the plan, or see that the folder's is the same."""
    entrants = {entrant.name: _resolved(plan, entrant) for entrant in plan.entrants}
    now: dict[str, Any] = json.loads(json.dumps(plan.settings() | {"contestants": entrants}))
    before = read_json(folder / PLAN)
    if before:
        _same(now, before, folder)
        now["contestants"] = before["contestants"] | now["contestants"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be made: {error.strerror}") from error
    write_json(folder / PLAN, now)


def _resolved(plan: Plan, entrant: Entrant) -> dict[str, Any]:
    return {"network": entrant.spec.to_dict(), "weights": entrant.origin,
            "rates": plan.rates(entrant)}  # fmt: skip


def _same(now: dict[str, Any], before: dict[str, Any], folder: Path) -> None:
    for key, value in now.items():
        if key != "contestants" and before.get(key) != value:
            known = {field.name for field in fields(ContestOptions)}
            what = f"--{key.replace('_', '-')}" if key in known else f"other {key}"
            was = f" {before.get(key)}, not {value}" if key in known else ""
            raise UsageError(
                f"{folder}: was begun with {what}{was}; give it again to go on, or another --out"
            )
    for name, entrant in now["contestants"].items():
        if before["contestants"].get(name, entrant) != entrant:
            raise UsageError(
                f"{folder}: was begun with another network or weights for {name}; give another "
                "--out"
            )


def _curves_csv(plan: Plan, records: list[tuple[list[Record], list[Record]]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entrant, (_, counted) in zip(plan.entrants, records, strict=True):
        for one in counted:
            for row in one["curve"]:
                writer.writerow([entrant.name, one["seed"], *(row[c] for c in _COLUMNS[2:])])
    return text.getvalue()
