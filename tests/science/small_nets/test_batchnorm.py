"""Frozen statistics stay, classes are parted, sentences follow the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from plusx.errors import ArtifactError, UsageError
from plusx.fit.checkpoint import load_checkpoint
from plusx.model.surgery import training_mode
from plusx.science import batchnorm
from plusx.science.batchnorm import NormPlan, enough, keys, result, start_keys
from plusx.science.cifar import Part, SmallImages
from plusx.science.small_training import Course, Schedule, Watch, train

TINY = NormPlan(batches=(2, 16), seeds=(0,), images=16, epochs=1, tested=8)


@pytest.fixture
def four_classes(few_images: SmallImages) -> SmallImages:
    def part(of: Part) -> Part:
        return Part(of.images, torch.arange(len(of)) % 4)

    train_part, test = part(few_images.train), part(few_images.test)
    return SmallImages(("a", "b", "c", "d"), train_part, test, few_images.mean, few_images.std)


def test_modes_share_no_class(four_classes: SmallImages) -> None:
    start, tuned = (batchnorm.data_of(TINY, four_classes, m) for m in ("start", "fine-tune"))
    assert start.classes == ("a", "c")
    assert tuned.classes == ("b", "d")
    assert set(tuned.train.targets.tolist()) == {0, 1}
    expected = four_classes.train.images[four_classes.train.targets == 3]
    assert torch.equal(tuned.train.images[tuned.train.targets == 1], expected)


def test_frozen_statistics_stay_and_the_rest_learns(few_images: SmallImages) -> None:
    from functools import partial

    net = batchnorm.ResNet(batchnorm.spec_of("frozen", 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    prepare = partial(training_mode, norm_statistics=False)
    train(net, few_images, Course(Schedule(4, 8, 0.05), Watch(2, 8), 0, prepare=prepare))
    for name, value in net.state_dict().items():
        still = torch.equal(value, before[name])
        assert still == ("running" in name or "num_batches" in name), name
    assert isinstance(batchnorm.ResNet(batchnorm.spec_of("group", 2)).stem.norm, nn.GroupNorm)


def test_fine_tuning_starts_from_the_kept_net(four_classes: SmallImages, tmp_path: Path) -> None:
    key = {"mode": "fine-tune", "norm": "frozen", "batch": 16, "seed": 0}
    with pytest.raises(ArtifactError, match="is missing"):
        batchnorm.train_one(TINY, four_classes, key, tick=lambda n: None, folder=tmp_path)
    for start in start_keys(TINY):
        top = batchnorm.train_start(TINY, four_classes, start, tick=lambda n: None, folder=tmp_path)
        assert 0 <= top <= 1
    state = load_checkpoint(tmp_path / "batch-seed0.pt")
    assert state is not None
    assert float(state["stem.norm.num_batches_tracked"]) > 0
    ticked: list[int] = []
    found = batchnorm.train_one(TINY, four_classes, key, tick=ticked.append, folder=tmp_path)
    assert ticked == [16]
    assert 0 <= found["top1"] <= 1
    again = batchnorm.train_one(TINY, four_classes, key, tick=lambda n: None, folder=tmp_path)
    assert again["curve"] == found["curve"]


def values(plan: NormPlan, top: Any) -> list[dict[str, Any]]:
    return [
        {"top1": top(k["norm"], k["batch"]) + 0.001 * k["seed"], "train_error": 0.5,
         "wobble": 0.01, "diverged": False, "curve": [], "cpu_seconds": 1.0}
        for k in keys(plan)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("least", "judged"),
    [(16, "as the advice says"), (4, "more than needed"), (32, "less than needed")],
)
def test_the_advice_is_judged_by_the_numbers(least: int, judged: str) -> None:
    plan = NormPlan(batches=(1, 4, 8, 16, 32), seeds=(0, 1), modes=("scratch",))

    def top(norm: str, batch: int) -> float:
        return 0.5 if norm != "batch" or batch >= least else 0.3

    found = result(plan, [], values(plan, top))
    assert enough(plan, found.tables["summary"], "scratch", "batch") == least
    assert f"from {least} images a step on" in found.finding
    assert judged in found.finding
    assert "trainable BatchNorm 50.0% at 32 and -20.0 points" in found.finding
    assert "GroupNorm 50.0% at 32 and +0.0 points" in found.finding.replace("-0.0", "+0.0")


def test_plans_that_make_no_step_are_refused() -> None:
    with pytest.raises(UsageError, match="make no step of 32"):
        NormPlan(images=20)
    with pytest.raises(UsageError, match="batches from 1 on"):
        NormPlan(batches=(0, 2))


def test_the_command_studies_two_classes_from_scratch(
    command: Any, photos: Path, tmp_path: Path
) -> None:
    said = command("study", "batchnorm", "--data", photos, "--batches", "8,16", "--seeds", "0",
                   "--images", "16", "--epochs", "1", "--threads", 1,
                   "--out", tmp_path / "o")  # fmt: skip
    assert said.code == 0, said.err
    assert "no fine-tuning: it needs four classes" in said.out
    assert "was not put to the test" in said.out
    assert (tmp_path / "o" / "batchnorm.png").exists()
