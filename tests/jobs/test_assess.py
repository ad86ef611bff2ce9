"""Each half of validation is judged by what the other half chose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx import Predictions
from plusx.data import read_image
from plusx.evaluate.calibration import fit_temperature
from plusx.jobs.assess import assess
from plusx.jobs.beginning import Fitted
from plusx.jobs.fitting import fit
from plusx.jobs.material import Material, gather
from plusx.jobs.options import TrainOptions
from plusx.jobs.setup import Setup, prepare
from plusx.jobs.talk import Talk
from plusx.weights import save_artifact


def trained(
    data: Path, weights: Path, folder: Path, **options: Any
) -> tuple[Setup, Material, Fitted]:
    talk = Talk(quiet=True)
    setup = prepare(TrainOptions.of(data, weights=weights, **options), talk)
    cache = folder / "cache"
    cache.mkdir(parents=True)
    material = gather(setup, cache, talk)
    fitted = fit(setup, material, setup.listing, folder, talk)
    save_artifact(folder / "model", fitted.model, classes=setup.listing.classes,
                  preprocessing=setup.preprocessing, provenance={}, card="")  # fmt: skip
    return setup, material, fitted


def direct(setup: Setup, fitted: Fitted, paths: list[str]) -> np.ndarray:
    images = [setup.preprocessing(torch.from_numpy(read_image(path))) for path in paths]
    with torch.inference_mode():
        logits: np.ndarray = fitted.model.eval()(torch.stack(images)).numpy()
    return logits


def test_halves_are_swapped(
    make_stripes: Callable[..., Path], tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    counts = {"train/across": 24, "train/upright": 24, "val/across": 12, "val/upright": 12}
    for seed in range(12):  # until the halves disagree about the best epoch
        run = tmp_path / f"run{seed}"
        data = make_stripes(tmp_path / f"data{seed}", counts, seed=seed, contrast=25)
        setup, material, fitted = trained(data, tiny_weights, run, **quick)
        assert fitted.choice is not None
        best, *halves = fitted.choice.winners
        if halves[0].epoch != halves[1].epoch:
            break
    assert halves[0].epoch != halves[1].epoch
    found = assess(setup, material, fitted, run, Talk(quiet=True))
    entry = next(e for e in found if (e["split"], e["role"]) == ("val", "report"))
    judged = Predictions.load(run / entry["predictions"])
    rows = {path: row for row, path in enumerate(judged.paths)}
    val = [setup.listing.samples[p].path for p in fitted.positions["val"]]
    assert len(rows) == len(judged) == len(val)
    for half, other in ((halves[0], halves[1]), (halves[1], halves[0])):
        paths, theirs = ([val[row] for row in winner.rows] for winner in (half, other))
        fitted.take(other.state)
        labels = {s.path: s.target for s in setup.listing.samples}
        targets = np.array([labels[path] for path in theirs])
        temperature = 1.0  # where the one that ships is 1, as none helped
        if fitted.decision.temperature != 1:
            temperature = fit_temperature(direct(setup, fitted, theirs), targets)
        np.testing.assert_allclose(
            judged.logits[[rows[path] for path in paths]],
            direct(setup, fitted, paths) / temperature, rtol=1e-3, atol=1e-3,
        )  # fmt: skip
    fitted.take(best.state)
    saved = Predictions.load(run / "predictions" / "val.npz")
    assert saved.features is None
    np.testing.assert_allclose(
        saved.logits * fitted.decision.temperature, direct(setup, fitted, list(saved.paths)),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_the_headline_of_a_fine_tuned_network_is_never_the_probes(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    from plusx.jobs.assess import metrics

    setup, material, fitted = trained(photos, tiny_weights, tmp_path / "run", **quick)
    talk = Talk(quiet=True)
    found = assess(setup, material, fitted, tmp_path / "run", talk)
    report = [entry for entry in found if entry["role"] == "report"]
    assert {entry["split"] for entry in report} == {"val", "train+val"}
    assert fitted.ships.startswith("epoch")
    assert metrics(setup, fitted, found, material, talk)["headline"]["split"] == "val"
    of_the_probe = [entry for entry in report if entry["split"] == "train+val"]
    assert metrics(setup, fitted, of_the_probe, material, talk)["headline"] is None
    fitted.choice.best.epoch = 0  # type: ignore[union-attr]
    assert fitted.ships == "probe"
    assert metrics(setup, fitted, found, material, talk)["headline"]["split"] == "train+val"
    selected = [entry for entry in found if entry["role"] == "selection"]
    assert metrics(setup, fitted, selected, material, talk)["headline"] is None


def test_the_cross_validated_probe_weighs_classes_as_the_one_that_ships(
    make_stripes: Callable[..., Path], tiny_weights: Path, tmp_path: Path, quick: dict[str, Any]
) -> None:
    data = make_stripes(tmp_path / "uneven", {"across": 60, "upright": 15}, contrast=8)
    values = []
    for number, weights in enumerate(("balanced", "none")):
        run = tmp_path / f"run{number}"
        setup, material, fitted = trained(
            data, tiny_weights, run, **(quick | {"unfreeze": 0, "class_weights": weights})
        )
        found = assess(setup, material, fitted, run, Talk(quiet=True))
        values.append(next(e for e in found if e["split"] == "train+val")["figures"]["top1"])
    assert values[0] != values[1]


@pytest.mark.parametrize("features", ["plain", "cached"])
def test_the_probe_ships_as_it_was_fitted(
    photos: Path, tiny_weights: Path, tmp_path: Path, quick: dict[str, Any], features: str
) -> None:
    options = quick | ({"unfreeze": 0} if features == "plain" else {"lr": 0.03, "epochs": 1})
    setup, material, fitted = trained(photos, tiny_weights, tmp_path / "run", **options)
    assert fitted.ships == "probe"
    assert fitted.probe is not None
    assert material.first is not None
    rows = fitted.positions["val"]
    paths = [setup.listing.samples[p].path for p in rows]
    np.testing.assert_allclose(
        direct(setup, fitted, paths), fitted.probe.head.logits(material.first.features[rows]),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
