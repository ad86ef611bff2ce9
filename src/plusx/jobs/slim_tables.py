"""The tables of a slimming: the curve and the blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

from plusx.fit.removal import Score
from plusx.jobs.slim_search import Found
from plusx.jobs.slim_setup import RANKED, Plan

Row = dict[str, Any]

RULE = (
    "the largest number of blocks tried whose top-1, tuned, lies at most max_drop points below the "
    "parent's on the images that choose (the point estimate)"
)


def settings(planned: Plan, found: Found) -> dict[str, Any]:
    """Everything that was chosen or resolved."""
    own = dataclasses.asdict(planned.options)
    own.pop("overwrite")
    hardware, recipe = planned.setup.hardware, planned.setup.recipe
    return own | {
        "rule": RULE,
        "parent_sha256": planned.parent.sha256,
        "lr": recipe.lr,
        "epochs": recipe.epochs,
        "views": planned.views,
        "device": str(hardware.device),
        "precision": str(hardware.dtype).removeprefix("torch."),
        "threads": planned.setup.threads,
        "ranking_images": found.ranking.images,
        "ranking_most": RANKED,
        "choosing_images": len(planned.chooses),
        "tuning_images": len(planned.train),
        "reporting_images": len(planned.reports),
        "reporting": planned.who_reports,
        "block_ms_batch": found.ranking.batch,
    }


def tables(planned: Plan, found: Found) -> dict[str, list[Row]]:
    """``curve``: one row a number of blocks removed, from none; ``blocks``: one a block that can
    go, with what it costs alone."""
    whole = found.ranking.whole
    curve: list[Row] = [
        _curve_row(0, None, whole, 0.0)
        | {"before_top1": found.parent[0], "before_nll": -found.parent[1],
           "after_top1": found.parent[0], "after_nll": -found.parent[1]}
    ]  # fmt: skip
    for count, step in enumerate(found.ranking.steps, 1):
        row = _curve_row(count, step.block, step.score, step.far)
        if tried := found.tried.get(count):
            row |= {
                "before_top1": tried.before[0],
                "before_nll": -tried.before[1],
                "after_top1": tried.after[0],
                "after_nll": -tried.after[1],
                "change": tried.change.value,
                "change_low": tried.change.low,
                "change_high": tried.change.high,
                "tuned_blocks": tried.tuned,
                "fitted_blocks": tried.fitted,
                "fits": tried.fits,
            }
        curve.append(row)
    order = {step.block: place for place, step in enumerate(found.ranking.steps, 1)}
    blocks = [
        {
            "block": block,
            "goes": order.get(block),
            "ms": round(found.ranking.block_ms[block], 4),
            "far_alone": left.far,
            "nll_alone": left.score.nll,
            "nll_rise_alone": left.score.nll - whole.nll,
            "top1_alone": left.score.top1,
        }
        for block, left in found.ranking.alone.items()
    ]
    return {"curve": curve, "blocks": blocks}


def _curve_row(removed: int, block: int | None, score: Score, far: float) -> Row:
    empty = ("before_top1", "before_nll", "after_top1", "after_nll", "change", "change_low",
             "change_high", "tuned_blocks", "fitted_blocks", "fits")  # fmt: skip
    return {"removed": removed, "block": block, "ranking_top1": score.top1,
            "ranking_nll": score.nll, "ranking_far": far, **dict.fromkeys(empty)}  # fmt: skip
