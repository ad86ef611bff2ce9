"""``plusx compare DATA --with ...``: real trainings of tiny networks."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx.data import read_listing
from plusx.errors import DataError, PlusxError, UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.paired import gain_over_seeds, share_over_seeds
from plusx.jobs.contest import Contest, contest
from plusx.jobs.contest_entrants import names_of
from plusx.jobs.contest_figures import finding, time_to
from plusx.jobs.contest_plan import give_roles
from plusx.jobs.contest_run import Course, best_rate, rose
from plusx.jobs.contest_shift import KINDS, right_under_shift
from plusx.jobs.talk import Talk
from plusx.weights import load_artifact

QUICK: dict[str, Any] = {"budget": "1x2", "epochs": 2, "seeds": 2, "batch_size": 16,
                         "shift_images": 6, "device": "cpu", "precision": "float32",
                         "threads": 2}  # fmt: skip

DEEP = {"name": "deep", "block": "basic", "depths": [200, 200], "widths": [4, 4], "stem": "3x3",
        "stem_width": 4, "stem_stride": 2, "stem_pool": "max", "image_size": 32}  # fmt: skip
"""Each block adds to the signal, and before the first step BatchNorm evens nothing out: the
activations overflow."""


def quiet() -> Talk:
    return Talk(quiet=True)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "deep.json"
    path.write_text(json.dumps(DEEP))
    return path


@pytest.fixture(scope="module")
def options(tiny_weights: Path, deep: Path) -> dict[str, Any]:
    return QUICK | {"weights": tiny_weights, "contestants": f"plain,pretrained,scratch,{deep}"}


@pytest.fixture(scope="module")
def made(
    photos: Path, options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Contest:
    out = tmp_path_factory.mktemp("contest") / "compare-photos"
    return contest(photos, out=out, talk=quiet(), **options)


def by_name(made: Contest) -> dict[str, Any]:
    return {one["name"]: one for one in made.found["contestants"]}


def test_images_that_report_chose_nothing(made: Contest, photos: Path) -> None:
    assert made.found["images"] == {"learn": 52, "choose": 12, "report": 32, "shift": 6}
    scored = Predictions.load(made.path / "runs" / "scratch" / "seed-1.npz")
    assert {Path(path).parts[-3] for path in scored.paths} == {"val"}
    listing = give_roles(read_listing(photos), seed=0, talk=quiet())
    assert {Path(s.path).parts[-3] for s in listing.part("val")} == {"train"}


def test_every_contestant_has_the_same_budget_and_seeds(made: Contest) -> None:
    found = by_name(made)
    assert next(iter(found)) == "pretrained"
    for one in found.values():
        assert len(one["rates"]) == 2
        assert one["runs"] == 2
    assert found["scratch"]["parameters"] > found["plain"]["parameters"]
    assert found["scratch"]["rates"][0]["lr"] == found["plain"]["rates"][0]["lr"]
    with (made.path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 2 * 3  # of contestants, seeds, and epochs 0 to 2
    for name in ("pretrained", "scratch", "plain"):
        for seed in ("0", "1"):
            mine = [r for r in rows if (r["contestant"], r["seed"]) == (name, seed)]
            seconds = [float(r["seconds"]) for r in mine]
            assert seconds == sorted(seconds)
            assert (seconds[0] > 0) == (name == "pretrained")  # its features cost time


def test_a_training_that_diverges_is_counted_and_ends_nothing(made: Contest, deep: Path) -> None:
    lost = by_name(made)[str(deep)]
    assert (lost["diverged"], lost["runs"], lost["trials_diverged"]) == (2, 2, 2)
    assert lost["top1"] is lost["shift"] is lost["lr"] is None
    gaps = {(gap["a"], gap["b"]): gap for gap in made.found["differences"]}
    assert gaps["pretrained", str(deep)]["top1"] is None
    assert gaps["pretrained", "scratch"]["seeds"] == 2
    assert ("scratch", "plain") in gaps


def test_figures_are_those_of_the_answers(made: Contest) -> None:
    one = by_name(made)["pretrained"]
    folder = made.path / "runs" / "pretrained"
    tops = []
    for seed in (0, 1):
        scored = Predictions.load(folder / f"seed-{seed}.npz")
        tops.append(float((scored.predicted == scored.targets).mean()))
    assert one["top1"]["by_seed"] == pytest.approx(tops)
    assert one["top1"]["low"] <= one["top1"]["value"] <= one["top1"]["high"]
    assert set(one["shift"]["by_kind"]) == set(KINDS)
    mean = sum(one["shift"]["by_kind"].values()) / len(KINDS)
    assert one["shift"]["value"] == pytest.approx(mean)
    assert json.loads((made.path / "comparison.json").read_text())["finding"] == made.finding


def test_the_page_is_one_file_that_asks_for_nothing(made: Contest) -> None:
    page = made.report_path.read_text()
    assert re.search(r"<h1>(.+)</h1>", page)[1] == made.finding  # type: ignore[index]
    assert not re.search(r"<script|<link rel=\"stylesheet|src=\"http|@import|url\(http", page)
    for name in ("pretrained", "scratch", "plain"):
        assert f'<th scope="row">{name}<' in page
    assert "2 of 2" in page  # the trainings of deep
    assert len(page) < 500_000


def test_what_is_finished_is_not_done_again(
    made: Contest, photos: Path, options: dict[str, Any]
) -> None:
    runs = made.path / "runs"
    lost = runs / "scratch" / "seed-1.json"
    before = json.loads(lost.read_text())
    answers = Predictions.load(lost.with_suffix(".npz")).logits
    lost.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    again = contest(photos, out=made.path, talk=quiet(), **options)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    after = json.loads(lost.read_text())
    for row in (*before["curve"], *after["curve"]):
        row.pop("seconds")
    assert after == before
    np.testing.assert_array_equal(Predictions.load(lost.with_suffix(".npz")).logits, answers)
    assert again.found["differences"] == made.found["differences"]
    assert not list(runs.rglob("*.part"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"budget": "2x2", "epochs": 2}, r"was begun with --budget 1x2, not 2x2"),
        ({"seed": 5}, r"was begun with other images"),
    ],
)
def test_another_experiment_does_not_go_on_in_its_folder(
    made: Contest,
    photos: Path,
    options: dict[str, Any],
    changed: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(UsageError, match=said):
        contest(photos, out=made.path, talk=quiet(), **options | changed)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"contestants": "pretrained,skratch"}, "skratch: is no contestant; did you mean scratch"),
        ({"contestants": "scratch"}, "needs at least two"),
        ({"contestants": "scratch,cnn,scratch"}, "names scratch twice"),
        ({"contestants": "pretrained=x,cnn"}, "takes no =WEIGHTS"),
        ({"contestants": "plain,cnn", "model": "vgg11"}, "--with plain: vgg11 is no residual net"),
        ({"contestants": "pretrained,vgg11", "image_size": 16}, "--with vgg11: image_size=16"),
        ({"weights": "none"}, "pretrained needs weights"),
        ({"budget": "5"}, "--budget '5' must be EPOCHSxTRIALS"),
        ({"seeds": 0}, "--seeds 0 must be a whole number of at least 1"),
        ({"unfreeze": 0}, "--unfreeze 0 must be all, or at least 1"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    photos: Path,
    tmp_path: Path,
    tiny_weights: Path,
    changed: dict[str, Any],
    said: str,
) -> None:
    usual = QUICK | {"weights": tiny_weights, "out": tmp_path / "out"}
    if changed.get("model"):
        usual["weights"] = "auto"
    with pytest.raises(PlusxError, match=re.escape(said)) as error:
        contest(photos, talk=quiet(), **usual | changed)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_compared_on(
    tmp_path: Path, make_stripes: Callable[..., Path], tiny_weights: Path
) -> None:
    usual = QUICK | {"weights": tiny_weights, "out": tmp_path / "out"}
    one = make_stripes(tmp_path / "one", {"across": 6})
    few = make_stripes(tmp_path / "few", {"across": 6, "upright": 2})
    tiny = make_stripes(tmp_path / "tiny", {"across": 4, "upright": 4})
    several = tmp_path / "several.csv"
    several.write_text("path,label\none/across/000.png,a;b\none/across/001.png,a\n")
    for data, said in ((one, "one class"), (few, "'upright' has 2 images; one each must learn"),
                       (tiny, "2 images to report on are too few"),
                       (several, "several labels an image")):  # fmt: skip
        with pytest.raises(PlusxError, match=said):
            contest(data, talk=quiet(), **usual)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no comparison of plusx"):
        contest(tiny, talk=quiet(), **usual | {"out": taken})
    with pytest.raises(DataError, match="does not exist"):
        contest(tmp_path / "absent", talk=quiet(), **usual)


def test_harm_is_the_same_for_every_network(
    photos: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    import torch

    artifact = load_artifact(tiny_weights)
    samples = read_listing(photos).part("val")[:5]
    cpu = torch.device("cpu")
    once = right_under_shift(artifact, samples, device=cpu, threads=1)
    assert once == right_under_shift(artifact, samples, device=cpu, threads=2)
    assert {len(marks) for marks in once.values()} == {5}


def test_interval_over_seeds_holds_the_truth() -> None:
    """Simulated: images differ in difficulty, trainings in luck."""
    rng, held, truth = np.random.default_rng(0), 0, 0.1
    for _ in range(300):
        luck = rng.normal(0, 0.03, (2, 3, 1))
        ease = rng.uniform(0.4, 0.8, (1, 120))
        share = np.stack([ease + truth + luck[0], ease + luck[1]])
        right = rng.random(share.shape) < share
        found = gain_over_seeds(right[0].astype(float) - right[1])
        held += found.low <= truth <= found.high
    assert held / 300 >= 0.93


def test_interval_over_seeds_knows_groups_and_how_many_there_are() -> None:
    rng = np.random.default_rng(1)
    gains = np.repeat(rng.choice([-1.0, 0.0, 1.0], (3, 20)), 6, axis=1)
    alone, twice = gain_over_seeds(gains), gain_over_seeds(gains, comparisons=5)
    grouped = gain_over_seeds(gains, groups=np.repeat(np.arange(20), 6))
    assert twice.low < alone.low < alone.high < twice.high
    assert grouped.high - grouped.low > alone.high - alone.low
    same = gain_over_seeds(np.zeros((3, 30)))
    assert same.low < 0 < same.high  # all alike on 30 images is no proof for others
    sure = share_over_seeds(np.ones((3, 30)))
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low < 0.95


def test_small_rules() -> None:
    curve = [{"epoch": e, "seconds": 2.0 * e, "val_top1": t, "train_loss": x}
             for e, t, x in ((0, 0.5, None), (1, 0.7, 0.7), (2, 0.9, 1.2))]  # fmt: skip
    assert time_to(curve, 0.8) == (2, 4.0)
    assert time_to(curve, 0.95) is None
    assert rose(curve, 2)  # 1.2 is more than half above ln 2
    assert not rose(curve, 3)
    assert not rose(curve[:2], 2)
    tried = [{"lr": 0.1, "score": None}, {"lr": 0.01, "score": [0.8, -0.5]},
             {"lr": 0.001, "score": [0.8, -0.5]}]  # fmt: skip
    assert best_rate(tried) == 0.001
    assert best_rate(tried[:1]) is None
    assert names_of("cnn, timm:vit_tiny_patch16_224=auto,pretrained")[0] == "pretrained"


def entry(name: str, top1: float | None) -> dict[str, Any]:
    return {"name": name, "top1": None if top1 is None else {"value": top1}}


def gap(b: str, value: float, half: float) -> dict[str, Any]:
    limits = {"value": value, "low": value - half, "high": value + half}
    return {"a": "pretrained", "b": b, "seeds": 3, "top1": limits, "settled": half < abs(value)}


def test_the_finding_says_no_more_than_was_shown() -> None:
    first = entry("pretrained", 0.9)
    rivals = [entry("scratch", 0.7), entry("cnn", 0.8)]
    clear = finding([first, *rivals], [gap("scratch", 0.2, 0.1), gap("cnn", 0.1, 0.05)], 100)
    assert clear == (
        "pretrained is better than cnn, the best of the others, by 10.0 points (95% interval +5.0 "
        "to +15.0 points, 100 images, 3 seeds each)."
    )
    open_ = finding([first, *rivals], [gap("scratch", 0.2, 0.1), gap("cnn", 0.1, 0.2)], 100)
    assert open_.startswith("No difference can be shown between pretrained and cnn")
    assert open_.endswith("though pretrained is better than scratch.")
    worse = finding([first, rivals[1]], [gap("cnn", -0.1, 0.05)], 100)
    assert worse.startswith("cnn is better than pretrained by 10.0 points")
    assert "Nothing can be said" in finding([entry("pretrained", None), *rivals], [], 100)
    lost = {"a": "pretrained", "b": "cnn", "seeds": 0, "top1": None, "settled": False}
    assert "Nothing can be said" in finding([first, entry("cnn", None)], [lost], 100)


def test_command(
    photos: Path, tiny_weights: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    usual = ["compare", photos, "--with", "pretrained,cnn", "--weights", tiny_weights, "--epochs",
             1, "--budget", "1x1", "--seeds", 1, "--shift-images", 0, "--threads", 2,
             "--out", tmp_path / "out"]  # fmt: skip
    dry = command(*usual, "--dry-run")
    assert dry.code == 0
    assert "4 trainings, those that count of 1 epochs; nothing was trained" in dry.out
    assert not (tmp_path / "out").exists()
    said = command(*usual)
    assert said.code == 0, said.err
    assert "(3 of 4 trainings done, about" in said.err
    assert "one seed: the intervals know nothing of other seeds" in said.err
    assert "1 seed each)." in said.out
    plain = json.loads(command(*usual, "--json").out)
    assert plain["contestants"][0]["shift"] is None
    assert plain["finding"] == said.out.splitlines()[0]


def test_the_two_ways_to_compare_are_kept_apart(command: Callable[..., Any]) -> None:
    assert "give RUN_A RUN_B DATA" in command("compare", "a", "b").error
    refused = command("compare", "a", "b", "c", "--epochs", 3, "--dry-run").error
    assert "--epochs, --dry-run: for DATA --with ... only" in refused
    assert "one DATA; got 2" in command("compare", "a", "b", "--with", "cnn,plain").error
    split = command("compare", "a", "--with", "cnn,plain", "--split", "val").error
    assert "--split is for two runs" in split


def test_time_left_counts_what_is_still_to_do() -> None:
    course = Course(total=6, done=3, left={"a": 10, "b": 4})
    assert course.line() == "3 of 6 trainings done"
    course.finished("a", 5, 10.0)  # 2 s an epoch, for b as well as long as it is unknown
    assert course.line() == "4 of 6 trainings done, about 18 s left"
    course.finished("b", 2, 20.0)
    assert course.line() == "5 of 6 trainings done, about 30 s left"
