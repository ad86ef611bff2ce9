"""Data sets that Hugging Face datasets saved: the images inside them, labels, splits."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from plusx.data import read_image, read_listing, unlabelled
from plusx.errors import DataError

datasets = pytest.importorskip("datasets", reason="extra 'datasets' absent")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUSX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(number: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(file, format=form)
    return file.getvalue()


def made(n: int, label: list[Any], kind: Any, *, start: int = 0, **more: list[Any]) -> Any:
    images = [{"bytes": picture(start + i, "PNG" if i % 2 else "JPEG"), "path": None}
              for i in range(n)]  # fmt: skip
    text = {name: datasets.Value("string") for name in more}
    features = datasets.Features({"image": datasets.Image(), "label": kind, **text})
    return datasets.Dataset.from_dict({"image": images, "label": label, **more}, features=features)


NAMES = datasets.ClassLabel(names=["dog", "cat"])


def test_one_data_set_with_class_labels(tmp_path: Path) -> None:
    made(4, [0, 1, -1, 0], NAMES, group=["p", "q", "q", None]).save_to_disk(tmp_path / "set")
    listing = read_listing(tmp_path / "set")
    assert listing.classes == ("cat", "dog")
    assert [s.target for s in listing.samples] == [1, 0, 1]
    assert [s.group for s in listing.samples] == ["p", "q", None]
    assert listing.unlabelled == 1
    assert [read_image(s.path).shape[1] for s in listing.samples] == [8, 9, 11]
    assert [Path(s.path).suffix for s in listing.samples] == [".jpg", ".png", ".png"]


def test_splits_and_several_labels(tmp_path: Path) -> None:
    several = datasets.Sequence(NAMES)
    parts = {"train": made(3, [[0, 1], [], [1]], several),
             "validation": made(2, [[0], [1]], several, start=3)}  # fmt: skip
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    listing = read_listing(tmp_path / "set")
    assert listing.task == "multi"
    assert [(s.target, s.split) for s in listing.samples] == [
        ((0, 1), "train"), ((), "train"), ((0,), "train"), ((1,), "val"), ((0,), "val"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="of task multi; wanted: single"):
        read_listing(tmp_path / "set", task="single")


def test_written_out_once_and_anew_when_it_changes(tmp_path: Path, cache: Path) -> None:
    made(3, [0, 1, 0], NAMES).save_to_disk(tmp_path / "set")
    first = [s.path for s in read_listing(tmp_path / "set").samples]
    Path(first[0]).write_bytes(b"mark")
    assert [s.path for s in read_listing(tmp_path / "set").samples] == first
    assert Path(first[0]).read_bytes() == b"mark"
    made(3, [0, 1, 0], NAMES, start=5).save_to_disk(tmp_path / "set")
    second = [s.path for s in read_listing(tmp_path / "set").samples]
    assert not set(first) & set(second)
    assert read_image(second[0]).shape[1] == 13
    assert not list(cache.rglob(".writing-*"))


def test_images_to_predict_need_no_labels(tmp_path: Path) -> None:
    made(3, [0, 1, 0], NAMES).remove_columns("label").save_to_disk(tmp_path / "set")
    found = [s.path for s in unlabelled(tmp_path / "set")]
    assert [read_image(path).shape[1] for path in found] == [8, 9, 10]


def test_images_that_are_none(tmp_path: Path) -> None:
    images = [None, {"bytes": b"no", "path": ""}]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    given = {"image": images, "label": ["x", "y"]}
    datasets.Dataset.from_dict(given, features=features).save_to_disk(tmp_path / "set")
    empty, broken = read_listing(tmp_path / "set").samples
    for sample, words in ((empty, "0 bytes"), (broken, "is not")):
        with pytest.raises(DataError, match=words):
            read_image(sample.path)


def test_images_that_are_elsewhere_are_not_fetched(tmp_path: Path) -> None:
    import pyarrow as pa

    made(1, [0], NAMES).save_to_disk(tmp_path / "set")
    (file,) = (tmp_path / "set").glob("*.arrow")
    with pa.ipc.open_stream(file) as stream:
        schema, table = stream.schema, stream.read_all()
    cell = pa.array([{"bytes": None, "path": "https://x.org/a.png"}], schema.field("image").type)
    table = table.set_column(0, schema.field("image"), cell)
    with pa.ipc.new_stream(file, schema) as stream:
        stream.write_table(table)
    with pytest.raises(DataError, match=r"row 0 is not inside \('https://x.org/a.png'\)"):
        read_listing(tmp_path / "set", training=False)


def test_what_is_lacking_is_said(tmp_path: Path) -> None:
    whole = made(2, [0, 1], NAMES)
    whole.rename_column("label", "target").save_to_disk(tmp_path / "no-label")
    whole.remove_columns("image").save_to_disk(tmp_path / "no-image")
    datasets.DatasetDict({"train": whole, "extra": whole}).save_to_disk(tmp_path / "split")
    made(2, [0.5, 1.5], datasets.Value("float32")).save_to_disk(tmp_path / "float")
    whole.save_to_disk(tmp_path / "broken")
    (tmp_path / "broken" / "state.json").write_text("{")
    for name, words in (
        ("no-label", "no column 'label' or 'labels'"),
        ("no-image", "has 0 columns of images"),
        ("split", "split 'extra' is not one of"),
        ("float", "column 'label' holds 0.5"),
        ("broken", "is no data set that can be read"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            read_listing(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_train_evaluate_and_predict(
    tmp_path: Path, photos: Path, tiny_weights: Path, quick: dict[str, Any],
    command: Callable[..., Any],
) -> None:  # fmt: skip
    files = sorted((photos / "train").rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {"image": [{"bytes": f.read_bytes(), "path": f.name} for f in files],
            "label": [f.parent.name for f in files]}  # fmt: skip
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "set")
    run = tmp_path / "run"
    said = command("train", tmp_path / "set", "--weights", tiny_weights, "--out", run,
                   "--unfreeze", "0", "--image-size", "32")  # fmt: skip
    assert said.code == 0, said
    assert command("evaluate", run, tmp_path / "set").code == 0
    said = command("predict", run, tmp_path / "set", "--out", tmp_path / "out.csv")
    assert said.code == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == len(files) + 1
