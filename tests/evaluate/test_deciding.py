"""Decisions keep what they promise, on images that did not fit them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from plusx.decide import Decision
from plusx.errors import UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.deciding import cross_parts, fit_decision, judged, worth
from plusx.evaluate.selection import figure_then_nll
from plusx.evaluate.wish import Wish

CLASSES = ("ant", "bee", "wasp")


def predictions(
    n: int, *, seed: int = 0, sharp: float = 3.0, far: float = 0.0, groups: bool = False
) -> Predictions:
    """Logits that are ``sharp`` times too sure; features near a direction of the class, or ``far``
    from all."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3))
    chances = np.exp(logits * 2) / np.exp(logits * 2).sum(1, keepdims=True)
    targets = (chances.cumsum(1) > rng.random((n, 1))).argmax(1)
    centres = np.eye(3, 16)
    features = centres[targets] + 0.1 * rng.normal(size=(n, 16)) + far * np.eye(16)[15]
    return Predictions(
        (logits * 2 * sharp).astype(np.float32), targets.astype(np.int64),
        tuple(f"{seed}/{i}" for i in range(n)), CLASSES,
        groups=tuple(str(i // 4) for i in range(n)) if groups else None,
        features=features.astype(np.float32),
    )  # fmt: skip


BANK = predictions(300, seed=99).features


def test_the_defaults_keep_their_promises_on_average() -> None:
    held, called, before, after = [], [], [], []
    for seed in range(30):
        decision, why = fit_decision(predictions(150, seed=seed), Wish(), bank=BANK)
        assert not why
        fresh = predictions(400, seed=1000 + seed)
        found = worth([(decision, judged(fresh, decision))], before=False)
        assert found["answered"]["coverage"]["value"] == pytest.approx(
            1 - found["unknown"]["share"]["value"]
        )
        held.append(found["sets"]["coverage"]["value"])
        called.append(found["unknown"]["share"]["value"])
        before.append(-figure_then_nll(fresh)[1])
        after.append(-figure_then_nll(judged(fresh, decision))[1])
    assert 0.88 < np.mean(held) < 0.92
    assert 0.03 < np.mean(called) < 0.06
    assert (np.array(after) < np.array(before)).all()


def test_images_of_something_else_are_unknown() -> None:
    decision, _ = fit_decision(predictions(150), Wish(), bank=BANK)
    other = predictions(100, seed=5, far=3.0)
    assert decision.settle(other.probabilities, other.features).unknown.all()
    assert not decision.settle(other.probabilities, None).unknown.any()


def test_a_promised_precision_is_kept_on_other_images() -> None:
    """About one image in four is wrong, so that a sixth of the calibrations cannot promise it."""
    kept = []
    for seed in range(20):
        decision, why = fit_decision(predictions(300, seed=seed), Wish(precision=0.85), bank=None)
        if why:
            assert "ask for less" in why[0]
            continue
        fresh = judged(predictions(600, seed=500 + seed), decision)
        answered = worth([(decision, fresh)], before=False)["answered"]
        assert 0 < answered["coverage"]["value"] < 0.9
        kept.append(answered["accuracy"]["value"])
    assert len(kept) >= 14
    assert np.mean(kept) >= 0.85


def test_a_promised_sensitivity_is_kept_on_other_images() -> None:
    wish = Wish.parse("sensitivity:bee=0.9,sets=none,unknown=none")
    found = []
    for seed in range(20):
        decision, why = fit_decision(predictions(300, seed=seed), wish, bank=None)
        assert not why
        assert decision.sets is decision.unknown is None
        fresh = judged(predictions(600, seed=500 + seed), decision)
        said = worth([(decision, fresh)], before=False)["favoured"]
        assert said["class"] == "bee"
        found.append(said["sensitivity"]["value"])
    assert 0.87 < np.mean(found) < 0.93


def test_halves_judge_each_other() -> None:
    p = predictions(80, seed=1, groups=True)
    shipped, _ = fit_decision(p, Wish(), bank=BANK)
    parts = cross_parts(p, Wish(), shipped, bank=BANK, seed=0)
    (one, first), (other, second) = parts
    assert one.temperature != other.temperature
    assert one.temperature != shipped.temperature
    assert not set(first.paths) & set(second.paths)
    assert not set(first.groups or ()) & set(second.groups or ())
    raw = dict(zip(p.paths, p.logits, strict=True))
    for decision, part in parts:
        wanted = np.array([raw[path] for path in part.paths]) / decision.temperature
        np.testing.assert_allclose(part.logits, wanted, rtol=1e-5)
    said = worth(parts)
    assert said["n"] == 80
    before, after = (said["calibration"][when]["nll"]["value"] for when in ("before", "after"))
    assert after < before
    assert before == pytest.approx(-figure_then_nll(p)[1], rel=1e-4)


@pytest.mark.parametrize("n", [2, 5, 12, 19, 25])
def test_too_few_images_leave_parts_out_and_say_why(n: int) -> None:
    p = predictions(n)
    decision, why = fit_decision(p, Wish(precision=0.9), bank=BANK)
    text = " ".join(why)
    assert (decision.unknown is None) == (n < 19) == ("no image is called unknown" in text)
    assert (decision.sets is None) == (n < 9) == ("no sets of classes" in text)
    assert ("not calibrated" in text) == (n < 20)
    assert decision.sureness is not None or "every image is answered" in text
    json.dumps(worth([(decision, judged(p, decision))]), allow_nan=False)


def test_sets_may_be_promised_for_every_class() -> None:
    decision, _ = fit_decision(predictions(400), Wish.parse("sets-per-class=0.8"), bank=None)
    assert decision.sets is not None
    assert decision.sets.per_class
    assert len(set(decision.sets.thresholds)) == 3


def test_several_labels_have_thresholds_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((40, 3)) < 0.4
    logits = (targets + rng.normal(size=(40, 3)) - 3).astype(np.float32)
    p = Predictions(logits, targets, tuple(map(str, range(40))), CLASSES, task="multi")
    decision, why = fit_decision(p, Wish(), bank=BANK)
    assert decision == Decision(decision.thresholds)
    assert decision.thresholds is not None
    assert not why


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, {}),
        ("precision=0.95", {"precision": 0.95}),
        ("coverage=0.8, sets=none", {"coverage": 0.8, "sets": None}),
        ("sensitivity:a=b=0.9,unknown=0.01", {"sensitivity": ("a=b", 0.9), "unknown": 0.01}),
        ("sets-per-class=0.8", {"sets": 0.8, "per_class": True}),
    ],
)
def test_wishes(text: str | None, wanted: dict[str, Any]) -> None:
    assert Wish.parse(text) == Wish(**wanted)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a share"),
        ("precision", "must be a share"),
        ("precision=95", "'95' must be a share between 0 and 1"),
        ("precision=none", "must be a share"),
        ("recall=0.9", "is none of precision="),
        ("sensitivity=0.9", "is none of precision="),
        ("sets:bee=0.9", "is none of precision="),
        ("precision=0.9,coverage=0.9", "give one"),
        ("unknown=nan", "must be a share"),
    ],
)
def test_wishes_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Wish.parse(text)


def test_a_class_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="no class 'fly'; there are: ant, bee, wasp"):
        Wish.parse("sensitivity:fly=0.9").check(CLASSES)


def test_figures_have_no_nan_where_nothing_is_answered() -> None:
    p = predictions(30)
    silent = Decision(sureness=1.0, favoured=(0, 1.0))
    found = worth([(silent, judged(p, silent))])
    assert found["answered"]["accuracy"] is None
    assert found["favoured"]["precision"] is None
    assert not any(math.isnan(v) for v in found["answered"]["coverage"].values())
