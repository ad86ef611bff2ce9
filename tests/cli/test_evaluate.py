"""``plusx evaluate`` and ``plusx import`` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plusx


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_figures_predictions_and_an_unchanged_run(
    command: Callable[..., Any], finished: plusx.Run, photos: Path, tmp_path: Path
) -> None:
    before = folder_bytes(finished.path)
    said = command("evaluate", finished.path, photos, "--out", tmp_path / "x.json",
                   "--predictions", tmp_path / "x.npz", "--json")  # fmt: skip
    assert said.code == 0
    assert said.err == "note: the data has splits: scoring val (--split to choose another)\n"
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    saved = plusx.Predictions.load(tmp_path / "x.npz")
    assert len(saved) == found["n"] == 32
    top1 = found["figures"]["top1"]
    assert top1["value"] == pytest.approx((saved.predicted == saved.targets).mean())
    assert np.array(found["confusion"]).sum() == 32
    assert {"top1", "macro_f1", "balanced_accuracy"} <= set(found["figures"])
    assert [one["support"] for one in found["per_class"]] == [16, 16]
    assert folder_bytes(finished.path) == before


@pytest.mark.parametrize("option", ["--out", "--predictions"])
def test_a_file_to_write_is_made_room_for_or_refused_before_the_work(
    command: Callable[..., Any], finished: plusx.Run, photos: Path, tmp_path: Path, option: str
) -> None:
    assert command("evaluate", finished.path, photos, option, tmp_path / "new/x").code == 0
    assert (tmp_path / "new/x").stat().st_size > 0
    (tmp_path / "file").write_text("in the way")
    for name, said in (("new", "is a folder"), ("file/x", "cannot be written")):
        ended = command("evaluate", finished.path, photos, option, tmp_path / name)
        assert f"{option} " in ended.error
        assert said in ended.error
        assert ended.out == ""


def test_the_table_for_a_person(
    command: Callable[..., Any], finished: plusx.Run, photos: Path
) -> None:
    said = command("evaluate", finished.path, photos, "--split", "all")
    assert said.out.startswith("96 images (all)\n")
    for word in ("top1", "95% interval", "precision", "recall", "f1", "support", "across",
                 "confusion"):  # fmt: skip
        assert word in said.out


@pytest.mark.parametrize(
    ("columns", "said"),
    [("200", "across │ upright"), ("29", "  1 │  2 "), ("20", "needs more than 20 columns")],
)
def test_the_confusion_matrix_is_whole_or_absent(
    command: Callable[..., Any], finished: plusx.Run, photos: Path,
    monkeypatch: pytest.MonkeyPatch, columns: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", columns)
    shown = command("evaluate", finished.path, photos).out.partition("confusion")[2]
    assert said in shown.replace("┃", "│")
    assert "…" not in shown


def test_a_class_unknown_to_the_model_lists_both_sides(
    command: Callable[..., Any], finished: plusx.Run, make_stripes: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    data = make_stripes(tmp_path / "d", {"across": 2, "slanted": 2})
    error = command("evaluate", finished.path, data).error
    assert "unknown to the model: 'slanted'; the model knows 'across', 'upright'" in error


def test_classes_are_matched_by_name_and_the_absent_said(
    command: Callable[..., Any], finished: plusx.Run, make_stripes: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    data = make_stripes(tmp_path / "d", {"upright": 8}, seed=5)
    (data / "upright" / "broken.png").write_bytes(b"x")
    said = command("evaluate", finished.path, data, "--json")
    assert said.code == 1
    assert "note: 1 of the model's classes are absent from the data: across" in said.err
    assert "unreadable: " in said.err
    found = json.loads(said.out)
    assert found["figures"]["top1"]["value"] > 0.8  # class 0 of the data, class 1 of the model
    assert found["absent"] == ["across"]
    assert [item["path"] for item in found["bad_images"]] == [str(data / "upright" / "broken.png")]


def test_an_absent_split_names_those_there_are(
    command: Callable[..., Any], finished: plusx.Run, photos: Path
) -> None:
    error = command("evaluate", finished.path, photos, "--split", "test").error
    assert "--split 'test': not in the data; it has: train, val" in error


def test_import_then_evaluate(
    command: Callable[..., Any], tiny_weights: Path, photos: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("across\nupright\nc\nd\ne\n")
    out = tmp_path / "run"
    said = command("import", tiny_weights, "--classes", names, "--out", out)
    assert said.code == 0
    assert f"model:   {out / 'model'}" in said.out
    assert command("evaluate", out, photos, "--json").code == 0
    assert "exists already" in command("import", tiny_weights, "--out", out).error
    assert command("import", tiny_weights, "--out", out, "--overwrite").code == 0
    names.write_text("across\n")
    assert "has 1 names" in command("import", tiny_weights, "--classes", names,
                                    "--out", tmp_path / "b").error  # fmt: skip
