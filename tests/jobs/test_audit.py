"""The audit on real photographs with planted faults, and what training makes of it."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.data import read_listing, split_listing
from plusx.errors import DataError, UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.label_errors import find_label_errors
from plusx.jobs.audit import Audit, examine, read_facts, scan
from plusx.jobs.audit_features import _out_of_fold, extract, judge
from plusx.jobs.audit_manifest import write_manifest
from plusx.jobs.audit_page import PICTURES, write_page
from plusx.jobs.audit_properties import shortcuts
from plusx.jobs.leaks import divide
from plusx.jobs.options import ScanOptions
from plusx.jobs.talk import Talk


def photographs(shared_data: Path, count: int) -> dict[str, list[Path]]:
    folder = shared_data / "data" / "hymenoptera" / "train"
    return {name: sorted((folder / name).iterdir())[:count] for name in ("ants", "bees")}


@pytest.fixture(scope="module")
def planted(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 photographs in train and 24 in val, and the faults that ``audit`` shall find."""
    root = tmp_path_factory.mktemp("planted") / "in <sects>"
    for name, files in photographs(shared_data, 28).items():
        for number, file in enumerate(files):
            place = root / ("train" if number < 16 else "val") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place / f"{number:02}.jpg")
    ants, bees = root / "train" / "ants", root / "train" / "bees"
    whole = (ants / "00.jpg").read_bytes()
    (ants / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (ants / "empty.jpg").write_bytes(b"")
    (bees / "text.jpg").write_text("no image")
    (bees / "<b>noise.png").write_bytes(bytes(range(256)))
    shutil.copy(ants / "01.jpg", root / "val" / "ants" / "leak.jpg")
    other_file = (ants / "02.jpg").read_bytes() + b"and more"
    (root / "val" / "ants" / "same-pixels.jpg").write_bytes(other_file)
    with Image.open(bees / "06.jpg") as image:
        image.save(root / "val" / "bees" / "resaved.png")
    shutil.copy(bees / "03.jpg", ants / "other-label.jpg")
    for copy in "abc":
        shutil.copy(bees / "04.jpg", bees / f"04{copy}.jpg")
    with Image.open(bees / "05.jpg") as image:
        image.reduce(2).save(bees / "near.jpg", quality=60)
    Image.new("RGB", (320, 240), (20, 40, 60)).save(ants / "plain.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 400, 3)).astype(np.uint8)).save(
        bees / "long.png"
    )
    return root


@pytest.fixture(scope="module")
def audit(planted: Path) -> Audit:
    return scan(planted, cache=None, processes=2, talk=Talk(quiet=True))


def names(audit: Audit, kind: str) -> list[set[str]]:
    finding = audit.find(kind)
    assert finding is not None, kind
    assert finding.count == len(finding.items)
    return [{Path(audit.listing.samples[row].path).name for row in item.rows}
            for item in finding.items]  # fmt: skip


def test_every_broken_file_is_named_once(audit: Audit) -> None:
    assert names(audit, "truncated") == [{"cut.jpg"}]
    broken = names(audit, "unreadable")
    assert sorted(map(min, broken)) == ["<b>noise.png", "empty.jpg", "text.jpg"]
    assert len(audit.bad) == 4
    assert "cut.jpg" not in {name for one in broken for name in one}


def test_every_copy_is_found_and_no_other(audit: Audit) -> None:
    assert names(audit, "copies_across_splits") == [
        {"01.jpg", "leak.jpg"}, {"02.jpg", "same-pixels.jpg"}]  # fmt: skip
    assert names(audit, "copies_across_labels") == [{"other-label.jpg", "03.jpg"}]
    assert names(audit, "copies") == [{"04.jpg", "04a.jpg", "04b.jpg", "04c.jpg"}]
    assert {"05.jpg", "near.jpg"} in names(audit, "near_copies")
    assert {"06.jpg", "resaved.png"} in names(audit, "near_copies_across_splits")


def test_odd_images_and_severities(audit: Audit) -> None:
    assert names(audit, "uniform") == [{"plain.png"}]
    assert names(audit, "long")[0] == {"long.png"}
    order = [one.severity for one in audit.findings]
    assert order == sorted(order, key=["error", "warning", "note"].index)
    assert audit.verdict.startswith("3 errors, ")
    assert audit.counts()["val"] == {"ants": 14, "bees": 13}


def test_json_is_plain_and_whole(audit: Audit) -> None:
    found = json.loads(json.dumps(audit.to_json(), allow_nan=False))
    leak = next(one for one in found["findings"] if one["kind"] == "copies_across_splits")
    assert [file["split"] for file in leak["items"][0]["files"]] == ["train", "val"]
    assert {file["label"] for file in leak["items"][0]["files"]} == {"ants"}
    assert found["statistics"]["readable"] == found["images"] - 4
    assert {one["property"] for one in found["shortcuts"]} >= {"file size", "border colour"}


def test_the_page_shows_and_escapes(audit: Audit, tmp_path: Path) -> None:
    write_page(audit, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<b>noise" not in page
    assert "&lt;b&gt;noise.png" in page
    assert "in &lt;sects&gt;" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert 10 < page.count('src="data:image/jpeg') <= PICTURES
    write_page(audit, tmp_path / "b.html", thumbnails=False)
    bare = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert 'src="data:' not in bare
    assert "--no-thumbnails" in bare


def test_the_fixed_manifest_is_clean_and_trains(
    audit: Audit, tmp_path: Path, tiny_weights: Path, quick: dict[str, Any]
) -> None:
    fixed = write_manifest(audit, tmp_path / "clean.csv")
    listing = read_listing(tmp_path / "clean.csv")
    assert fixed.kept == len(listing.samples) == len(audit.listing.samples) - fixed.left_out
    left = {"/".join(Path(sample.path).parts[-2:]): sample.group for sample in listing.samples}
    assert not set(left) & {"ants/cut.jpg", "ants/empty.jpg", "bees/text.jpg", "bees/03.jpg",
                            "ants/other-label.jpg", "bees/04a.jpg", "ants/01.jpg"}  # fmt: skip
    assert {"ants/leak.jpg", "bees/04.jpg"} <= set(left)
    assert left["bees/near.jpg"] == left["bees/05.jpg"] is not None
    with fixed.notes.open(newline="") as file:
        noted = list(csv.DictReader(file))
    assert len(noted) == fixed.left_out
    assert {row["what"] for row in noted} == {"left out"}
    run = plusx.train(tmp_path / "clean.csv", weights=tiny_weights, out=tmp_path / "run",
                      **(quick | {"epochs": 1}))  # fmt: skip
    again = json.loads((run.path / "audit.json").read_text(encoding="utf-8"))
    assert not [one for one in again["findings"] if one["severity"] == "error"]
    with pytest.raises(UsageError, match="exists already"):
        write_manifest(audit, tmp_path / "clean.csv")


def test_groups_are_written_nowhere(
    make_stripes: Callable[..., Path], tmp_path: Path, quick: dict[str, Any], tiny_weights: Path
) -> None:
    folder = make_stripes(tmp_path / "x", {"across": 24, "upright": 24})
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},patient-{number // 2}"
            for number, path in enumerate(sorted(folder.rglob("*.png")))]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *rows]))
    run = plusx.train(tmp_path / "list.csv", weights=tiny_weights, out=tmp_path / "run",
                      thumbnails=False, **(quick | {"unfreeze": 0}))  # fmt: skip
    for file in ("audit.json", "audit.html", "report.html", "train.log"):
        text = (run.path / file).read_text(encoding="utf-8")
        assert "patient-" not in text, file
        assert "data:image/jpeg" not in text, file


def remade(shared_data: Path, folder: Path, change: Callable[[Image.Image, int], Any]) -> Path:
    """48 photographs of either class, written anew as ``change`` says: (image, class) -> how."""
    for target, (name, files) in enumerate(photographs(shared_data, 48).items()):
        (folder / name).mkdir(parents=True)
        for file in files:
            with Image.open(file) as image:
                small = image.convert("RGB").resize((160, 120))
            how = {"quality": 80} | change(small, target)
            picture, place = how.pop("image", small), folder / name / how.pop("below", "")
            place.mkdir(exist_ok=True)
            picture.save(place / file.name, **how)
    return folder


def darker(image: Image.Image, target: int) -> dict[str, Any]:
    return {"image": image.point(lambda level: level * 0.6) if target else image}


def bordered(image: Image.Image, target: int) -> dict[str, Any]:
    if target:
        image.paste((255, 255, 255), (0, 0, 160, 6))
        image.paste((255, 255, 255), (0, 114, 160, 120))
    return {}


def photographed(image: Image.Image, target: int) -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", ("Mark II", "Mark IV")[target]
    return {"exif": exif}


def dated(image: Image.Image, target: int) -> dict[str, Any]:
    return {"below": f"2024-0{3 + target}-1{image.width % 3}"}


PLANTED = {
    "camera": photographed,
    "date of the folder": dated,
    "bytes per pixel": lambda image, target: {"quality": 60 if target else 90},
    "image size": lambda image, target: {"image": image.resize((150, 112)) if target else image},
    "brightness": darker,
    "border colour": bordered,
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_shortcuts_are_found(name: str, shared_data: Path, tmp_path: Path) -> None:
    folder = remade(shared_data, tmp_path / "x", PLANTED[name])
    found = scan(folder, cache=None, processes=2, talk=Talk(quiet=True))
    assert name in {one.name for one in found.shortcuts if one.found}
    finding = found.find("shortcut")
    assert finding is not None
    assert name in finding.text
    assert "% balanced accuracy" in finding.text


def test_shuffled_labels_have_no_shortcut(shared_data: Path) -> None:
    listing = read_listing(shared_data / "data" / "hymenoptera")
    table = read_facts(listing, cache="auto", processes=2, talk=Talk(quiet=True))
    targets = [sample.target for sample in listing.samples]
    for seed in range(5):
        mixed = np.random.default_rng(seed).permutation(targets).tolist()
        samples = tuple(replace(s, target=t) for s, t in zip(listing.samples, mixed, strict=True))
        tested = shortcuts(replace(listing, samples=samples), table, seed=seed)
        assert [one.name for one in tested if one.found] == []


def test_flipped_labels_stand_first(shared_data: Path, tmp_path: Path) -> None:
    """Of 5% flipped labels at least 0.8 stand within the first as many, mean of 5 seeds."""
    listing = read_listing(shared_data / "data" / "hymenoptera")
    table = read_facts(listing, cache="auto", processes=2, talk=Talk(quiet=True))
    clean = examine(listing, table)
    weights = shared_data / "weights" / "resnet18_imagenet_pq.safetensors"
    network = ScanOptions(listing.source, weights=str(weights), model="resnet18", device="cpu")
    features, rows = extract(clean, network, Talk(quiet=True))
    assert len(rows) == len(listing.samples)
    targets = np.array([sample.target for sample in listing.samples], np.int64)
    hits = []
    for seed in range(5):
        flips = np.random.default_rng(seed).choice(len(rows), 20, replace=False)
        wrong = targets.copy()
        wrong[flips] = 1 - wrong[flips]
        logits = _out_of_fold(features, wrong, np.arange(len(rows)), 2, seed)
        hits.append(np.isin(flips, find_label_errors(logits, wrong).ranking[:20]).mean())
    assert np.mean(hits) >= 0.8
    samples = tuple(replace(s, target=int(t)) for s, t in zip(listing.samples, wrong, strict=True))
    finding = judge(replace(clean, listing=replace(listing, samples=samples)), features, rows)
    named = finding.find("label_errors")
    assert named is not None
    assert np.isin([item.rows[0] for item in named.items], flips).mean() >= 0.7
    assert "looks like" in named.items[0].why


def test_features_find_what_pixels_alone_do_not(shared_data: Path, tmp_path: Path) -> None:
    """Turned, covered or shifted copies are look-alikes; no other photographs are."""
    for name, files in photographs(shared_data, 30).items():
        for split, some in (("train", files[:20]), ("val", files[20:])):
            (tmp_path / split / name).mkdir(parents=True)
            for number, file in enumerate(some):
                shutil.copy(file, tmp_path / split / name / f"{split}-{number:02}.jpg")
    train, val = tmp_path / "train", tmp_path / "val"
    with Image.open(train / "ants" / "train-01.jpg") as image:
        image.rotate(4, Image.Resampling.BICUBIC).save(train / "ants" / "turned.jpg")
    with Image.open(train / "ants" / "train-02.jpg") as image:
        image.rotate(4, Image.Resampling.BICUBIC).save(val / "ants" / "leaked.jpg")
    with Image.open(train / "bees" / "train-03.jpg") as image:
        image.paste((255, 255, 255), (0, round(image.height * 0.87), image.width, image.height))
        image.save(train / "ants" / "covered.jpg")
    weights = shared_data / "weights" / "resnet18_imagenet_pq.safetensors"
    found = scan(tmp_path, weights=weights, model="resnet18", cache=None, device="cpu",
                 talk=Talk(quiet=True))  # fmt: skip
    near = {min(one) for kind in ("near_copies", "near_copies_across_labels",
                                  "near_copies_across_splits")
            if (finding := found.find(kind)) for one in names(found, finding.kind)}  # fmt: skip
    assert not near & {"turned.jpg", "leaked.jpg", "covered.jpg"}
    assert names(found, "lookalikes") == [{"train-01.jpg", "turned.jpg"}]
    assert names(found, "lookalikes_across_splits") == [{"train-02.jpg", "leaked.jpg"}]
    assert names(found, "lookalikes_across_labels") == [{"covered.jpg", "train-03.jpg"}]


def test_a_leak_stops_training_in_one_line(
    planted: Path, tmp_path: Path, tiny_weights: Path, quick: dict[str, Any]
) -> None:
    options = quick | {"weights": tiny_weights, "out": tmp_path / "run", "unfreeze": 0}
    with pytest.raises(DataError) as stopped:
        plusx.train(planted, **options)
    said = str(stopped.value)
    assert "\n" not in said
    assert "2 groups of identical images" in said
    assert "01.jpg and" in said
    assert "leak.jpg" in said
    assert "--allow-leaks" in said
    assert not (tmp_path / "run").exists()
    run = plusx.train(planted, allow_leaks=True, **options)
    assert len(run.metrics["bad_images"]) == 4
    assert any("identical images" in note for note in run.metrics["notes"])


@pytest.mark.parametrize("folds", [0, 3])
def test_a_split_by_plusx_is_free_of_leaks(
    folds: int, make_stripes: Callable[..., Path], tmp_path: Path, tiny_weights: Path,
    quick: dict[str, Any]
) -> None:  # fmt: skip
    folder = make_stripes(tmp_path / "x", {"across": 20, "upright": 20})
    for number in range(8):
        for copy in "ab":
            name = f"{number:03}"
            shutil.copy(folder / "across" / f"{name}.png", folder / "across" / f"{name}{copy}.png")
    run = plusx.train(folder, weights=tiny_weights, out=tmp_path / "run", folds=folds,
                      **(quick | {"unfreeze": 0}))  # fmt: skip
    notes = " ".join(run.metrics["notes"])
    assert "8 groups of identical images are kept on one side of the split: val has" in notes
    held = Predictions.load(run.path / "predictions" / "val.npz")
    families = {Path(path).stem[:3] for path in held.paths if "across" in path}
    kept = [path for path in held.paths if "across" in path]
    assert len(kept) == sum(3 if int(family) < 8 else 1 for family in families)


def test_near_duplicates_that_hold_a_class_are_given_up(
    make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_stripes(tmp_path / "x", {"across": 12, "upright": 12})
    base = np.array(Image.open(folder / "across" / "000.png")).astype(int)
    for number, file in enumerate(sorted((folder / "across").iterdir())):
        changed = (base + number).clip(0, 255).astype(np.uint8)
        Image.fromarray(changed).resize((96, 96)).save(file)
    audit = scan(folder, cache=None, processes=1, talk=Talk(quiet=True))
    (one,) = audit.near
    assert len(one) == 12
    talk = Talk(quiet=True)
    divided = divide(audit, lambda given: split_listing(given, seed=0), allow_leaks=False,
                     talk=talk)  # fmt: skip
    assert {sample.split for sample in divided.samples} == {"train", "val"}
    assert any("only identical images" in note for note in talk.notes)


def test_a_class_of_one_image_and_its_copy_cannot_be_split(
    make_stripes: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_stripes(tmp_path / "x", {"across": 1, "upright": 12})
    shutil.copy(folder / "across" / "000.png", folder / "across" / "001.png")
    audit = scan(folder, cache=None, processes=1, talk=Talk(quiet=True))
    quiet = Talk(quiet=True)
    with pytest.raises(DataError, match="identical images are one group"):
        divide(audit, lambda given: split_listing(given, seed=0), allow_leaks=False, talk=quiet)
    divided = divide(audit, lambda given: split_listing(given, seed=0), allow_leaks=True,
                     talk=quiet)  # fmt: skip
    assert len(divided.part("val")) == 3


def test_nothing_readable_is_said_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"")
    audit = scan(tmp_path, cache=None, processes=1, talk=Talk(quiet=True))
    assert audit.counts() == {"all": {"a": 0, "b": 0}}
    assert [one.kind for one in audit.findings] == ["unreadable", "few"]
    write_page(audit, tmp_path / "page.html")


def test_a_damaged_cache_of_the_user_stops_nothing(
    make_stripes: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    folder = make_stripes(tmp_path / "x", {"across": 4, "upright": 4})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scan(folder, processes=1, talk=Talk(quiet=True))
    (file,) = (tmp_path / "cache").rglob("*.sqlite")
    for one in file.parent.iterdir():
        one.unlink()
    file.write_bytes(b"no database" * 99)
    assert scan(folder, processes=1).statistics["readable"] == 8
    assert "reading without it" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    shutil.copy(file, tmp_path / "mine" / file.name)
    with pytest.raises(DataError, match="cannot be used as a cache"):
        scan(folder, cache=tmp_path / "mine", processes=1, talk=Talk(quiet=True))
