"""The run that slimming hands back: artifact, decision, figures, card, report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from plusx.evaluate import Predictions
from plusx.evaluate.deciding import half_part, worth
from plusx.evaluate.intervals import Figure
from plusx.evaluate.paired import Paired, compare
from plusx.evaluate.removal_plot import removal_curve
from plusx.evaluate.wish import Wish
from plusx.fit.rows import sample
from plusx.jobs.assess import entry, metrics
from plusx.jobs.beginning import Fitted
from plusx.jobs.card import model_card
from plusx.jobs.decision import BANK, Features, decide, score, stated, wants_features
from plusx.jobs.origin import versions
from plusx.jobs.report import write_report
from plusx.jobs.run import name_of, write_config, write_json
from plusx.jobs.slim_search import Found
from plusx.jobs.slim_setup import Plan
from plusx.jobs.study import keep
from plusx.jobs.talk import Talk
from plusx.science.result import Result
from plusx.weights import architecture, save_artifact, title, write_card


@dataclass(frozen=True, eq=False)
class Judged:
    """On the images that report, from their files through both artifacts.

    Attributes:
        paired: child against parent.
        top1: of parent and child.
        split: which images.
        fitted: as training leaves it, for the figures.
        evaluations: as ``metrics.json`` has them.
    """

    paired: Paired
    top1: tuple[float, float]
    split: str
    fitted: Fitted
    evaluations: list[dict[str, Any]]

    @property
    def n(self) -> int:
        """Images."""
        return self.paired.n

    @property
    def change(self) -> Figure:
        """Top-1 of the child less that of the parent, with its paired 95% interval."""
        return self.paired.difference

    def to_json(self) -> dict[str, Any]:
        """Plain."""
        return {
            "split": self.split,
            "role": "report",
            "n": self.n,
            "top1_parent": self.top1[0],
            "top1_child": self.top1[1],
            "change": self.change.to_json(),
            "only_child_right": self.paired.only_a,
            "only_parent_right": self.paired.only_b,
            "mcnemar_p": self.paired.p,
        }


def build_run(plan: Plan, found: Found, folder: Path, talk: Talk) -> Judged:
    """Write artifact and decision into ``folder`` and judge both networks."""
    assert found.child is not None
    setup, listing = plan.setup, plan.setup.listing
    model = folder / "model"
    save_artifact(
        model,
        found.child,
        classes=listing.classes,
        preprocessing=setup.preprocessing,
        task="single",
        provenance=_provenance(plan, found),
        card="",
    )
    positions = {s: plan.material.positions(listing, s) for s in ("train", "val", "test")}
    fitted = Fitted(found.child, found.child, None, None, [], positions, setup.recipe)
    features = wants_features(setup)
    bank = _bank(plan, model, talk) if features else None
    samples = plan.samples(positions["val"])
    raw = score(setup, model, samples, "scoring val", talk, features=features)
    wish, seed = Wish.parse(setup.options.decide), setup.recipe.seed
    shipped, fitted.decision = decide(model, raw, wish, bank=bank, seed=seed, talk=talk)
    reporting = plan.samples(plan.reports)
    parent = score(setup, plan.parent.path, reporting, "scoring the parent", talk)
    if plan.tested:
        mine = score(setup, model, reporting, "scoring test", talk, features=features)
        parts, split, method = [(fitted.decision, mine)], "test", "images that took no part"
    else:
        report_paths = {one.path for one in reporting}
        fits = np.array([path not in report_paths for path in raw.paths])
        parts = [half_part(raw, fits, wish, fitted.decision, bank=bank)]
        split = "val"
        method = ("the half of validation that chose neither blocks nor tuning; the parent's epoch "
                  "was chosen on all of validation")  # fmt: skip
    child = parts[0][1]
    about = {"split": split, "role": "report", "method": method, **worth(parts)}
    fitted.worth = stated(about, fitted.decision)
    name = "report" if split == "val" else ""
    evaluations = [
        entry(child, folder, (split, "report"), method, name),
        entry(shipped, folder, ("val", "selection"),
              f"the {len(shipped)} validation images, that fitted the decision and of which "
              f"{len(plan.chooses)} chose the blocks"),
    ]  # fmt: skip
    paired, top1 = _compare(child, parent)
    return Judged(paired, top1, split, fitted, evaluations)


def finish_run(
    plan: Plan,
    found: Found,
    judged_: Judged,
    folder: Path,
    *,
    plain: dict[str, Any],
    talk: Talk,
) -> None:
    """All other files of the run, in its own place."""
    assert found.best is not None
    talk.log_to(folder / "slim.log")
    setup, fitted = plan.setup, judged_.fitted
    text = (f"{name_of(plan.options.run)} without blocks "
            f"{', '.join(map(str, found.best.gone))}, its last {found.best.tuned} blocks tuned; "
            f"{plain['finding']}")  # fmt: skip
    shown = metrics(setup, fitted, judged_.evaluations, plan.material, talk)
    shown |= {"chosen": {"name": "slimmed", "text": text}}
    write_json(folder / "metrics.json", shown)
    write_config(folder / "config.toml", _tables(plan, found))
    keep(
        Result("slim", plain["finding"], plain["settings"],
               {"curve": plain["curve"], "blocks": plain["blocks"]}, notes=list(talk.notes)),
        {"curve": removal_curve(plain["curve"],
                                allowed=found.parent[0] - plan.options.max_drop / 100)},
        folder,
    )  # fmt: skip
    write_json(folder / "slim.json", plain | {"run": folder.name})
    assert found.child is not None
    card = model_card(
        classes=setup.listing.classes,
        task="single",
        provenance=_provenance(plan, found),
        name=folder.name,
        architecture=architecture(found.child.spec),
        kind=title(found.child.spec),
        metrics=shown,
    )
    write_card(folder / "model", card)
    write_report(folder)


def _provenance(plan: Plan, found: Found) -> dict[str, Any]:
    assert found.best is not None
    return {
        **plan.parent.provenance,
        "ships": "slimmed",
        "parent": name_of(plan.options.run),
        "parent_sha256": plan.parent.sha256,
        "dropped_blocks": list(found.best.gone),
        "tuned_blocks": found.best.tuned,
        "data": Path(plan.setup.listing.root).name,
    }


def _tables(plan: Plan, found: Found) -> dict[str, dict[str, object]]:
    """``trained`` are the options of the parent's training: under ``asked`` they would say that
    this run can be resumed."""
    assert found.child is not None
    tables = plan.setup.tables()
    tables.pop("asked")
    network = tables["network"] | found.child.spec.to_dict()
    asked = dataclasses.asdict(plan.options)
    return {"slim": asked, "trained": plan.trained} | tables | {
        "network": network, "versions": versions()}  # fmt: skip


def _bank(plan: Plan, model: Path, talk: Talk) -> Features | None:
    """Features of training images, as the shipped network sees them."""
    rows = plan.material.positions(plan.setup.listing, "train")
    random = np.random.default_rng(plan.setup.recipe.seed)
    chosen = plan.samples(rows[sample(plan.targets(rows), BANK, random)])
    label = "features of training images"
    found = score(plan.setup, model, chosen, label, talk, features=True)
    return None if found.features is None else found.features.astype(np.float32)


def _compare(child: Predictions, parent: Predictions) -> tuple[Paired, tuple[float, float]]:
    """On the images that both could read."""
    place = {path: row for row, path in enumerate(parent.paths)}
    rows = [row for row, path in enumerate(child.paths) if path in place]
    mine = replace(child.take(rows), features=None)
    other = replace(parent.take([place[mine.paths[i]] for i in range(len(rows))]), features=None)
    right = [float((one.predicted == one.targets).mean()) for one in (other, mine)]
    return compare(mine, other), (right[0], right[1])
