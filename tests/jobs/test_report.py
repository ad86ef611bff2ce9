from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plusx.errors import ArtifactError
from plusx.evaluate import Predictions, evaluate, to_json
from plusx.jobs.report import write_report
from plusx.jobs.wording import FIGURES

MakeRun = Callable[..., Path]
COLUMNS = ["epoch", "train_loss", "val_top1", "val_nll", "lr", "seconds", "images_per_s"]
HOSTILE = '<script>alert("x")</script>&amp;'


def predictions_of(
    paths: Sequence[Path], targets: Sequence[int], classes: Sequence[str], *, signal: float = 2.0
) -> Predictions:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(len(paths), len(classes))).astype(np.float32)
    logits[np.arange(len(paths)), targets] += signal
    names = tuple(str(path) for path in paths)
    return Predictions(logits, np.array(targets, dtype=np.int64), names, tuple(classes))


def write_run(run: Path, predictions: Predictions, *, epochs: int = 0) -> Path:
    """A run folder as ``plusx train`` leaves it, but for the network."""
    (run / "predictions").mkdir(parents=True)
    (run / "model").mkdir()
    predictions.save(run / "predictions" / "val.npz")
    found = to_json(evaluate(predictions), split="val, cross-fitted", role="report")
    found |= {"method": "two halves, swapped", "predictions": "predictions/val.npz"}
    top1 = found["figures"]["top1"]
    repeated = {"split": "train + val", "role": "report", "method": "10 x 5-fold probe",
                "n": 2 * len(predictions), "figures": {"top1": top1}}  # fmt: skip
    metrics = {
        "schema_version": 1,
        "plusx_version": "0.1.0",
        "classes": list(predictions.classes),
        "headline": {"figure": "top1", **top1, "n": len(predictions), "split": "val, cross-fitted",
                     "role": "report", "method": "two halves, swapped"},
        "evaluations": [found, repeated],
        "chosen": {"name": "epoch 2", "text": "Two more images right than the probe."},
        "bad_images": [{"path": "photos/broken.jpg", "reason": "is truncated"}],
        "notes": ["BatchNorm stays in evaluation mode: 8 images a step are too few."],
        "seconds": {"scan": 0.4, "features": 11.2, "probe": 1.3, "fine-tune": 92.0},
    }  # fmt: skip
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with (run / "history.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for epoch in range(epochs + 1):
            loss = 0.6 / epoch if epoch else ""
            table.writerow([epoch, loss, 0.8 + 0.02 * epoch, 0.3, 2e-4, 12.5, 20.0])
    settings = '[data]\nroot = "photos"\nfolds = 0\n\n[train]\nlr = 0.0002\nbatch_size = 8\n'
    (run / "config.toml").write_text(settings, encoding="utf-8")
    model = {"architecture": "resnet18", "plusx": {"format_version": 1, "task": "single"}}
    (run / "model" / "config.json").write_text(json.dumps(model), encoding="utf-8")
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run over n small images of the classes given, with real files."""

    def make(classes: Sequence[str] = ("ants", "bees"), *, n: int = 20, epochs: int = 0) -> Path:
        rng = np.random.default_rng(1)
        folder = tmp_path / "photos"
        folder.mkdir()
        paths = [folder / f"{i:04d}.jpg" for i in range(n)]
        for path in paths:
            noise = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((160, 120)).save(path)
        targets = [i % len(classes) for i in range(n)]
        predictions = predictions_of(paths, targets, classes, signal=1.0)
        return write_run(tmp_path / "a run", predictions, epochs=epochs)

    return make


VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """What a reader of the page meets; fails on tags that do not close."""

    text: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def rewrite(run: Path, **changes: object) -> None:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def test_page_says_verdict_interval_images_and_role(make_run: MakeRun) -> None:
    run = make_run()
    headline = json.loads((run / "metrics.json").read_text())["headline"]
    page = page_of(run)
    right = round(20 * headline["value"])
    assert f"Right on {right} of 20 unseen images" in page.said
    assert (
        f"95% interval {100 * headline['low']:.1f}% to {100 * headline['high']:.1f}%" in page.said
    )
    assert "20 images of val, cross-fitted (role report): each judged by a model" in page.said
    assert "40 images of train + val (role report)" in page.said
    assert "Always answering “ants” would be right on 50%." in page.said
    assert "epoch 2" in page.said
    assert "Two more images right than the probe." in page.said


def test_page_shows_settings_bad_images_notes_and_commands(make_run: MakeRun) -> None:
    run = make_run()
    page = page_of(run)
    for words in (
        "batch_size", "0.0002", "photos/broken.jpg", "is truncated", "8 images a step",
        "resnet18", f"plusx predict '{run}' photo.jpg", f"plusx evaluate '{run}' photos/",
        "plusx 0.1.0",
    ):  # fmt: skip
        assert words in page.said


def test_undefined_figure_is_a_dash_with_its_reason(make_run: MakeRun) -> None:
    page = page_of(make_run())
    assert "– it needs more than 5 classes, and there are 2" in page.said


def test_thumbnails_are_small_upright_jpegs_of_mistakes_and_hits(
    tmp_path: Path, make_run: MakeRun
) -> None:
    run = make_run()
    tall = Image.new("RGB", (900, 150), "red")  # on its side: upright 150 x 900, then cut to 1:2
    exif = tall.getexif()
    exif[0x0112] = 6
    for path in (tmp_path / "photos").iterdir():
        tall.save(path, exif=exif)
    pictures = page_of(run).named("img")
    assert 6 < len(pictures) <= 18
    for picture in pictures:
        head, _, body = picture["src"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(body))) as image:
            assert image.size == (128, 256)
        assert ": labelled " in picture["alt"]


def test_mistakes_are_ordered_by_how_sure_they_are(tmp_path: Path) -> None:
    logits = np.array([[2, 0], [4, 0], [0, 3], [1, 0], [0, 9]], dtype=np.float32)
    paths = tuple(str(tmp_path / f"{name}.jpg") for name in "abcde")
    predictions = Predictions(logits, np.array([1, 1, 0, 0, 1]), paths, ("x", "y"))
    page = page_of(write_run(tmp_path / "run", predictions))
    files = re.findall(r"\b([a-e])\.jpg", page.said)
    assert files == ["b", "c", "a", "d", "e"]
    assert page.said.count("No picture: the file does not exist") == 5


def test_nothing_is_asked_from_the_network(make_run: MakeRun) -> None:
    page = page_of(make_run(["a", "b", "c"], n=30, epochs=3))
    for tag, attrs in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form")
        for key, value in attrs.items():
            assert not key.startswith("on")
            if key in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
                assert value.startswith(("#", "data:")), (tag, key, value)
    assert not re.search(r"@import|url\((?!#)", page.text)
    policy = next(one for one in page.named("meta") if "http-equiv" in one)
    assert policy["content"].startswith("default-src 'none'")
    [(script, digest)] = zip(
        re.findall("<script>(.*?)</script>", page.text, re.DOTALL),
        re.findall(r"script-src 'sha256-([^']+)'", policy["content"]),
        strict=True,
    )
    assert base64.b64decode(digest) == hashlib.sha256(script.encode()).digest()
    assert not re.search(r"fetch|XMLHttp|import|innerHTML|http", script)


def test_names_from_files_are_escaped_everywhere(tmp_path: Path, make_run: MakeRun) -> None:
    run = make_run([HOSTILE, "bees", "wasps"], n=30)
    rewrite(
        run,
        bad_images=[{"path": HOSTILE, "reason": HOSTILE}],
        notes=[HOSTILE],
        chosen={"name": HOSTILE, "text": HOSTILE},
    )
    (run / "config.toml").write_text(f"[x]\ny = '{HOSTILE}'\n", encoding="utf-8")
    page = page_of(run)
    assert page.named("script") == [{}]
    assert page.text.count("<script") == 1
    assert page.said.count('<script>alert("x') > 8


def test_names_that_are_not_utf8_or_hold_controls_do_no_harm(tmp_path: Path) -> None:
    paths = [Path(f"p/\udcff{i}\x1b.jpg") for i in range(12)]
    classes = ["caf\udce9", "a\nb\x00c", "ok"]
    predictions = predictions_of(paths, [i % 3 for i in range(12)], classes, signal=0.5)
    page = page_of(write_run(tmp_path / "run", predictions))
    assert "a b c" in page.said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", page.text)


def test_headings_tables_ids_and_pictures_serve_screen_readers(make_run: MakeRun) -> None:
    page = page_of(make_run(["a", "b", "c"], n=30, epochs=3))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(one.get("scope") in ("col", "row") for one in page.named("th"))
    assert all(one.get("alt") for one in page.named("img"))
    assert all(one.get("aria-hidden") == "true" for one in page.named("svg"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {one["href"][1:] for one in page.named("a")} <= set(ids)


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "config.toml", "model/config.json",
                                  "predictions/val.npz"])  # fmt: skip
def test_a_part_that_is_missing_or_damaged_is_said(make_run: MakeRun, name: str) -> None:
    run = make_run()
    said = {
        "metrics.json": ("This run has no metrics.json.", "metrics.json cannot be read"),
        "history.csv": ("This run has no history.csv", "history.csv cannot be read"),
        "config.toml": ("This run has no config.toml.", "config.toml cannot be read"),
        "model/config.json": ("This run has no config.json.", "config.json cannot be read"),
        "predictions/val.npz": ("not a predictions file", "not a predictions file"),
    }[name]
    (run / name).unlink()
    assert said[0] in page_of(run).said
    (run / name).write_bytes(b"\x00\xffnot it")
    assert said[1] in page_of(run).said


def test_several_labels_an_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((40, 3)) < 0.4
    logits = (rng.normal(size=(40, 3)) + 2 * targets).astype(np.float32)
    paths = tuple(f"{i}.jpg" for i in range(40))
    several = Predictions(logits, targets, paths, ("a", "b", "c"), task="multi")
    single = predictions_of([Path(path) for path in paths], [0] * 40, ["a", "b", "c"])
    run = write_run(tmp_path / "run", single)
    several.save(run / "predictions" / "val.npz")
    found = to_json(evaluate(several), split="test", role="report")
    ranked = found["figures"]["mean_average_precision"]
    headline = {"figure": "mean_average_precision", **ranked, "n": 40, "split": "test",
                "role": "report"}  # fmt: skip
    rewrite(run, headline=headline, evaluations=[found | {"predictions": "predictions/val.npz"}])
    page = page_of(run)
    assert f"Mean average precision {100 * ranked['value']:.1f}% on 40 unseen images" in page.said
    wrong = int((several.marks != targets).any(axis=1).sum())
    assert f"12 of {wrong} images with a wrong class" in page.said
    share = 100 * targets.mean()
    assert f"Images in an order by chance would give {share:.0f}%" in page.said
    assert "average precision threshold" in page.said
    assert "Most frequent confusions" not in page.said


def test_probe_only_run_says_that_there_were_no_epochs(make_run: MakeRun) -> None:
    assert "No epoch was run" in page_of(make_run()).said


def test_run_of_repeated_cross_validation_alone(make_run: MakeRun) -> None:
    run = make_run()
    repeated = json.loads((run / "metrics.json").read_text())["evaluations"][1]
    headline = {"figure": "top1", "value": 0.9531, "low": 0.93, "high": 0.97, "n": 396,
                "split": "all", "role": "report", "method": "10 x 5-fold"}  # fmt: skip
    rewrite(run, evaluations=[repeated], headline=headline)
    page = page_of(run)
    assert "Right on 95.3% of 396 unseen images" in page.said
    assert "Always answering" not in page.said
    assert "No evaluation in metrics.json has figures per class." in page.said
    assert "No evaluation of this run kept its predictions." in page.said


def test_guessing_is_of_the_images_that_the_headline_is_of(make_run: MakeRun) -> None:
    run = make_run()
    headline = {"figure": "top1", "value": 0.9, "low": 0.8, "high": 0.95, "n": 100,
                "split": "train+val", "role": "report", "method": "10 x 5-fold"}  # fmt: skip
    rewrite(run, headline=headline)
    assert "Always answering" not in page_of(run).said
    counts = {"train": {"ants": 10, "bees": 70}, "val": {"ants": 10, "bees": 10}}
    rewrite(run, counts=counts)
    assert "Always answering “bees” would be right on 80%." in page_of(run).said


def test_imported_run_without_any_figures(make_run: MakeRun) -> None:
    run = make_run()
    rewrite(run, headline=None, evaluations=[], chosen=None, seconds={})
    assert "Nothing measured yet" in page_of(run).said


def test_predictions_outside_the_run_are_not_read(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    (run / "predictions" / "val.npz").rename(tmp_path / "val.npz")
    evaluations = json.loads((run / "metrics.json").read_text())["evaluations"]
    evaluations[0]["predictions"] = "../val.npz"
    rewrite(run, evaluations=evaluations)
    assert "../val.npz is not inside the run folder." in page_of(run).said


def test_matrix_for_few_classes_and_pairs_for_many(tmp_path: Path) -> None:
    def made(k: int) -> Page:
        paths = [Path(f"{i}.jpg") for i in range(4 * k)]
        classes = [f"class {i:03d}" for i in range(k)]
        predictions = predictions_of(paths, [i % k for i in range(4 * k)], classes, signal=1.5)
        return page_of(write_run(tmp_path / f"run{k}", predictions))

    assert "Confusion matrix" in made(30).said
    many = made(100)
    assert "Confusion matrix" not in many.said
    assert "Most frequent confusions" in many.said
    assert "class 099" in many.said


def test_ten_thousand_images_make_a_page_of_less_than_3_mb(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photo)
    classes = [f"{i:04d} {'x' * 200}" for i in range(300)]
    targets = [i % 300 for i in range(10_000)]
    run = write_run(
        tmp_path / "run", predictions_of([photo] * 10_000, targets, classes), epochs=300
    )
    bad = [{"path": f"{i} {'y' * 200}.jpg", "reason": "is empty (0 bytes)"} for i in range(10_000)]
    rewrite(run, bad_images=bad, notes=["note"] * 5000)
    page = write_report(run)
    assert page.stat().st_size < 3e6
    assert "And 9,800 more in metrics.json." in page.read_text(encoding="utf-8")


def test_the_same_run_gives_the_same_bytes_and_no_other_file(make_run: MakeRun) -> None:
    run = make_run(["a", "b", "c"], n=30, epochs=3)
    before = sorted(path.name for path in run.iterdir())
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.iterdir()) == sorted([*before, "report.html"])


def test_from_scratch_there_is_no_probe_line(make_run: MakeRun) -> None:
    run = make_run(epochs=3)
    assert "the probe's validation top-1 is 80.0%" in page_of(run).text.replace("&#39;", "'")
    (run / "config.toml").write_text('[model]\nweights = "none"\n', encoding="utf-8")
    assert "the probe's validation" not in page_of(run).text.replace("&#39;", "'")


def test_errors_name_folder_version_and_key(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere: not a run folder"):
        write_report(tmp_path / "nowhere")
    run = make_run()
    rewrite(run, schema_version=2)
    with pytest.raises(ArtifactError, match="schema_version 2 was written by a later plusx"):
        write_report(run)
    rewrite(run, schema_version=1, evaluations=[{"split": "val"}])
    with pytest.raises(ArtifactError, match=r"metrics\.json: not as plusx writes it .*role"):
        write_report(run)


@pytest.mark.parametrize("task", ["single", "multi"])
def test_every_figure_has_a_name_for_a_person(task: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.arange(40) % 6
    marks = rng.random((40, 6)) < 0.5
    found = evaluate(
        Predictions(
            rng.normal(size=(40, 6)).astype(np.float32),
            marks if task == "multi" else targets,
            tuple(map(str, range(40))),
            tuple("abcdef"),
            task="multi" if task == "multi" else "single",
        )
    )
    assert set(found.figures) <= set(FIGURES)
