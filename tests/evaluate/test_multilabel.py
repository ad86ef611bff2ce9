from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from plusx.evaluate import Predictions, evaluate, to_json


def multi(n: int, k: int, *, signal: float = 2.0, images_per_group: int = 0) -> Predictions:
    rng = np.random.default_rng(0)
    targets = rng.random((n, k)) < 0.3
    logits = (rng.normal(size=(n, k)) + signal * (targets - 0.5)).astype(np.float32)
    groups = tuple(f"g{i // images_per_group}" for i in range(n)) if images_per_group else None
    return Predictions(logits, targets, tuple(map(str, range(n))), tuple(f"c{i}" for i in range(k)),
                       task="multi", groups=groups)  # fmt: skip


def test_values_equal_scikit_learn() -> None:
    p = multi(200, 5)
    e = evaluate(p)
    t, y = p.targets, p.probabilities > 0.5
    macro = sk.precision_recall_fscore_support(t, y, average="macro")
    each = sk.precision_recall_fscore_support(t, y)
    expected = {
        "mean_average_precision": sk.average_precision_score(t, p.logits, average="macro"),
        "macro_precision": macro[0],
        "macro_recall": macro[1],
        "macro_f1": macro[2],
        "nll": np.mean([sk.log_loss(t[:, i], p.probabilities[:, i]) for i in range(5)]),
    }
    for name, value in expected.items():
        figure = e.figure(name)
        assert figure.value == pytest.approx(value, rel=1e-5), name
        assert figure.low < figure.value < figure.high
    for i, one in enumerate(e.per_class):
        assert one.support == each[3][i]
        assert one.average_precision is not None
        assert one.average_precision.value == pytest.approx(
            sk.average_precision_score(t[:, i], p.logits[:, i])
        )
        for figure, values in zip((one.precision, one.recall, one.f1), each[:3], strict=True):
            assert figure is not None
            assert figure.value == pytest.approx(values[i])
    assert e.confusion is None
    json.dumps(to_json(e, split="val", role="report"), allow_nan=False)


def test_perfect_is_not_certain() -> None:
    e = evaluate(multi(20, 3, signal=40.0))
    for name in ("mean_average_precision", "macro_precision", "macro_recall", "macro_f1"):
        figure = e.figure(name)
        assert figure.value == figure.high == 1.0
        assert 0.6 < figure.low < 0.95, name


def test_a_class_without_positives_is_absent_and_a_class_never_called_has_no_precision() -> None:
    p = multi(30, 3)
    targets, logits = p.targets.copy(), p.logits.copy()
    targets[:, 0] = False
    logits[:, 1] = -5
    e = evaluate(Predictions(logits, targets, p.paths, p.classes, task="multi"))
    assert e.absent == ("c0",)
    assert e.per_class[1].precision is None
    assert set(e.undefined) == {"per_class", "per_class.precision"}
    kept = sk.f1_score(targets[:, 1:], logits[:, 1:] > 0, average="macro", zero_division=0)
    assert e.figure("macro_f1").value == pytest.approx(kept)


def test_no_class_at_all_leaves_figures_undefined() -> None:
    p = multi(6, 2)
    e = evaluate(Predictions(p.logits, np.zeros((6, 2), bool), p.paths, p.classes, task="multi"))
    assert e.figures["macro_f1"] is None
    assert e.figures["mean_average_precision"] is None
    assert e.figure("nll").value > 0
    json.dumps(to_json(e, split="val", role="report"), allow_nan=False)


def test_intervals_widen_where_groups_agree() -> None:
    few = multi(60, 4)
    rows = np.repeat(np.arange(60), 6)
    plain = few.take(rows)
    grouped = Predictions(plain.logits, plain.targets, plain.paths, plain.classes, task="multi",
                          groups=tuple(f"g{i}" for i in rows))  # fmt: skip
    for name in ("mean_average_precision", "macro_recall", "macro_f1", "nll"):
        wide, narrow = evaluate(grouped).figure(name), evaluate(plain).figure(name)
        assert wide.value == narrow.value
        assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low), name
