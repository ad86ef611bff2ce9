from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from plusx.errors import UsageError
from plusx.evaluate import Predictions, class_f1, confusion_matrix, evaluate, learning_curves
from plusx.evaluate.abstain import risk_coverage
from plusx.evaluate.calibration import reliability
from plusx.evaluate.plots import reliability_diagram, risk_curve

Make = Callable[..., Predictions]

HISTORY = [
    {"epoch": i + 1, "train_loss": 0.8 / (i + 1), "val_top1": 0.9 + i / 100} for i in range(5)
]


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]


def test_confusion_matrix_says_its_counts_and_names(called: Make) -> None:
    p = called([(0, 0)] * 17 + [(0, 1)] * 3 + [(1, 1)] * 5, 2)
    found = texts(confusion_matrix(evaluate(p)))
    for text in ("c0", "c1", "true", "predicted", "17", "85%", "3", "15%", "5", "100%"):
        assert text in found, (text, found)


@pytest.mark.parametrize("k", [1, 12, 50])
def test_confusion_matrix_names_every_class_up_to_50(synthetic: Make, k: int) -> None:
    found = texts(confusion_matrix(evaluate(synthetic(300, k))))
    assert sum(text.startswith("c0") for text in found) == 2 * k


def test_confusion_matrix_of_many_classes_shows_the_most_confused(called: Make) -> None:
    pairs = [(i, i) for i in range(120)] + [(77, 99)] * 5
    found = texts(confusion_matrix(evaluate(called(pairs, 120))))
    assert "the 40 classes of 120 with the most errors" in found
    assert {"c77", "c99", "5"} <= set(found)


def test_class_f1_is_sorted_worst_first_with_its_support(called: Make) -> None:
    p = called([(0, 0)] * 9 + [(1, 1)] * 2 + [(1, 0)] * 4 + [(2, 2)] * 3, 4)
    found = texts(class_f1(evaluate(p)))
    assert [t for t in found if t.startswith("c")] == ["c1  (6)", "c0  (9)", "c2  (3)"]


def test_class_f1_of_many_classes_says_what_it_leaves_out(synthetic: Make) -> None:
    found = texts(class_f1(evaluate(synthetic(600, 60))))
    assert any("the 50 lowest of 60" in text for text in found)


def test_learning_curves_show_the_probe() -> None:
    found = texts(learning_curves(HISTORY, probe=0.925))
    assert {"training loss", "validation top-1", "probe 92.5%"} <= set(found)
    assert not any("probe" in text for text in texts(learning_curves(HISTORY)))
    assert "1" in texts(learning_curves(HISTORY[:1]))


def test_names_are_taken_as_they_are(called: Make) -> None:
    names = ("$5 & <b>", "蚂蚁" * 30)
    p = called([(0, 0)] * 5 + [(1, 1)] * 5, 2)
    e = evaluate(Predictions(p.logits, p.targets, p.paths, names))
    for svg in (confusion_matrix(e), class_f1(e)):
        assert any("$5 & <b>" in text for text in texts(svg))
        assert any("蚂蚁" in text and "…" in text for text in texts(svg))


def test_pictures_are_the_same_bytes_each_time_and_in_threads(synthetic: Make) -> None:
    e = evaluate(synthetic(100, 6))
    expected = confusion_matrix(e), class_f1(e), learning_curves(HISTORY, probe=0.9)
    found: list[tuple[str, str, str]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(
                (confusion_matrix(e), class_f1(e), learning_curves(HISTORY, probe=0.9))
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 3


def test_pictures_stand_on_light_and_dark_pages(synthetic: Make) -> None:
    e = evaluate(synthetic(100, 6))
    for svg in (confusion_matrix(e), class_f1(e), learning_curves(HISTORY)):
        assert svg.startswith("<svg")
        background = svg[svg.index('<g id="patch_1">') :]
        assert 'style="fill: none"' in background[: background.index("</g>")]
        assert "#000000" not in svg
        assert "sans-serif" in svg


def test_what_cannot_be_drawn_is_refused(synthetic: Make) -> None:
    with pytest.raises(UsageError, match="no epoch"):
        learning_curves([])
    with pytest.raises(UsageError, match="'val_top1'"):
        learning_curves([{"epoch": 1, "train_loss": 1.0}])
    none = Predictions(np.zeros((3, 2), dtype=np.float32), np.zeros((3, 2), bool), ("a", "b", "c"),
                       ("x", "y"), task="multi")  # fmt: skip
    with pytest.raises(UsageError, match="task 'multi'"):
        confusion_matrix(evaluate(none))
    with pytest.raises(UsageError, match="no class with an F1"):
        class_f1(evaluate(none))


def test_trust_is_drawn_for_light_and_dark(synthetic: Make) -> None:
    p = synthetic(300, 3)
    cooled = Predictions(p.logits * 2, p.targets, p.paths, p.classes)
    one, both = (reliability_diagram(reliability(p), before)
                 for before in (None, reliability(cooled)))  # fmt: skip
    assert "before" not in texts(one)
    assert {"before", "after", "how often it is right"} <= set(texts(both))
    sure = p.probabilities.max(axis=1).astype(float)
    curve = risk_curve(risk_coverage(sure, p.predicted == p.targets))
    assert "wrong among those answered" in texts(curve)
    for svg in (one, both, curve):
        assert "#000000" not in svg


def test_numbers_on_dark_cells_can_be_read(called: Make) -> None:
    """The contrast of white on each dark cell, by WCAG 2.2, 1.4.3."""
    pairs = [(0, 0)] * 9 + [(0, 1)] + [(1, 0)] * 5 + [(1, 1)] * 5
    svg = confusion_matrix(evaluate(called(pairs, 2)))
    fills = set(re.findall(r"fill: (#[0-9a-f]{6})", svg)) - {"#2583c6", "#ffffff", "#7b8088"}
    assert fills

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        lin = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * lin[0] + 0.7152 * lin[1] + 0.0722 * lin[2]

    dark = [one for one in fills if light(one) < 0.25]
    assert dark
    assert all(1.05 / (light(one) + 0.05) >= 4.5 for one in dark)


def test_drawing_needs_no_pyplot() -> None:
    """It keeps figures alive and looks for a display; other libraries may load it all the same."""
    code = (
        "import sys; from plusx.evaluate import learning_curves; "
        f"learning_curves({HISTORY!r}); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
