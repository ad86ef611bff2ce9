"""What was published, against the networks as they are built and torchvision's own data."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest
import torch
import torchvision

from plusx.jobs.models import known_names
from plusx.jobs.variants_table import BEGIN, END, variants_table
from plusx.model import VARIANTS
from plusx.model.counted import COUNTED
from plusx.model.describe import count
from plusx.model.published import PUBLISHED, amount
from plusx.weights import create

NAMES = known_names()
REMEDY = "run tools/count_variants.py"


@functools.cache
def counted(name: str) -> tuple[int, int]:
    with torch.device("meta"):
        return count(create(name, weights="none"))


def statistics(name: str) -> int:
    """Running means and variances."""
    with torch.device("meta"):
        net = create(name, weights="none")
    return sum(buffer.numel() for key, buffer in net.named_buffers() if "running_" in key)


def test_every_variant_has_an_entry():
    missing = [name for name in VARIANTS if name not in PUBLISHED]
    assert not missing, "add them to src/plusx/model/published.py"
    assert set(VARIANTS) <= set(NAMES)
    assert "resnet56_cifar_a" in NAMES  # built by the pattern of its name


@pytest.mark.parametrize("name", NAMES)
def test_published_figures_are_those_of_the_network(name):
    published = PUBLISHED[name]
    params, macs = counted(name)
    if published.params is not None:
        said, unit = amount(published.params)
        params += statistics(name) if published.with_statistics else 0
        assert abs(params - said) < unit, f"{name}: {params:,} parameters, not {published.params}"
    if published.macs is not None:
        said, unit = amount(published.macs)
        low = said * 0.98 if published.macs_with_norms else said - unit
        assert low < macs < said + unit, f"{name}: {macs:,} multiply-adds, not {published.macs}"


@pytest.mark.parametrize("name", NAMES)
def test_counted_figures_are_those_of_the_network(name):
    assert COUNTED.get(name) == counted(name), REMEDY


def test_nothing_is_counted_that_is_not_there():
    assert set(COUNTED) <= set(NAMES), REMEDY


VISION = [name for name in PUBLISHED if "docs.pytorch.org/vision" in PUBLISHED[name].source]


@pytest.mark.parametrize("name", VISION)
def test_figures_of_torchvision_are_those_it_states(name):
    published = PUBLISHED[name]
    stated = list(torchvision.models.get_model_weights(name))
    meta = next(one for one in stated if "IMAGENET1K" in one.name).meta
    assert amount(published.params or "")[0] == meta["num_params"]
    assert amount(published.macs or "")[0] == pytest.approx(meta["_ops"] * 1e9)
    if "torchvision" in published.top1_of:
        assert published.top1_of == "ImageNet-1k, torchvision V1, 224"
        accuracy = meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert published.top1 == pytest.approx(accuracy / 100, abs=1e-9)


def test_entries_are_whole():
    for name, published in PUBLISHED.items():
        assert published.differs, name
        assert "\n" not in published.differs
        own = name in ("plusx_small", "cnn")
        if not own:
            assert re.search(r" 20\d\d, .+, arXiv \d{4}\.\d{4,5}$", published.paper), name
            assert published.source.startswith("https://"), name
            assert published.year is not None
            # an arXiv number begins with the year in which it was given
            assert published.paper.rpartition(" ")[2][:2] == str(published.year)[2:], name
        assert published.top1 is None or 0.5 < published.top1 < 1, name
        assert bool(published.top1_of) == (published.top1 is not None), name


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("25,557,032", 25557032, 1),
        ("4.09 G", 4.09e9, 1e7),
        ("30M", 30e6, 1e6),
        ("1.7 k", 1700, 100),
    ],
)
def test_amounts(text, value, unit):
    assert amount(text) == (pytest.approx(value), pytest.approx(unit))


@pytest.mark.parametrize("text", ["", "many", "5X", "G"])
def test_what_is_no_amount(text):
    with pytest.raises(ValueError, match=r"could not convert|float"):
        amount(text)


def test_the_page_is_the_table():
    page = (Path(__file__).parents[2] / "docs" / "variants.md").read_text(encoding="utf-8")
    said = page.partition(BEGIN)[2].partition(END)[0]
    assert said.strip() == variants_table().strip(), REMEDY
