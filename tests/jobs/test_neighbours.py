from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plusx
from plusx import Run
from plusx.data import Sample, read_listing
from plusx.errors import ArtifactError
from plusx.jobs.explain import Explainer
from plusx.jobs.neighbours import FILE, MOST, choose, load_neighbours, make_neighbours


def test_the_nearest_come_first_and_the_image_itself_is_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 8)).astype(np.float32) * 50
    samples = [Sample(str(tmp_path / "a" / f"{i}.jpg"), i % 2) for i in range(300)]
    kept = make_neighbours(features, samples, ["ants", "bees"], str(tmp_path))
    kept.save(tmp_path / FILE)
    found = load_neighbours(tmp_path)
    assert found is not None
    assert found.features.dtype == np.float16
    assert found.paths[7] == "a/7.jpg"
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit[7]
    expected = [i for i in np.argsort(-cosine).tolist() if i != 7][:4]
    nearest = found.nearest(features[7] * 3, 4, path=samples[7].path)
    assert [one.path for one in nearest] == [samples[i].path for i in expected]
    assert [one.label for one in nearest] == [["ants", "bees"][i % 2] for i in expected]
    assert [one.similarity for one in nearest] == pytest.approx(cosine[expected], abs=2e-3)
    assert found.nearest(features[7], 1)[0].path == samples[7].path
    with pytest.raises(ArtifactError, match="holds 8 features an image, the model gives 5"):
        found.nearest(features[7, :5])


def test_of_many_images_a_choice_is_kept() -> None:
    assert choose(5, seed=0).tolist() == [0, 1, 2, 3, 4]
    kept = choose(MOST + 500, seed=1)
    assert len(np.unique(kept)) == MOST
    assert (np.diff(kept) > 0).all()
    assert kept.tolist() != choose(MOST + 500, seed=2).tolist()


def test_names_that_are_no_utf8_and_several_labels_survive(tmp_path: Path) -> None:
    samples = [Sample(f"{tmp_path}/\udcff.jpg", (0, 1)), Sample("/elsewhere/b.jpg", ())]
    kept = make_neighbours(np.eye(2), samples, ["ants", "caf\xe9"], str(tmp_path))
    kept.save(tmp_path / FILE)
    found = load_neighbours(tmp_path)
    assert found is not None
    assert found.paths == ("\udcff.jpg", "/elsewhere/b.jpg")
    assert found.labels == ("ants;caf\xe9", "")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not it", b"\x00" * 50])
def test_a_damaged_file_is_said(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / FILE).write_bytes(damage)
    with pytest.raises(ArtifactError, match=r"neighbours\.npz: is damaged"):
        load_neighbours(tmp_path)


def test_a_run_keeps_what_its_network_sees(finished: Run, photos: Path) -> None:
    kept = load_neighbours(finished.path)
    assert kept is not None
    train = [s for s in read_listing(photos).samples if s.split == "train"]
    assert len(kept) == kept.images == len(train)
    explainer = Explainer(finished.path, neighbours=3)
    for sample in train[:3]:  # under the network that ships, an image is like itself
        own = kept.paths.index(Path(sample.path).relative_to(photos).as_posix())
        found = explainer.explain(sample.path)
        assert os.path.realpath(sample.path) not in [
            os.path.realpath(one.path) for one in found.neighbours
        ]
        moved = photos.parent / "copy.png"
        shutil.copy(sample.path, moved)
        first = explainer.explain(moved).neighbours[0]
        assert first.path == os.path.normpath(Path(kept.root, kept.paths[own]))
        assert first.similarity > 0.999


def test_the_command_names_them_and_a_run_can_do_without(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any],
    command: Callable[..., Any]
) -> None:  # fmt: skip
    options = quick | {"unfreeze": 0}
    run = plusx.train(photos, weights=tiny_weights, out=tmp_path / "run", **options)
    picture = photos / "val" / "upright" / "000.png"
    said = command("explain", run.path, picture, "--out", tmp_path / "maps", "--json",
                   "--neighbours", 2)  # fmt: skip
    line = json.loads(said.out)
    assert [set(one) for one in line["neighbours"]] == [{"path", "label", "similarity"}] * 2
    assert all(Path(one["path"]).is_file() for one in line["neighbours"])
    assert "training images" in (run.path / "train.log").read_text()
    bare = plusx.train(photos, weights=tiny_weights, out=tmp_path / "bare", neighbours=False,
                       **options)  # fmt: skip
    assert not (bare.path / FILE).exists()
    said = command("explain", bare.path, picture, "--out", tmp_path / "maps")
    assert said.code == 0
    assert "kept no training images" in said.err
    assert "no neighbours.npz" in bare.report_path.read_text()
