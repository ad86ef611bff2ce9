from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from plusx import Run
from plusx.errors import UsageError
from plusx.jobs.explain import Explainer


def test_a_folder_is_explained_and_a_broken_file_named(
    finished: Run, photos: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    new = tmp_path / "new"
    for side in ("a", "b"):
        (new / side).mkdir(parents=True)
        with Image.open(photos / "val" / "across" / "000.png") as picture:
            picture.resize((90, 60)).save(new / side / "same name.png")
    (new / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    out = tmp_path / "maps"
    said = command("explain", finished.path, new, "--out", out, "--json")
    assert said.code == 1
    assert said.err.count("unreadable") == 1
    assert "broken.jpg" in said.err
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert [Path(line["path"]).parent.name for line in lines] == ["a", "b"]
    assert len({line["picture"] for line in lines}) == 2
    answer = finished.predict(new / "a" / "same name.png")
    for line in lines:
        assert line["class"] == line["predicted"] == answer.label
        assert line["probability"] == pytest.approx(answer.probability, abs=1e-4)
        with Image.open(line["picture"]) as painted:
            assert painted.size == (90, 60)


def test_another_class_gives_another_map(finished: Run, photos: Path) -> None:
    explainer = Explainer(finished.path)
    path = photos / "val" / "across" / "001.png"
    one, other = (explainer.explain(path, name) for name in explainer.classes)
    assert one.probability + other.probability == pytest.approx(1)
    assert one.predicted == other.predicted
    assert not np.allclose(np.nan_to_num(one.heat), np.nan_to_num(other.heat))
    with pytest.raises(UsageError, match="--class 'zebra' is no class of the model; it knows"):
        explainer.explain(path, "zebra")
