from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, softmax

from plusx.errors import DataError, UsageError
from plusx.evaluate import Predictions


def small(**changes: object) -> Predictions:
    fields: dict[str, object] = {
        "logits": np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32),
        "targets": np.array([0, 1, -1]),
        "paths": ("a.jpg", "b/ü 1.jpg", "c.jpg"),
        "classes": ("ants", "bees"),
        "groups": ("p1", "p1", "p2"),
        "features": np.arange(12, dtype=np.float32).reshape(3, 4),
    }
    return Predictions(**{**fields, **changes})  # type: ignore[arg-type]


def same(a: Predictions, b: Predictions) -> bool:
    for field in dataclasses.fields(Predictions):
        x, y = getattr(a, field.name), getattr(b, field.name)
        equal = np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else x == y
        if not equal:
            return False
    return True


def test_probabilities_are_softmax_and_do_not_overflow() -> None:
    logits = np.array([[1e4, 0, -1e4], [0.1, 0.2, 0.3]], dtype=np.float32)
    p = small(logits=logits, targets=np.array([0, 1]), paths=("a", "b"), classes=("x", "y", "z"),
              groups=None, features=None)  # fmt: skip
    np.testing.assert_allclose(p.probabilities, softmax(logits.astype(float), axis=1), rtol=1e-6)
    assert p.log_probabilities[0, 2] == pytest.approx(-2e4)


def test_probabilities_of_multi_are_sigmoids() -> None:
    logits = np.array([[-300, 300], [0.5, -0.5], [0, 1]], dtype=np.float32)
    p = small(logits=logits, targets=np.zeros((3, 2), dtype=bool), task="multi")
    np.testing.assert_allclose(p.probabilities, expit(logits), rtol=1e-6)


def test_predicted_takes_the_first_of_equals() -> None:
    assert small().predicted.tolist() == [0, 1, 0]
    assert small().predicted.dtype == np.int64


def test_take_by_number_and_by_mask_keeps_every_field() -> None:
    taken = small().take([2, 0])
    assert taken.paths == ("c.jpg", "a.jpg")
    assert taken.groups == ("p2", "p1")
    assert taken.targets.tolist() == [-1, 0]
    assert taken.features is not None
    assert taken.features[0].tolist() == [8, 9, 10, 11]
    assert same(small().take(np.array([True, False, True])), small().take([0, 2]))
    assert len(small().take([])) == 0


@pytest.mark.parametrize("index", [[3], [-1], [0.5], [True], [[0]]])
def test_take_refuses_what_names_no_rows(index: list[object]) -> None:
    with pytest.raises(UsageError, match="index"):
        small().take(np.array(index))


def test_concat_undoes_splitting() -> None:
    whole = small()
    assert same(Predictions.concat([whole.take([0]), whole.take([1, 2])]), whole)


def test_concat_refuses_parts_that_differ() -> None:
    with pytest.raises(UsageError, match="classes differs"):
        Predictions.concat([small(), small(classes=("ants", "wasps"))])
    with pytest.raises(UsageError, match="differ in having groups"):
        Predictions.concat([small(), small(groups=None)])
    with pytest.raises(UsageError, match="empty"):
        Predictions.concat([])


@pytest.mark.parametrize("groups", [None, ("p1", "p1", "p2")])
@pytest.mark.parametrize("task", ["single", "multi"])
def test_save_and_load_round_trip(tmp_path: Path, task: str, groups: object) -> None:
    targets = np.array([[True, False]] * 3) if task == "multi" else np.array([0, 1, -1])
    p = small(task=task, targets=targets, groups=groups,
              features=None if groups is None else small().features)  # fmt: skip
    p.save(tmp_path / "p.npz")
    p.save(tmp_path / "p.npz")  # over an existing file
    assert same(Predictions.load(tmp_path / "p.npz"), p)
    assert [f.name for f in tmp_path.iterdir()] == ["p.npz"]
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        assert all(archive[name].dtype != object for name in archive)


def test_a_path_that_is_not_utf8_survives(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.jpg") if sys.platform == "linux" else "café.jpg"
    p = small(paths=(odd, "b\0", "c"))
    p.save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").paths == p.paths


def test_load_refuses_a_damaged_absent_or_other_file(tmp_path: Path) -> None:
    small().save(tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    np.savez(tmp_path / "pickle.npz", names=np.array([{}], dtype=object))
    np.save(tmp_path / "plain.npy", np.ones(3))
    for name in ("cut.npz", "empty.npz", "other.npz", "pickle.npz", "plain.npy", "absent.npz"):
        with pytest.raises(DataError, match=name):
            Predictions.load(tmp_path / name)


def test_save_into_an_absent_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        small().save(tmp_path / "no" / "p.npz")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"logits": np.zeros((3, 2))}, UsageError, r"\(N, K\) float32 array, not \(3, 2\) float64"),
        ({"logits": np.zeros(3, dtype=np.float32)}, UsageError, "logits"),
        ({"targets": np.array([0, 1, 2])}, DataError, "2 classes"),
        ({"targets": np.array([0, 1, -2])}, DataError, "from -2 to 1"),
        ({"targets": np.array([0, 1])}, UsageError, "targets must be"),
        ({"targets": np.array([0.0, 1.0, 1.0])}, UsageError, "float64"),
        ({"task": "multi"}, UsageError, r"targets must be \(3, 2\) bool"),
        ({"task": "triple"}, UsageError, "'triple' is not one of"),
        ({"paths": ("a", "b")}, UsageError, "paths has 2 names"),
        ({"paths": ["a", "b", "c"]}, UsageError, "tuple of str, not list"),
        ({"classes": ("ants",)}, UsageError, "classes has 1 names"),
        ({"classes": ("ants", "ants")}, UsageError, "'ants' more than once"),
        ({"groups": ("p1",)}, UsageError, "groups has 1"),
        ({"groups": ("p1", "p1", None)}, UsageError, "groups must be"),
        ({"features": np.zeros((2, 4), dtype=np.float32)}, UsageError, r"\(3, D\)"),
        ({"features": np.zeros((3, 4), dtype=np.int64)}, UsageError, "int64"),
    ],
)
def test_fields_that_cannot_be_are_refused(
    changes: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        small(**changes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_named_by_its_image(bad: float) -> None:
    logits = np.zeros((3, 2), dtype=np.float32)
    logits[1, 1] = bad
    with pytest.raises(DataError, match=r"b/ü 1\.jpg: .*1 of 3 images.*learning rate"):
        small(logits=logits)


def test_the_room_is_light_to_import() -> None:
    code = (
        "import sys, plusx.evaluate\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
