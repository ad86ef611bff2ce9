"""The audit inside ``plusx train``: before the split, and once more when features are there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from plusx.data import Listing, Preprocessing
from plusx.jobs.audit import Audit, Seen, examine, read_facts
from plusx.jobs.audit_features import judge
from plusx.jobs.audit_page import write_page
from plusx.jobs.leaks import stop_at_leaks
from plusx.jobs.material import Material
from plusx.jobs.options import TrainOptions
from plusx.jobs.run import write_json
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count

SAID_ELSEWHERE = ("unreadable", "truncated")
"""Kinds of findings whose images are named one by one as they are left out."""


def auditor(options: TrainOptions, talk: Talk) -> Callable[[Listing, Preprocessing], Audit]:
    """What audits a listing, read as the network will read it, before it is split.

    It raises DataError where identical images lie in two given splits and that is not allowed.
    """

    def audit(listing: Listing, preprocessing: Preprocessing) -> Audit:
        processes = options.threads or cpu_count()
        seen = Seen(preprocessing.channels, preprocessing.reading)
        table = read_facts(listing, seen, cache="auto", processes=processes, talk=talk)
        with talk.phase("audit"):
            found = examine(listing, table, seen, seed=options.seed)
        if not options.allow_leaks:
            stop_at_leaks(found)
        return found

    return audit


def finish_audit(setup: Setup, material: Material, folder: Path, talk: Talk) -> None:
    """Add what features tell, write ``audit.json`` and ``audit.html``, and say what matters.

    The features are those of the first pass: no image is looked at again.
    """
    audit = setup.audit
    if audit is None:
        return
    if material.first is None:
        why = "label errors and outliers need a pretrained network's features"
        audit = audit.adding([], (why,))
    else:
        with talk.phase("label errors"):
            seen = material.first.readable
            rows = np.flatnonzero(audit.readable)[seen]
            audit = judge(audit, material.first.features[seen], rows, seed=setup.recipe.seed)
    for finding in (*audit.of("error"), *audit.of("warning")):
        if finding.kind not in SAID_ELSEWHERE:
            talk.note(finding.text)
    write_json(folder / "audit.json", audit.to_json())
    write_page(audit, folder / "audit.html", thumbnails=setup.options.thumbnails)
    talk.say(f"audit: {audit.verdict}; see {folder / 'audit.html'}")
