from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics as sk

from plusx.errors import DataError, UsageError
from plusx.evaluate import Evaluation, Predictions, evaluate, to_json

Make = Callable[..., Predictions]


def every_figure(e: Evaluation) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = list(e.figures.items())
    for one in e.per_class:
        found += [(one.name, one.precision), (one.name, one.recall), (one.name, one.f1)]
    return [(name, figure) for name, figure in found if figure is not None]


@pytest.mark.parametrize(("n", "k", "signal"), [(300, 2, 1.0), (500, 7, 2.0), (60, 20, 0.5)])
def test_values_equal_scikit_learn(synthetic: Make, n: int, k: int, signal: float) -> None:
    p = synthetic(n, k, signal=signal)
    e = evaluate(p)
    t, y = p.targets, p.predicted
    np.testing.assert_array_equal(e.confusion, sk.confusion_matrix(t, y, labels=range(k)))
    present = np.unique(t)
    macro = sk.precision_recall_fscore_support(
        t, y, labels=present, average="macro", zero_division=0
    )
    each = sk.precision_recall_fscore_support(t, y, labels=range(k), zero_division=0)
    expected = {
        "top1": sk.accuracy_score(t, y),
        "balanced_accuracy": macro[1],
        "macro_precision": macro[0],
        "macro_recall": macro[1],
        "macro_f1": macro[2],
        "nll": sk.log_loss(t, np.exp(p.log_probabilities), labels=range(k)),
    }
    for name, value in expected.items():
        assert e.figure(name).value == pytest.approx(value, rel=1e-5), name
    for i, one in enumerate(e.per_class):
        assert one.support == each[3][i]
        for figure, value in zip((one.precision, one.recall, one.f1), each[:3], strict=True):
            assert (0 if figure is None else figure.value) == pytest.approx(value[i])
    if k > 5:
        top5 = sk.top_k_accuracy_score(t, p.logits, k=5, labels=range(k))
        assert e.figure("top5").value == pytest.approx(top5)


@pytest.mark.parametrize("signal", [-3.0, 0.0, 2.0, 50.0])
@pytest.mark.parametrize("images_per_group", [0, 4])
def test_every_interval_holds_its_value(
    synthetic: Make, signal: float, images_per_group: int
) -> None:
    e = evaluate(synthetic(80, 6, signal=signal, images_per_group=images_per_group))
    for name, figure in every_figure(e):
        assert figure.low <= figure.value <= figure.high, name  # type: ignore[attr-defined]
        if name != "nll":
            assert figure.low >= 0, name  # type: ignore[attr-defined]
            assert figure.high <= 1, name  # type: ignore[attr-defined]
            assert figure.high - figure.low > 0.01, name  # type: ignore[attr-defined]


def test_top5_is_undefined_for_five_classes(synthetic: Make) -> None:
    e = evaluate(synthetic(50, 5))
    assert e.figures["top5"] is None
    with pytest.raises(UsageError, match="more than 5 classes, and there are 5"):
        e.figure("top5")
    with pytest.raises(UsageError, match="'top7' is not one of top1"):
        e.figure("top7")


def test_equal_logits_count_as_argmax_counts_them() -> None:
    p = Predictions(np.zeros((7, 7), dtype=np.float32), np.arange(7), tuple("abcdefg"),
                    tuple("ABCDEFG"))  # fmt: skip
    e = evaluate(p)
    assert e.figure("top1").value == pytest.approx(1 / 7)
    assert e.figure("top5").value == pytest.approx(5 / 7)


def test_all_right(called: Make) -> None:
    e = evaluate(called([(0, 0)] * 10 + [(1, 1)] * 10, 2))
    for name in ("top1", "balanced_accuracy", "macro_precision", "macro_f1"):
        figure = e.figure(name)
        assert (figure.value, figure.high) == (1.0, 1.0)
        assert 0.75 < figure.low < 0.9, name


def test_all_wrong(called: Make) -> None:
    e = evaluate(called([(0, 1)] * 10 + [(1, 0)] * 10, 2))
    for name in ("top1", "balanced_accuracy", "macro_precision", "macro_f1"):
        figure = e.figure(name)
        assert (figure.value, figure.low) == (0.0, 0.0)
        assert 0.1 < figure.high < 0.25, name


def test_one_class_called_only(called: Make) -> None:
    e = evaluate(called([(0, 0)] * 12 + [(1, 0)] * 4, 2))
    bees = e.per_class[1]
    assert bees.precision is None
    assert bees.recall is not None
    assert bees.recall.value == 0
    assert bees.f1 is not None
    assert bees.f1.value == 0
    left_out = {f"per_class.at {name} {rate}" for name in ("specificity", "sensitivity")
                for rate in (0.95, 0.99)}  # fmt: skip
    assert set(e.undefined) == {"top5", "per_class.precision"} | left_out


def test_an_absent_class_is_named_and_left_out(called: Make) -> None:
    e = evaluate(called([(0, 0)] * 5 + [(1, 1)] * 4 + [(1, 2)], 4))
    assert e.absent == ("c2", "c3")
    assert e.figure("balanced_accuracy").value == pytest.approx((1 + 0.8) / 2)
    assert e.per_class[2].precision is None
    assert e.per_class[2].f1 is None
    assert e.confusion is not None
    assert e.confusion[1].tolist() == [0, 4, 1, 0]
    assert "per_class" in e.undefined


def test_a_rare_class_widens_balanced_accuracy_even_when_all_is_right(called: Make) -> None:
    even = evaluate(called([(0, 0)] * 50 + [(1, 1)] * 50, 2)).figure("balanced_accuracy")
    rare = evaluate(called([(0, 0)] * 95 + [(1, 1)] * 5, 2)).figure("balanced_accuracy")
    assert rare.low < even.low - 0.05


@pytest.mark.parametrize("pairs", [[(0, 0)], [(0, 1)], [(0, 0), (1, 0)]])
def test_one_or_two_images_give_wide_finite_figures(
    called: Make, pairs: list[tuple[int, int]]
) -> None:
    e = evaluate(called(pairs, 2))
    assert e.n == len(pairs)
    assert e.figure("top1").high - e.figure("top1").low > 0.7
    assert all(np.isfinite([f.low, f.value, f.high]).all() for _, f in every_figure(e))  # type: ignore[attr-defined]


def test_one_class_alone(called: Make) -> None:
    assert evaluate(called([(0, 0)] * 9, 1)).figure("macro_f1").value == 1.0


def test_a_thousand_classes(synthetic: Make) -> None:
    e = evaluate(synthetic(3000, 1000, signal=3.5))
    top1 = e.figure("top1")
    assert top1.high - top1.low == pytest.approx(2 * 1.96 * 0.5 / 3000**0.5, rel=0.2)
    assert e.confusion is not None
    assert e.confusion.sum() == 3000
    assert len(e.per_class) == 1000
    assert e.absent


def test_intervals_widen_where_groups_agree(called: Make) -> None:
    rng = np.random.default_rng(0)
    per_group = [(i % 2, i % 2 if rng.random() < 0.8 else 1 - i % 2) for i in range(60)]
    pairs = [pair for pair in per_group for _ in range(10)]
    alone = called(pairs, 2)
    names = tuple(f"p{i // 10}" for i in range(600))
    grouped = Predictions(alone.logits, alone.targets, alone.paths, alone.classes, groups=names)
    wide, narrow = evaluate(grouped), evaluate(alone)
    for name in ("top1", "balanced_accuracy", "macro_precision", "macro_f1", "nll"):
        a, b = wide.figure(name), narrow.figure(name)
        assert a.value == b.value
        assert a.high - a.low > 2.5 * (b.high - b.low), name
    recalls = wide.per_class[0].recall, narrow.per_class[0].recall
    assert recalls[0].high - recalls[0].low > 2 * (recalls[1].high - recalls[1].low)  # type: ignore[union-attr]


def test_the_same_seed_gives_the_same_figures(synthetic: Make) -> None:
    p = synthetic(200, 6)
    first, again, other = (to_json(evaluate(p, seed=s), split="val", role="report")
                           for s in (1, 1, 2))  # fmt: skip
    assert first == again
    assert first["figures"]["nll"] != other["figures"]["nll"]
    assert first["figures"]["macro_f1"] == other["figures"]["macro_f1"]


def test_the_order_of_images_changes_no_share(synthetic: Make) -> None:
    p = synthetic(200, 6, images_per_group=4)
    shuffled = p.take(np.random.default_rng(0).permutation(200))
    one, two = evaluate(p), evaluate(shuffled)
    for name in ("top1", "top5", "macro_f1"):
        assert one.figure(name).low == pytest.approx(two.figure(name).low, rel=1e-9)


def test_no_images_and_unlabelled_images_are_refused(synthetic: Make) -> None:
    p = synthetic(4, 3)
    with pytest.raises(DataError, match="no images"):
        evaluate(p.take([]))
    targets = p.targets.copy()
    targets[2] = -1
    with pytest.raises(DataError, match=r"2\.jpg: has no label \(1 of 4"):
        evaluate(Predictions(p.logits, targets, p.paths, p.classes))


def test_json_has_the_schema_and_no_nan(called: Make) -> None:
    e = evaluate(called([(0, 0)] * 5 + [(1, 0)] * 4, 3))
    found = json.loads(json.dumps(to_json(e, split="val", role="report"), allow_nan=False))
    assert set(found) == {"split", "role", "task", "n", "figures", "per_class", "confusion",
                          "classes", "absent", "undefined"}  # fmt: skip
    assert (found["split"], found["role"], found["n"]) == ("val", "report", 9)
    assert set(found["figures"]["top1"]) == {"value", "low", "high"}
    assert found["figures"]["top5"] is None
    assert found["confusion"] == [[5, 0, 0], [4, 0, 0], [0, 0, 0]]
    assert found["absent"] == ["c2"]
    assert found["per_class"][1]["precision"] is None
    nothing = dict.fromkeys(("precision", "recall", "f1", "auroc", "auprc"))
    assert found["per_class"][2] == {"class": "c2", "support": 0, "at": [], **nothing}
    with pytest.raises(UsageError, match="'final' is not one of report, selection, calibration"):
        to_json(e, split="val", role="final")
