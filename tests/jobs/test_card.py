from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from plusx.jobs.card import model_card

FIGURE = {"value": 0.941, "low": 0.892, "high": 0.969}
METRICS: dict[str, Any] = {
    "plusx_version": "0.1.0",
    "headline": {"figure": "top1", **FIGURE, "n": 153, "split": "val", "role": "report",
                 "method": "two halves, swapped"},
    "counts": {"train": {"ants": 123, "bees": 120}, "val": {"ants": 70, "bees": 1083}},
    "chosen": {"name": "epoch 7", "text": "95.4% against the probe's 94.1%"},
    "evaluations": [
        {"split": "val", "role": "report", "method": "two halves, swapped", "n": 153,
         "figures": {"top1": FIGURE, "top5": None, "nll": {"value": 0.2, "low": 0.1, "high": 0.3}},
         "per_class": [{"class": "ants", "support": 7}, {"class": "bees", "support": 146}]},
        {"split": "train+val", "role": "report", "method": "10 x 5-fold", "n": 396,
         "figures": {"top1": FIGURE}},
    ],
}  # fmt: skip


def card(**changes: Any) -> str:
    given: dict[str, Any] = {
        "name": "runs/hymenoptera",
        "architecture": "resnet18",
        "classes": ["ants", "bees"],
        "metrics": METRICS,
        "provenance": {"weights": "timm/resnet18.a1_in1k", "trained_blocks": 2,
                       "ships": "epoch 7", "seed": 3,
                       "data": "/home/someone/private/hymenoptera/"},
    }  # fmt: skip
    return model_card(**(given | changes))


def test_front_matter_is_what_the_hub_reads() -> None:
    data = ModelCard(card()).data
    assert data.library_name == "plusx"
    assert data.pipeline_tag == "image-classification"
    assert data.license == "unknown"
    assert "timm" in data.tags
    assert data.eval_results is not None
    result = data.eval_results[0]
    assert result.dataset_name == "hymenoptera"
    assert result.metric_type == "accuracy"
    assert result.metric_value == 0.941
    assert ModelCard(card(license="apache-2.0")).data.license == "apache-2.0"


def test_says_results_with_interval_images_and_role() -> None:
    text = card()
    assert "**Right on 94.1% of 153 unseen images** (95% interval 89.2% to 96.9%)" in text
    assert "| Top-1 | 94.1% | 89.2% to 96.9% | 153 of val | report | two halves, swapped |" in text
    assert "| Top-1 | 94.1% | 89.2% to 96.9% | 396 of train+val | report | 10 x 5-fold |" in text
    assert "| Negative log likelihood | 0.200 | 0.100 to 0.300 |" in text
    assert "Top-5" not in text
    assert "fewer than 20 images: ants (7)." in text


def test_says_data_by_folder_name_and_counts() -> None:
    text = card()
    assert "`hymenoptera`" in text
    assert "/home" not in text
    assert "| class | train | val |" in text
    assert "| bees | 120 | 1,083 |" in text
    assert "| **all** | **243** | **1,153** |" in text


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"trained_blocks": 2, "ships": "epoch 7"}, "the last 2 residual blocks and the head."),
        ({"trained_blocks": "all", "ships": "epoch 7"}, "the whole network."),
        ({"trained_blocks": 2, "ships": "probe"}, "the head alone, on the features"),
        ({"ships": "imported"}, "nothing, the weights were imported as they are."),
        ({"weights": "timm/x.a1_in1k"}, r"The weights it started from: timm/x.a1\_in1k."),
        ({"weights": "/home/me/a.pth"}, "The weights it started from: a.pth."),
        ({"weights": "C:\\me\\a.pth"}, "The weights it started from: a.pth."),
        ({"seed": 3}, "| seed | 3 |"),
        ({}, "What ships: 95.4% against the probe's 94.1%."),
    ],
)
def test_says_what_was_trained_from_what(provenance: dict[str, Any], said: str) -> None:
    assert said in card(provenance=provenance)


def test_timm_is_named_only_where_timm_has_the_network() -> None:
    assert "timm.create_model" in card()
    for other in ("plusx_resnet50_v1", None):
        assert "timm" not in card(architecture=other, provenance={})


def test_hostile_names_stay_in_their_cell_and_their_scalar() -> None:
    names = [
        "a|b`c`",
        "=1+1\n## not a heading",
        "<script>",
        "[x](http://e.x)",
        "\udcff\x00z",
        "- x",
        "1. x",
    ]
    text = card(
        classes=names,
        metrics=METRICS | {"counts": {"tr|ain": dict.fromkeys(names, 1)}},
        provenance={"data": "photos\n---\nlicense: mit", "x|y": "a|b\n# c"},
        name='runs/"x": y\n---\n',
        license='mit"\ntags: [x]',
    )
    body = text.split("---\n", 2)[2]
    assert r"| a\|b\`c\` | 1 |" in body
    assert r"| \=1+1 \#\# not a heading | 1 |" in body
    assert r"| \<script\> | 1 |" in body
    assert r"| \[x\](http://e.x) | 1 |" in body
    assert "| z | 1 |" in body
    assert r"| \- x | 1 |" in body
    assert r"| 1\. x | 1 |" in body
    assert body.count("\n---") == 0
    assert [line for line in body.splitlines() if line.startswith("#")][1:] == [
        "## Data", "## Training", "## Results", "## Intended use and limits",
        "## How to use it", "## Versions",
    ]  # fmt: skip
    data = ModelCard(text).data
    assert data.license == 'mit" tags: [x]'
    assert data.tags is not None
    assert "x" not in data.tags
    text.encode("utf-8")


def test_a_thousand_classes_are_counted_not_all_listed() -> None:
    names = [f"c{i}" for i in range(1000)]
    text = card(classes=names, metrics={"counts": {"train": dict.fromkeys(names, 5)}})
    assert "| and 900 more |  |" in text
    assert "| **all** | **5,000** |" in text
    assert len(text) < 10_000


def test_without_figures_it_says_so() -> None:
    text = model_card(classes=["a", "b"], provenance={})
    assert "Nothing has been measured yet." in text
    assert "run `plusx evaluate` on images of your own" in text
    assert "Nothing is recorded about the training." in text
    assert ModelCard(text).data.eval_results is None


def test_says_what_it_makes_of_other_images_and_whether_it_is_calibrated() -> None:
    error = {name: {"ece": {"value": v, "low": 0, "high": 1}}
             for name, v in (("before", 0.084), ("after", 0.013))}  # fmt: skip
    decision = {
        "ships": {"temperature": 1.4, "unknown": {"false_reject": 0.05, "bank": [243, 2048]}},
        "split": "test", "role": "report", "n": 153, "calibration": error,
        "unknown": {"promised": 0.05, "share": {"value": 0.039, "low": 0.018, "high": 0.083}},
    }  # fmt: skip
    text = card(metrics=METRICS | {"decision": decision})
    assert "It always answers" not in text
    assert "so are about 5% of images of its own classes (measured: 3.9%, 1.8% to 8.3%)" in text
    assert "the features (2,048 numbers each) of 243 training images: no picture" in text
    assert "off by 1.3% on average (8.4% before), measured on 153 images of test" in text
    ships = {"ships": {"temperature": 1.4}}
    assert "and not measured on other images" in card(metrics=METRICS | {"decision": ships})
    for nothing in ({"ships": {}}, None):
        text = card(metrics=METRICS | {"decision": nothing})
        assert "It always answers with one of its 2 classes" in text
        assert "has not been calibrated" in text
