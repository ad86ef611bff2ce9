"""The part of an audit that needs a network's features: label errors, outliers, look-alikes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data import groups_of
from plusx.data.groups import keep_together
from plusx.decide import log_softmax
from plusx.evaluate.label_errors import find_label_errors
from plusx.evaluate.outliers import FEWEST_IMAGES, find_outliers
from plusx.evaluate.shortcuts import deal
from plusx.fit.cache import TrunkCache
from plusx.fit.probe import cross_validate, fit_probe
from plusx.jobs.audit import Audit
from plusx.jobs.audit_alike import find_lookalikes
from plusx.jobs.audit_findings import Finding, Item, found
from plusx.jobs.kept_features import Frozen, kept_features, user_cache
from plusx.jobs.options import ScanOptions
from plusx.jobs.talk import Talk
from plusx.runtime import cpu_count, resolve_device, resolve_precision
from plusx.weights import create_network

Ints = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]

FEWEST = 5
"""Images of a class, copies counting once; labels of smaller classes are not judged."""

WHOLE = 2_000
"""Up to so many images, every fold's head is fitted on all others, its penalty chosen anew."""

REPEATS, REPEATED = 5, 1_000
"""Repeats of the cross-validation below that many images: on 396 photographs with 20 labels
flipped, 0.86 of the flipped stood among the first 20, against 0.84 with one repeat (5 seeds)."""

FOLDS, FITTED = 3, 5_000
"""Of larger data: folds, and images that a fold's head is fitted on, so that time stays bounded."""

MOST_WRONG = 0.25
"""Share of labels; where more seem wrong, it is the features that cannot tell."""


def extract(audit: Audit, options: ScanOptions, talk: Talk) -> tuple[Features, Ints]:
    """Features (m, d) of the images that can be read, and their positions (m,) in the listing.

    Args:
        audit: whose images.
        options: network and device.
        talk: where progress is said.

    Raises:
        PlusxError: the weights cannot be used.
    """
    chosen = options.channels is not None or options.reading.bands is not None
    made = create_network(
        options.model,
        weights=options.weights or "auto",
        classes=max(2, len(audit.listing.classes)),
        in_channels=options.as_channels if chosen else None,
        seed=options.seed,
    )
    where = resolve_device(options.device)
    net = Frozen(
        made.model,
        replace(made.preprocessing, reading=audit.seen.reading),
        device=where,
        dtype=resolve_precision("auto", where),
        threads=cpu_count(),
    )
    rows = np.flatnonzero(audit.readable)
    samples = [audit.listing.samples[i] for i in rows]
    first = kept_features(
        net,
        samples,
        audit.table.keys([sample.path for sample in samples]),
        cache=_cache(options),
        data=Path(audit.listing.root).name,
        talk=talk,
    )
    return first.features[first.readable], rows[first.readable]


def _cache(options: ScanOptions) -> TrunkCache | None:
    if options.cache is None:
        return None
    asked = os.fspath(options.cache)
    return user_cache() if asked == "auto" else user_cache(Path(asked))


def judge(audit: Audit, features: Features, rows: Ints, *, seed: int = 0) -> Audit:
    """The audit with likely label errors, outliers and look-alikes.

    Args:
        audit: of n images.
        features: (m, d) of some of them.
        rows: (m,) their positions in ``audit.listing``.
        seed: of folds and samples.
    """
    findings, notes = _outliers(features, rows, seed)
    alike, why = find_lookalikes(audit, features, rows)
    findings, notes = findings + alike, notes + why
    if audit.listing.task != "single":
        return audit.adding(findings, (*notes, "label errors are looked for where an image has one "
                                       "label"))  # fmt: skip
    wrong, why = _label_errors(audit, features, rows, seed)
    return audit.adding(findings + wrong, notes + why)


def _outliers(features: Features, rows: Ints, seed: int) -> tuple[list[Finding], tuple[str, ...]]:
    if len(features) < FEWEST_IMAGES:
        return [], (f"outliers are looked for among {FEWEST_IMAGES} images or more",)
    far = find_outliers(features, seed=seed)
    items = [
        Item((int(rows[i]),), f"{far.distance[i] / far.typical:.1f} times as far as is typical")
        for i in far.far
    ]
    return found("outliers", items), ()


def _label_errors(
    audit: Audit, features: Features, rows: Ints, seed: int
) -> tuple[list[Finding], tuple[str, ...]]:
    samples = [audit.listing.samples[i] for i in rows]
    targets = np.array([-1 if s.target is None else s.target for s in samples], np.int64)
    linked = keep_together(audit.listing, audit.exact + audit.near)
    named = groups_of([linked.samples[i] for i in rows])
    unit = np.arange(len(rows)) if named is None else np.unique(named, return_inverse=True)[1]
    judged = _judged(targets, unit)
    classes, labels = np.unique(targets[judged], return_inverse=True)
    if len(classes) < 2:
        return [], (f"label errors are looked for in classes of {FEWEST} images or more",)
    logits = _out_of_fold(features[judged], labels, unit[judged], len(classes), seed)
    errors = find_label_errors(logits, labels)
    if len(errors.likely) > MOST_WRONG * len(labels):
        top1 = float((errors.suggested == labels).mean())
        why = "label errors: the features tell these classes apart too poorly to say "
        return [], (f"{why}(top-1 {100 * top1:.0f}%)",)
    names = audit.listing.classes
    items = []
    for i in errors.likely:
        seen, share = names[classes[errors.suggested[i]]], errors.suggested_share[i]
        why = f"labelled {names[classes[labels[i]]]}, looks like {seen} ({100 * share:.0f}%)"
        items.append(Item((int(rows[judged[i]]),), why))
    return found("label_errors", items), ()


def _judged(targets: Ints, unit: Ints) -> Ints:
    """Positions of the labelled images whose class has enough units."""
    pairs = np.unique(np.stack([targets, unit]), axis=1)
    units = np.bincount(pairs[0][pairs[0] >= 0], minlength=int(targets.max(initial=0)) + 1)
    large = (targets >= 0) & (units[np.maximum(targets, 0)] >= FEWEST)
    return np.flatnonzero(large)


def _out_of_fold(
    features: Features, labels: Ints, unit: Ints, classes: int, seed: int
) -> npt.NDArray[np.floating]:
    """(m, K) log-probabilities of each image by heads that saw neither it nor its group."""
    if len(labels) <= WHOLE:
        repeats = REPEATS if len(labels) < REPEATED else 1
        judged = cross_validate(
            features, labels, classes=classes, repeats=repeats, seed=seed, groups=unit.tolist()
        )
        flat = log_softmax(judged.logits.reshape(-1, classes))
        mean: npt.NDArray[np.floating] = flat.reshape(judged.logits.shape).mean(axis=0)
        return mean
    random = np.random.default_rng(seed)
    fold = deal(labels, np.unique(unit, return_inverse=True)[1], FOLDS, random)
    logits = np.empty((len(labels), classes), np.float32)
    for held in range(FOLDS):
        others = random.permutation(np.flatnonzero(fold != held))
        # the first of every class, so that none is lost, then whatever comes
        first = others[np.unique(labels[others], return_index=True)[1]]
        chosen = np.unique(np.concatenate([first, others[:FITTED]]))
        probe = fit_probe(
            features[chosen],
            labels[chosen],
            classes=classes,
            seed=seed,
            groups=unit[chosen].tolist(),
        )
        inside = np.flatnonzero(fold == held)
        logits[inside] = probe.head.logits(features[inside])
    return logits
