from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

import plusx
from plusx import Predictor, Run
from plusx.data import BadImage, Sample, read_image, read_listing
from plusx.errors import ArtifactError, DataError, UnreadableImage, UsageError
from plusx.predict import Prediction
from plusx.weights import load_artifact


def test_probabilities_are_the_softmax_of_the_models_tempered_logits(
    finished: Run, photos: Path
) -> None:
    path = next((photos / "val" / "across").iterdir())
    answer = plusx.load(finished.path).predict(path)
    assert isinstance(answer, Prediction)
    artifact = load_artifact(finished.path)
    image = artifact.preprocessing(torch.from_numpy(read_image(path)))
    with torch.inference_mode():
        logits = artifact.decision.temper(artifact.model(image[None]).numpy())
    wanted = torch.from_numpy(logits).softmax(1)[0].numpy()
    np.testing.assert_allclose(answer.probabilities, wanted, atol=1e-5)
    assert answer.label == answer.classes[int(wanted.argmax())]
    assert answer.top(9) == sorted(answer.top(9), key=lambda pair: -pair[1])
    assert answer.top(1) == [(answer.label, answer.probability)]


def test_the_python_example_of_the_model_card_runs(finished: Run, photos: Path) -> None:
    card = (finished.model_path / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(import plusx\n.*?)\n```", card, re.DOTALL)
    assert example is not None
    image = next((photos / "val" / "across").iterdir()).as_posix()
    *lines, last = example[1].splitlines()
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    last = last.replace("MODEL", finished.model_path.as_posix()).replace("photo.jpg", image)
    assert isinstance(eval(last, names), Prediction)


def test_one_file_gives_one_answer_and_all_else_a_list(finished: Run, photos: Path) -> None:
    folder = photos / "val" / "across"
    assert isinstance(finished.predict(folder / "000.png"), Prediction)
    assert len(finished.predict([folder / "000.png"])) == 1  # type: ignore[arg-type]
    whole = finished.predict(folder)
    matched = finished.predict(str(folder / "*.png"))
    assert isinstance(whole, list)
    assert isinstance(matched, list)
    assert [a.path for a in whole] == [a.path for a in matched]
    assert [Path(a.path).name for a in whole] == sorted(p.name for p in folder.iterdir())


def test_an_endless_source_is_answered_as_it_comes(finished: Run, photos: Path) -> None:
    image = str(next((photos / "val" / "across").iterdir()))
    drawn = 0

    def endless() -> Iterator[Sample]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Sample(image, None)

    predictor = Predictor(finished.path, batch_size=4, threads=2)
    answers = predictor.stream(endless())
    assert len(list(islice(answers, 10))) == 10
    assert drawn <= 40
    answers.close()  # type: ignore[attr-defined]


def test_bad_images_are_told_apart_and_shift_nothing(
    finished: Run, photos: Path, tmp_path: Path
) -> None:
    good = sorted((photos / "val" / "across").iterdir())[:5]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good[0].read_bytes()[:60])
    mixed = [good[0], broken, good[1], good[2], broken, good[3], good[4]]
    predictor = Predictor(finished.path, batch_size=3)
    answers = list(predictor.stream(Sample(str(path), None) for path in mixed))
    alone = [predictor.predict(path) for path in good]
    found = [a for a in answers if isinstance(a, Prediction)]
    assert [a.path for a in found] == [str(path) for path in good]
    for one, other in zip(found, alone, strict=True):
        assert isinstance(other, Prediction)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
    assert [a.path for a in answers if isinstance(a, BadImage)] == [str(broken)] * 2
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        predictor.predict([good[0], broken])


def test_labelled_images_keep_target_and_path_together(
    finished: Run, photos: Path, tmp_path: Path
) -> None:
    listing = read_listing(photos)
    samples = list(listing.part("val")[::3])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    samples.insert(2, Sample(str(broken), 1))
    predictions, bad = Predictor(finished.path, batch_size=4).predictions(samples)
    kept = [sample for sample in samples if sample.path != str(broken)]
    assert predictions.paths == tuple(sample.path for sample in kept)
    assert predictions.targets.tolist() == [sample.target for sample in kept]
    assert [item.path for item in bad] == [str(broken)]
    with pytest.raises(DataError, match="none of the 1 images"):
        Predictor(finished.path).predictions([Sample(str(broken), 0)])


def test_how_it_is_computed_changes_nothing(finished: Run, photos: Path) -> None:
    samples = read_listing(photos).part("val")
    usual, _ = Predictor(finished.path).predictions(samples)
    for how in ({"batch_size": 1}, {"batch_size": 7, "threads": 3}):
        other, _ = Predictor(finished.path, **how).predictions(samples)  # type: ignore[arg-type]
        np.testing.assert_allclose(other.logits, usual.logits, rtol=1e-4, atol=1e-4)
    fast, _ = Predictor(finished.path, precision="bfloat16").predictions(samples)
    assert (fast.predicted == usual.predicted).mean() > 0.9


def test_clear_errors(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model there"):
        Predictor(tmp_path)
    with pytest.raises(ArtifactError, match="is no run of plusx"):
        plusx.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="does not exist"):
        finished.predict(tmp_path / "no.png")
    with pytest.raises(UsageError, match="--precision 'int8'"):
        Predictor(finished.path, precision="int8")
    with pytest.raises(UsageError, match="--device 'abacus'"):
        Predictor(finished.path, device="abacus")


def test_a_damaged_metrics_file_is_named(finished: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    (copy / "metrics.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"metrics\.json: is damaged"):
        plusx.load(copy)
    (copy / "metrics.json").unlink()
    assert plusx.load(copy).top1 is None
