"""Recipes from end to end: what is asked for, what is done, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import plusx
from plusx.errors import Diverged, MissingExtra, UsageError
from plusx.fit.recipe import Recipe
from plusx.jobs.find_lr import find_lr
from plusx.jobs.options import TrainOptions
from plusx.jobs.recipe_options import RecipeOptions
from plusx.jobs.recipes import parse_setting, read_recipe, recipe_names
from plusx.jobs.resolving import resolve_recipe
from plusx.jobs.run import read_config
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact

TINY = {"model": "resnet8_cifar_a", "image_size": 16, "batch_size": 16, "threads": 1, "epochs": 1,
        "neighbours": False}  # fmt: skip


def quiet() -> Talk:
    return Talk(quiet=True)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_asked_for_and_says_where_it_comes_from(name: str) -> None:
    one = read_recipe(name)
    assert all((one.title, one.source, one.expected))
    assert f"--recipe {name}" in one.command
    options = TrainOptions.of("photos", recipe=name)
    for key, value in one.train.items():
        given = getattr(options, key)
        assert given == value or list(given) == value
    unfreeze = None if options.from_scratch or options.unfreeze == "all" else 2
    made = resolve_recipe(options, 50_000, unfreeze, quiet())
    assert isinstance(made, Recipe)
    if name == "cifar":  # 64k iterations of 128 out of 50,000 images
        assert (made.epochs, made.optimizer, made.nesterov) == (164, "sgd", False)
        assert [made.lr_at(k * 390, 164 * 390) for k in (0, 81, 83, 122, 124)] == pytest.approx(
            [0.1, 0.1, 0.01, 0.01, 0.001]
        )
    if name == "a3":
        assert (made.train_size, made.loss, made.optimizer) == (160, "bce", "lamb")


def test_the_command_line_stands_above_the_file_above_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "a3"\nlr = 0.5\n[train]\nmagnitude = 4.0\nweight-decay = 0.3\n')
    options = TrainOptions.of("photos", config=file, magnitude=2.0)
    assert (options.magnitude, options.lr, options.weight_decay) == (2.0, 0.5, 0.3)
    assert (options.optimizer, options.epochs) == ("lamb", 100)
    assert TrainOptions.of("photos", recipe="a1", config=file).epochs == 600
    assert TrainOptions.of("photos", recipe="cifar", epochs=3).iterations is None
    assert TrainOptions.of("photos", recipe="a3", iterations=3).epochs is None
    resumed = TrainOptions.as_resolved({"data": "x", "recipe": "a3", "lr": 0.1})
    assert resumed.optimizer == "adamw"  # a resumed run has all its values itself


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr = ", "is no TOML file"),
        ('data = "x"', "data cannot be set in a file"),
        ("[augmentation]\nx = 1", "augmentation cannot be set"),
        ("speed = 9", "unknown option speed"),
        ('lr = "high"', "--lr 'high' must be a number"),
        ("batch_size = 0", "--batch-size 0 must be at least 1"),
        ("nesterov = 1", "--nesterov 1 must be true or false"),
        ('max_time = "soon"', "--max-time 'soon' must be such as"),
        ('milestones = "half"', "--milestones 'half' must be fractions"),
        ("epochs = 3\niterations = 5", "both say how long"),
        ('recipe = "a9"', "--recipe 'a9' is not one of a1, a2"),
        ("crop = 0.0", "--crop 0.0 must be in 0..1"),
    ],
)
def test_a_file_that_cannot_be_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as error:
        TrainOptions.of("photos", config=file)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="cannot be read"):
        TrainOptions.of("photos", config=tmp_path / "none.toml")


def test_settings_are_read_as_in_a_file() -> None:
    assert parse_setting("nesterov=false") == ("nesterov", False)
    assert parse_setting("milestones=[0.3, 0.6]") == ("milestones", [0.3, 0.6])
    assert parse_setting("decay-norms = true") == ("decay_norms", True)
    assert parse_setting("warmup=5 epochs") == ("warmup", "5 epochs")
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_setting("nesterov")


def test_every_default_of_a_recipe_option_is_legal_and_documented() -> None:
    RecipeOptions().check_recipe()
    pages = Path(__file__).parents[2] / "docs"
    told = (pages / "recipes.md").read_text() + (pages / "train.md").read_text()
    for field in fields(RecipeOptions):
        flag = f"`--{field.name.replace('_', '-')}"
        assert f"`{field.name}`" in told or flag in told, field.name


@pytest.fixture(scope="module")
def strong(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> plusx.Run:
    """A run by A1 with an average of weights, in parts."""
    out = tmp_path_factory.mktemp("runs") / "a1"
    return plusx.train(photos, out=out, recipe="a1", ema=0.5, accumulate=2, **TINY, talk=quiet())


def test_a_recipe_is_written_down_and_its_batch_is_drawn(strong: plusx.Run) -> None:
    tables = read_config(strong.path / "config.toml")
    assert tables["asked"]["recipe"] == "a1"
    wanted = {"optimizer": "lamb", "loss": "bce", "ema": 0.5, "accumulate": 2, "repeats": 3,
              "drop_path": 0.05, "mixup": 0.2, "cutmix": 1.0, "epochs": 1}  # fmt: skip
    assert wanted.items() <= tables["recipe"].items()
    assert tables["augmentation"]["policy"]["name"] == "randaugment"
    image = np.asarray(Image.open(strong.path / "batch.png").convert("RGB"))
    assert min(image.shape[:2]) > 200
    assert image.std() > 10


def test_a_resumed_recipe_ends_with_the_same_weights(
    strong: plusx.Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plusx.fit import kept

    class Once:
        steps = 0

    def interrupt(self: Any) -> None:  # within the epoch, after the checkpoint of its first step
        Once.steps += 1
        if Once.steps == 2:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(kept.Kept, "check", lambda self, inputs=(): interrupt(self))
        with pytest.raises(KeyboardInterrupt):
            plusx.train(photos, out=out, recipe="a1", ema=0.5, accumulate=2, **TINY,
                        checkpoint_minutes=0.0, talk=quiet())  # fmt: skip
    plusx.resume(out, talk=quiet())
    one, other = (load_artifact(run).model.state_dict() for run in (strong.path, out))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_recipe_for_another_task_is_refused(tmp_path: Path, photos: Path) -> None:
    names = sorted(path for path in photos.rglob("*.png"))[:24]
    lines = [f"{path},{'a;b' if i % 3 else 'a' if i % 2 else 'b'}" for i, path in enumerate(names)]
    table = tmp_path / "list.csv"
    table.write_text("path,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(UsageError, match=r"--recipe cifar is for one class an image"):
        plusx.train(table, out=tmp_path / "run", recipe="cifar", talk=quiet())
    assert not (tmp_path / "run").exists()


def test_what_needs_images_is_refused_behind_a_frozen_trunk(
    photos: Path, tiny_weights: Path
) -> None:
    for asked in ({"cutmix": 1.0}, {"teacher": "runs/large"}):
        with pytest.raises(UsageError, match="give --unfreeze all"):
            plusx.train(photos, weights=tiny_weights, unfreeze=1, **asked, talk=quiet())


def test_strong_views_behind_a_frozen_trunk_are_streamed_and_that_is_said(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    talk = quiet()
    run = plusx.train(photos, **(quick | {"weights": tiny_weights, "unfreeze": 1, "epochs": 1,
                      "policy": "trivialaugment", "out": tmp_path / "run"}), talk=talk)  # fmt: skip
    assert any("--policy shows every image anew" in note for note in talk.notes)
    assert read_config(run.path / "config.toml")["cache"]["views"] == 0
    assert (run.path / "batch.png").is_file()


def test_the_learning_rate_finder_draws_and_trains_nothing(photos: Path, tmp_path: Path) -> None:
    options = TrainOptions.of(photos, out=tmp_path / "run", weights="none", **TINY)
    found = find_lr(options, quiet())
    assert 1e-6 < found.suggested < 10
    assert found.steps > 20
    left = sorted(p.name for p in (tmp_path / "run").glob("[!.]*"))
    assert left == ["find-lr.json", "find-lr.svg"]
    kept = json.loads((tmp_path / "run" / "find-lr.json").read_text())
    assert kept["suggested"] == found.suggested
    with pytest.raises(UsageError, match="--find-lr"):
        find_lr(TrainOptions.of(photos, out=tmp_path / "x", weights=str(tmp_path), unfreeze=0),
                quiet())  # fmt: skip


def test_going_on_with_a_new_class_keeps_the_old_ones_by_name(
    strong: plusx.Run, make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    data, classes = tmp_path / "more", load_artifact(strong.path).classes
    for part, seed in (("train", 1), ("val", 2)):
        make_stripes(data / part, {"0new": 12, **dict.fromkeys(classes, 12)}, seed=seed)
    talk = quiet()
    run = plusx.train(data, out=tmp_path / "run", init=strong.path, unfreeze="all", lr=1e-9,
                      threads=1, epochs=1, batch_size=16, neighbours=False, talk=talk)  # fmt: skip
    assert any("2 classes kept by name; new: '0new'" in note for note in talk.notes)
    before, after = load_artifact(strong.path), load_artifact(run.path)
    rows = [after.classes.index(name) for name in before.classes]
    assert rows == [1, 2]
    for name in ("weight", "bias"):
        old, new = getattr(before.model.head.fc, name), getattr(after.model.head.fc, name)
        torch.testing.assert_close(new[rows], old, rtol=0, atol=1e-5)
    assert run.metrics["chosen"]["name"] in ("start", "epoch 1")


def test_a_pupil_learns_from_a_teacher_until_its_time_is_up(
    strong: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    talk = quiet()
    run = plusx.train(photos, out=tmp_path / "run", weights="none", teacher=strong.path, mixup=0.2,
                      max_time="0.001s", balanced=True, talk=talk,
                      **(TINY | {"epochs": 5}))  # fmt: skip
    assert any("--max-time 0.001s: stopped in epoch 1 of at most 5" in n for n in talk.notes)
    assert len((run.path / "history.csv").read_text().splitlines()) == 3
    assert run.model_path.is_dir()


def test_a_tracker_that_is_not_installed_names_its_extra() -> None:
    import importlib.util

    for name in ("wandb", "mlflow"):
        if importlib.util.find_spec(name) is None:
            with pytest.raises(MissingExtra, match=rf"plusx\[{name}\]"):
                TrainOptions.of("photos", track=name)
    with pytest.raises(UsageError, match="--track 'tensorboard' is not one of wandb, mlflow"):
        TrainOptions.of("photos", track="tensorboard")


def test_diverging_under_a_recipe_says_so(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="learning rate"):
        plusx.train(photos, out=tmp_path / "run", recipe="cifar", lr=1e9, **TINY, talk=quiet())
