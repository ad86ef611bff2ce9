"""What ``plusx evaluate`` tells beside the figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import plusx
from plusx.data import Preprocessing, Sample, read_image, read_listing
from plusx.data.corruption import STRENGTHS
from plusx.data.manifest import read_columns
from plusx.errors import DataError, UsageError
from plusx.evaluate import Held
from plusx.evaluate.plots import robustness_curves
from plusx.jobs.costs import read_costs
from plusx.jobs.evaluate import Also, evaluate
from plusx.jobs.robustness import stratified
from plusx.jobs.talk import Talk


def asked(run: plusx.Run, data: Path, **options: Any) -> dict[str, Any]:
    result = evaluate(run.path, data, also=Also(**options), talk=Talk(quiet=True), device="cpu")
    found: dict[str, Any] = json.loads(json.dumps(result.to_json(), allow_nan=False))
    return found


@pytest.fixture(scope="module")
def manifest(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validation photographs: those of camera ``b`` bear wrong labels as often as right."""
    path = tmp_path_factory.mktemp("manifest") / "list.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "camera", "age", "note"])
        for part in ("train", "val"):
            for name in ("across", "upright"):
                for i, image in enumerate(sorted((photos / part / name).iterdir())):
                    bad = i % 2 == 1
                    other = {"across": "upright", "upright": "across"}[name]
                    label = other if bad and i % 4 == 3 else name
                    writer.writerow([image, label, "ab"[bad], i + 0.5, ""])
    return path


def test_a_worse_camera_is_found_among_columns(finished: plusx.Run, manifest: Path) -> None:
    found = asked(finished, manifest, slice_by=("camera", "age", "brightness"))
    worst = found["slices"][0]
    assert (worst["column"], worst["value"], worst["n"], worst["worse"]) == (
        "camera",
        "b",
        48,
        True,
    )
    assert worst["top1"]["value"] < 0.7 < worst["rest"]
    quarters = [one for one in found["slices"] if one["column"] == "age"]
    assert sum(one["n"] for one in quarters) == 96
    assert not any(one["worse"] for one in found["slices"] if one["column"] == "brightness")


def test_columns_by_path_and_what_is_lacking(
    command: Callable[..., Any], finished: plusx.Run, manifest: Path, photos: Path
) -> None:
    columns = read_columns(manifest, ["camera", "note"])
    assert set(columns["camera"].values()) == {"a", "b"}
    assert set(columns["note"].values()) == {""}
    assert len(columns["camera"]) == 96
    call = ("evaluate", finished.path, manifest, "--slice-by")
    assert "no column 'lens' in 'path,label,camera,age,note'" in command(*call, "lens").error
    assert "has no columns 'lens'" in command("evaluate", finished.path, photos, "--slice-by",
                                              "lens,size").error  # fmt: skip
    assert "column 'camera' is unknown" in command("evaluate", finished.path, manifest).error
    assert "empty name" in command(*call, "camera,").error
    said = command(*call, "note,camera")
    assert "note: --slice-by note: no value stands at 10 images" in said.err
    assert "significantly worse than the rest: 1 of 2 slices" in said.out


def test_parquet_columns_may_hold_anything(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="extra 'parquet' absent")
    import pyarrow.parquet as pq

    table = pa.table(
        {"path": ["a.png", "b.png"], "label": ["x", "y"], "age": [61.5, None], "iso": [0.5, 1.5]}
    )
    pq.write_table(table, tmp_path / "list.parquet")
    found = read_columns(tmp_path / "list.parquet", ["age"])
    assert list(found["age"].values()) == ["61.5", ""]
    listing = read_listing(tmp_path / "list.parquet", training=False, beside=["age"])
    assert [sample.path for sample in listing.samples] == list(found["age"])
    with pytest.raises(DataError, match="column 'age' is unknown"):
        read_listing(tmp_path / "list.parquet", training=False)


def test_costs_move_decisions_and_are_weighed_against_argmax(
    finished: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_text("true,upright,across\nacross,1e15,0\nupright,0,1\n")  # any order of names
    found = asked(finished, photos, costs=costs)["costs"]
    assert found["decided"] == {"across": 32, "upright": 0}
    assert found["cheapest"]["value"] == 0.5
    truth = asked(finished, photos)
    (_, missed), (raised, _) = truth["confusion"]
    plain = (missed * 1e15 + raised) / 32
    assert found["most_probable"]["value"] == pytest.approx(plain)
    assert found["saved"]["value"] == pytest.approx(plain - 0.5)
    assert found["changed"] == truth["confusion"][0][1] + truth["confusion"][1][1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; the first line must be true,a,b"),
        ("true,a\na,0\nb,1\n", "line 1: no column for 'b'"),
        ("true,a,b\na,0,1\n", "no row for 'b'"),
        ("true,a,b\na,0,1\nb,1,0\nc,1,1\n", "rows of classes unknown to the model: 'c'"),
        ("true,a,b\na,0,1\na,1,0\nb,1,0\n", "'a' has more than one row"),
        ("true,a,b\na,0,1\nb,1\n", "the row of 'b' has 2 cells"),
        ("true,a,b\na,0,dear\nb,1,0\n", "deciding 'b' where 'a' is true, 'dear', is not a number"),
        ("true,a,b\na,0,nan\nb,1,0\n", "'nan', is not a number"),
    ],
)
def test_bad_costs_say_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=said):
        read_costs(path, ("a", "b"))
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_costs(tmp_path / "absent.csv", ("a", "b"))


def test_robustness_has_a_point_a_strength_and_is_repeatable(
    finished: plusx.Run, photos: Path
) -> None:
    found = asked(finished, photos, robustness=12)["robustness"]
    assert (found["figure"], found["n"], found["of"]) == ("top1", 12, 32)
    points = {(p["kind"], p["strength"]): p for p in found["points"]}
    assert set(points) == {(kind, s) for kind in STRENGTHS for s in range(6)}
    assert all(p["low"] <= p["value"] <= p["high"] for p in points.values())
    assert len({points[kind, 0]["value"] for kind in STRENGTHS}) == 1
    assert points["rotation", 5]["value"] < 0.3 < points["rotation", 0]["value"]  # turned by 90
    assert found == asked(finished, photos, robustness=12)["robustness"]
    drawn = robustness_curves(found["points"])
    assert drawn == robustness_curves(found["points"])
    assert all(f">{kind}<" in drawn for kind in STRENGTHS)
    with pytest.raises(UsageError, match="points is empty"):
        robustness_curves([])


def test_the_images_to_harm_keep_the_shares_of_the_classes() -> None:
    samples = [Sample(str(i), int(i % 10 > 6)) for i in range(1000)]
    few = stratified(samples, 100, seed=0)
    assert len(few) == 100
    assert sum(s.target == 1 for s in few) in (29, 30, 31)
    assert [int(s.path) for s in few] == sorted(int(s.path) for s in few)
    assert few == stratified(samples, 100, seed=0)
    assert few != stratified(samples, 100, seed=1)
    assert stratified(samples, 5000, seed=0) == samples


def test_views_are_averaged_and_weighed_on_the_same_images(
    finished: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    found = asked(finished, photos, tta="mirror")
    way = found["tta"]
    assert way["gain"]["value"] == pytest.approx(
        way["top1"]["value"] - found["figures"]["top1"]["value"]
    )
    assert way["role"] == "selection"
    # by hand: the first image and its mirror image
    predictor = plusx.Predictor(finished.path, device="cpu")
    path = sorted((photos / "val" / "across").iterdir())[0]
    mirrored = Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    other = tmp_path / "mirrored.png"
    mirrored.save(other)
    both = [predictor.predict(p).probabilities for p in (path, other)]  # type: ignore[union-attr]
    from plusx.jobs.views import Viewer
    from plusx.weights import load_artifact

    samples = [Sample(str(path), 0)]
    plain, _ = predictor.predictions(samples)
    own = load_artifact(finished.model_path).preprocessing
    viewer = Viewer(predictor, own, samples, plain, Talk(quiet=True))
    averaged = viewer.probabilities("mirror")
    np.testing.assert_allclose(averaged[0], np.mean(both, axis=0), atol=1e-5)
    assert asked(finished, photos, tta="five")["tta"]["name"] == "five"


def test_crops_are_compared_and_the_models_own_is_among_them(
    command: Callable[..., Any], finished: plusx.Run, tmp_path: Path,
    make_stripes: Callable[..., Path],
) -> None:  # fmt: skip
    data = make_stripes(tmp_path / "d", {"across": 10, "upright": 10}, seed=7)
    for image in data.rglob("*.png"):  # three times as wide: crops differ
        Image.open(image).resize((96, 32)).save(image)
    before = {p: p.read_bytes() for p in finished.path.rglob("*") if p.is_file()}
    said = command("evaluate", finished.path, data, "--crop", "centre,squish,pad", "--json")
    ways = {way["name"]: way for way in json.loads(said.out)["crops"]}
    assert [way["own"] for way in ways.values()].count(True) == 1
    assert ways["centre"]["own"]
    assert ways["centre"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert {p: p.read_bytes() for p in finished.path.rglob("*") if p.is_file()} == before
    shown = command("evaluate", finished.path, data, "--crop", "squish,centre").out
    assert "--crop centre  top1" in shown
    assert "the model's own" in shown
    for option, value in (("--crop", "middle"), ("--tta", "ten")):
        error = command("evaluate", finished.path, data, option, value).error
        assert f"{option} '{value}' is not one of" in error


def test_what_several_labels_cannot_have_is_refused_before_the_work() -> None:
    from plusx.jobs.evaluate import _refuse_multi

    for also, option in ((Also(tta="mirror"), "--tta"), (Also(crop=("pad",)), "--crop"),
                         (Also(slice_by=("size",)), "--slice-by")):  # fmt: skip
        with pytest.raises(UsageError, match=f"{option} needs one class"):
            _refuse_multi(also)
    _refuse_multi(Also(robustness=5, held=Held((0.9,))))


def test_a_run_trained_with_padding_pads_ever_after(
    tiny_weights: Path, photos: Path, tmp_path: Path
) -> None:
    run = plusx.train(photos, weights=tiny_weights, unfreeze=0, resize_mode="pad", device="cpu",
                      out=tmp_path / "run")  # fmt: skip
    from plusx.weights import load_artifact

    kept = load_artifact(run.model_path).preprocessing
    assert (kept.mode, kept.size, kept.resize) == ("pad", 32, 32)
    wide = tmp_path / "wide.png"
    Image.new("RGB", (96, 32), (255, 255, 255)).save(wide)
    seen = kept(torch.from_numpy(read_image(wide)))
    assert (seen[:, :10] == 0).all()
    assert (seen[:, 12:20] > 1).all()
    assert isinstance(kept, Preprocessing)
    with pytest.raises(UsageError, match="--resize-mode 'fit' is not one of short, squish, pad"):
        plusx.train(photos, weights=tiny_weights, resize_mode="fit", out=tmp_path / "other")
