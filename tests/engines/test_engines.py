"""All engines give the same answers; ``auto`` picks one, looks at its answers, and says which."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import plusx
from plusx.data import Sample
from plusx.engines import Engine, TorchEngine
from plusx.engines import choose as choosing
from plusx.engines.choose import Choice, difference
from plusx.engines.onnxruntime import OnnxRuntimeEngine
from plusx.engines.openvino import OpenVINOEngine, has_bfloat16
from plusx.errors import UsageError
from plusx.predict import Prediction, Predictor
from plusx.weights import load_artifact

pytest.importorskip("openvino", reason="extra 'openvino' absent")
pytest.importorskip("onnxruntime", reason="extra 'onnx' absent")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Any:
    return load_artifact(tiny_weights).model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def engines(model: Any) -> dict[str, Engine]:
    return {"openvino": OpenVINOEngine.of(model), "onnxruntime": OnnxRuntimeEngine.of(model)}


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_engines_agree_whatever_the_batch_the_strides_and_the_cores(
    engines: dict[str, Engine], model: Any, images: np.ndarray, name: str
) -> None:
    exact = TorchEngine(model, device=CPU).run(images)
    engine = engines[name]
    assert (engine.name, engine.precision, engine.parallel) == (name, "float32", True)
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for given in (images, images[:1], last):
        for one_core in (False, True):
            found = engine.run(given, one_core=one_core)
            wanted = slice(len(given))
            np.testing.assert_allclose(found.logits, exact.logits[wanted], atol=1e-4, rtol=1e-4)
            np.testing.assert_allclose(found.features, exact.features[wanted], atol=1e-4)
            assert found.unknown_scores is None


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_calls_in_threads_do_not_mix(
    engines: dict[str, Engine], images: np.ndarray, name: str
) -> None:
    engine = engines[name]
    with ThreadPoolExecutor(3) as pool:
        given = [images[i % 5 : i % 5 + 1] for i in range(30)]
        found = list(pool.map(lambda one: engine.run(one, one_core=True).logits, given))
    whole = engine.run(images).logits
    for i, logits in enumerate(found):
        np.testing.assert_allclose(logits[0], whole[i % 5], atol=1e-4)


def test_bfloat16_is_used_only_where_it_is(model: Any, images: np.ndarray) -> None:
    choice = Choice(model, name="openvino", device="cpu", precision="bfloat16")
    engine = choice.engine()
    exact = TorchEngine(model, device=CPU).run(images).logits
    off = difference(engine.run(images).logits, exact)
    if has_bfloat16():
        assert engine.precision == "bfloat16"
        assert 1e-4 < off < 0.05
        assert choice.notes == []
    else:
        assert engine.precision == "float32"
        assert off < 1e-4
        assert "no bfloat16 instructions" in choice.notes[0]


def test_difference_is_a_share_of_the_spread_and_infinite_for_lost_numbers() -> None:
    exact = np.array([[0.0, 10.0], [5.0, 2.0]], np.float32)
    assert difference(exact + 0.5, exact) == pytest.approx(0.05)
    assert difference(np.full_like(exact, np.nan), exact) == np.inf


def test_what_cannot_be_is_one_line(model: Any) -> None:
    for how, said in (
        ({"name": "abacus"}, "--engine 'abacus' is not one of auto, torch"),
        ({"name": "onnxruntime", "precision": "bfloat16"}, "onnxruntime computes in float32"),
        ({"name": "openvino", "precision": "float16"}, "float32 or bfloat16"),
        ({"name": "openvino", "device": "mps"}, "runs on the CPU alone|not available"),
    ):
        with pytest.raises(UsageError, match=said):
            Choice(model, **({"device": "cpu", "precision": "float32"} | how))


def test_auto_takes_the_fastest_that_pays_and_the_cli_says_it(
    finished: plusx.Run, photos: Path, command: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    few = Predictor(finished.path, engine="auto", device="cpu")
    assert isinstance(few.predict(photos / "val"), list)
    assert few.engine.name == "torch"  # 32 images are not worth a conversion
    monkeypatch.setattr(choosing, "WORTH_CONVERTING", 20)
    many = Predictor(finished.path, engine="auto", device="cpu")
    found = many.predict(photos / "val")
    assert (many.engine.name, many.notes) == ("openvino", ())
    wanted = finished.predict(photos / "val")
    for one, other in zip(found, wanted, strict=True):  # type: ignore[arg-type]
        assert isinstance(one, Prediction)
        assert isinstance(other, Prediction)
        assert one.label == other.label
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    said = command("predict", finished.path, photos / "val", "--out", tmp_path / "x.csv",
                   "--json", "--device", "cpu")  # fmt: skip
    assert json.loads(said.out)["engine"] == "openvino"


def test_an_engine_with_other_answers_is_not_taken(
    model: Any, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(choosing.BOUNDS, "float32", -1.0)  # nothing can be so near
    choice = Choice(model, name="auto", device="cpu", precision="float32")
    assert choice.engine(10**6).name == "openvino"
    choice.confirm(images)
    assert choice.engine().name == "torch"
    assert "gives other answers than torch" in choice.notes[0]
    assert not choice.open


def test_auto_goes_on_where_nothing_is_installed(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "find_spec", lambda name: None)
    assert Choice(model, name="auto", device="cpu", precision="auto").engine().name == "torch"


def test_an_engine_is_shared(finished: plusx.Run, photos: Path) -> None:
    first = Predictor(finished.path, engine="torch", device="cpu")
    second = Predictor(finished.path, engine=first.engine)
    assert second.engine is first.engine
    image = next((photos / "val" / "across").iterdir())
    one, other = first.predict(image), second.predict(image)
    assert isinstance(one, Prediction)
    assert isinstance(other, Prediction)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


@pytest.mark.parametrize("threads", [1, 3])
def test_side_by_side_and_one_by_one_keep_the_order_and_the_bad_ones(
    finished: plusx.Run, photos: Path, tmp_path: Path, threads: int
) -> None:
    paths = [str(path) for path in sorted(photos.rglob("*.png"))[:23]]
    for at in (0, 7, 8, 9, 20):
        paths.insert(at, str(tmp_path / f"absent{at}.png"))
    predictor = Predictor(finished.path, threads=threads, batch_size=4, device="cpu")
    answers = list(predictor.stream(Sample(path, None) for path in paths))
    good = [a.path for a in answers if isinstance(a, Prediction)]
    bad = [a.path for a in answers if not isinstance(a, Prediction)]
    assert good == [path for path in paths if "absent" not in path]
    assert bad == [path for path in paths if "absent" in path]


def test_evaluate_records_the_engine(
    finished: plusx.Run, photos: Path, command: Callable[..., Any]
) -> None:
    plain = json.loads(command("evaluate", finished.path, photos, "--json").out)
    other = json.loads(
        command("evaluate", finished.path, photos, "--json", "--engine", "openvino").out
    )
    assert plain["engine"] == {"name": "torch", "precision": "float32"}
    assert other["engine"] == {"name": "openvino", "precision": "float32"}
    assert plain["figures"].keys() == other["figures"].keys()
    for name, figure in plain["figures"].items():
        if figure is None:
            assert other["figures"][name] is None
        else:
            assert other["figures"][name] == pytest.approx(figure, rel=1e-4, abs=1e-5), name
