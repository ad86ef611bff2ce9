"""Exported files are explained through the run they were made from, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plusx import Run
from plusx.errors import ArtifactError, UsageError
from plusx.export import TARGETS
from plusx.jobs.explain import Explainer
from plusx.jobs.export import Exported
from plusx.weights import load_artifact, write_decision

Files = Callable[[str, str], Exported]


def put(done: Exported, folder: Path) -> Path:
    """A copy of an exported file below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in done.files[:-1]:
        shutil.copy(one, folder)
    return folder / Path(done.path).name


@pytest.mark.parametrize("to", list(TARGETS))
def test_through_the_run_it_lies_in(
    exported: Files, finished: Run, photos: Path, tmp_path: Path, to: str
) -> None:
    """Also where both were moved; and the same map, answer and neighbours as for the run."""
    moved = tmp_path / "moved"
    shutil.copytree(finished.path, moved)
    file = put(exported(to, "fp32"), moved / "export")
    image = photos / "val" / "across" / "001.png"
    wanted = Explainer(finished.path, device="cpu").explain(image)
    found = Explainer(file, device="cpu").explain(image)
    assert (found.label, found.neighbours) == (wanted.label, wanted.neighbours)
    assert found.neighbours
    assert found.probability == pytest.approx(wanted.probability, abs=1e-6)
    np.testing.assert_array_equal(found.overlay, wanted.overlay)
    # The file keeps its temperature where the run was calibrated anew.
    artifact = load_artifact(moved)
    write_decision(moved / "model", replace(artifact.decision, temperature=3.0))
    again = Explainer(file, device="cpu", neighbours=0).explain(image)
    assert again.probability == pytest.approx(wanted.probability, abs=1e-6)
    assert Explainer(moved, device="cpu").explain(image).probability != again.probability


def test_elsewhere_it_asks_for_the_run(
    exported: Files, finished: Run, tiny_weights: Path, photos: Path, tmp_path: Path, command: Any
) -> None:
    done = exported("torch", "fp32")
    file, image = put(done, tmp_path), photos / "val" / "across" / "001.png"
    sha = load_artifact(finished.path).sha256[:12]
    for words in ((), ("--parent", tmp_path)):
        said = command("explain", file, image, *words)
        assert said.code == 2
        assert "give --parent RUN" in said.error
        assert sha in said.error
    other = command("explain", file, image, "--parent", tiny_weights)
    assert "its model is another one" in other.error
    assert sha in other.error
    assert load_artifact(tiny_weights).sha256[:12] in other.error
    given = command("explain", file, image, "--parent", finished.path, "--json",
                    "--out", tmp_path / "maps")  # fmt: skip
    assert given.code == 0, given.err
    line = json.loads(given.out)
    assert Path(line["picture"]).is_file()
    assert line["neighbours"]
    alone = Explainer(file, device="cpu", parent=finished.model_path)
    assert (alone.kept, alone.classes) == (0, load_artifact(finished.path).classes)
    assert "is for exported files" in command(
        "explain", finished.path, image, "--parent", finished.path
    ).error  # fmt: skip


def test_an_edited_file_is_not_explained(exported: Files, finished: Run, tmp_path: Path) -> None:
    file = put(exported("torch", "fp32"), tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"as plusx wrote it|cannot be read"):
        Explainer(file, parent=finished.path)
    with pytest.raises(ArtifactError, match="is not there"):
        Explainer(tmp_path / "gone.onnx", parent=finished.path)
    with pytest.raises(UsageError, match="is for exported files"):
        Explainer(finished.path, parent=finished.path)
