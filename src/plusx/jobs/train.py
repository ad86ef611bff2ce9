"""``plusx train``: from a folder of images to a run."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx._version import __version__
from plusx.data import folds, split_listing
from plusx.errors import ArtifactError, UsageError
from plusx.evaluate import Predictions
from plusx.evaluate.selection import figure_then_nll
from plusx.evaluate.wish import Wish
from plusx.jobs.assess import HEADLINE, Evaluation, assess, entry, metrics
from plusx.jobs.auditing import auditor, finish_audit
from plusx.jobs.card import model_card
from plusx.jobs.decision import decide, score
from plusx.jobs.fitting import Fitted, fit
from plusx.jobs.material import Material, gather
from plusx.jobs.neighbours import keep_neighbours
from plusx.jobs.options import TrainOptions
from plusx.jobs.report import write_report
from plusx.jobs.run import Run, check_free, read_config, run_folder, write_config, write_json
from plusx.jobs.setup import Setup, prepare
from plusx.jobs.talk import Talk
from plusx.runtime import seed_everything
from plusx.weights import architecture, save_artifact, title, write_card


def train(data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any) -> Run:
    """Train a classifier on a folder of images.

    Args:
        data: ``train/val[/test]/<class>/``, ``<class>/``, or a CSV or Parquet file
            ``path,label[,split][,group]``, where ``a;b`` are several labels, or a data set that
            Hugging Face datasets saved.
        talk: where progress is said; by default stderr.
        **options: see ``TrainOptions``.

    Returns:
        The run; ``run.path`` is its folder.

    Raises:
        PlusxError: one clear line; an existing run is never lost.
    """
    return _train(TrainOptions.of(data, **options), talk or Talk())


def resume(run: str | os.PathLike[str], *, talk: Talk | None = None) -> Run:
    """Go on with an interrupted run from its last whole epoch.

    What was resolved when it began (precision, revision of the weights) stays.

    Raises:
        PlusxError: the folder is no training run, or its data or weights cannot be used any more.
    """
    if not (Path(run) / "config.toml").is_file() or not os.fspath(run):
        raise UsageError(
            f"--resume {os.fspath(run)!r}: is no run (it has no config.toml); give the folder "
            "that plusx train made"
        )
    config = read_config(Path(run) / "config.toml")
    if "asked" not in config:
        raise UsageError(f"--resume {run}: is no training run (its config.toml says not how)")
    needed = {"asked": "data", "hardware": "precision", "network": "weights"}
    if lacking := [f"{table}.{key}" for table, key in needed.items()
                   if key not in config.get(table, {})]:  # fmt: skip
        raise ArtifactError(f"{run}/config.toml: is damaged: lacks {', '.join(lacking)}")
    asked = config["asked"] | {"out": os.fspath(run), "precision": config["hardware"]["precision"]}
    if (views := config.get("cache", {}).get("views")) is not None:
        asked |= {"views": views} if views else {"cache_gib": 0.0}
    if config["network"]["weights"].startswith("hub:"):
        asked["weights"] = config["network"]["weights"].removeprefix("hub:")
    return _train(TrainOptions.of(**asked), talk or Talk(), began=config)


def _train(options: TrainOptions, talk: Talk, began: dict[str, Any] | None = None) -> Run:
    if began is None:
        check_free(options.out, overwrite=options.overwrite)
    seed_everything(options.seed)
    setup = prepare(options, talk, examine=auditor(options, talk))
    if began is not None and began["network"].get("sha256") != setup.network.sha256:
        raise UsageError(
            f"--resume {options.out}: {options.weights} are not the weights that the run began with"
        )
    out, overwrite, again = options.out, options.overwrite, began is not None
    with run_folder(out, options.data, overwrite=overwrite, resume=again) as folder:
        talk.log_to(folder / "train.log")
        _write_config(setup, folder)
        cache = folder / "cache"
        cache.mkdir(exist_ok=True)
        try:
            _run(setup, folder, cache, talk)
        except BaseException:
            if (folder / "checkpoints" / "last.pt").exists() and not options.overwrite:
                talk.say(f"to go on from the last whole epoch: plusx train --resume {folder}")
            raise
        finally:
            shutil.rmtree(cache, ignore_errors=True)
        return Run(folder)


def _write_config(setup: Setup, folder: Path, **more: dict[str, object]) -> None:
    write_config(folder / "config.toml", setup.tables() | more | {"versions": versions()})


def _run(setup: Setup, folder: Path, cache: Path, talk: Talk) -> None:
    material = gather(setup, cache, talk)
    finish_audit(setup, material, folder, talk)
    cached = material.about
    _write_config(setup, folder, cache=cached)
    out_of_fold = _folds(setup, material, folder, talk) if setup.options.folds else []
    fitted = fit(setup, material, setup.listing, folder, talk)
    if fitted.recipe != setup.recipe:
        _write_config(replace(setup, recipe=fitted.recipe), folder, cache=cached)
    _save(setup, fitted, folder)
    evaluations = out_of_fold + assess(setup, material, fitted, folder, talk)
    if setup.options.neighbours:
        keep_neighbours(setup, material, fitted, folder, talk)
    found = metrics(setup, fitted, evaluations, material, talk)
    write_json(folder / "metrics.json", found)
    write_card(folder / "model", _card(setup, fitted, found, folder.name))
    write_report(folder)


def _card(setup: Setup, fitted: Fitted, found: dict[str, Any], name: str) -> str:
    return model_card(
        classes=setup.listing.classes,
        task=setup.listing.task,
        provenance=_provenance(setup, fitted),
        name=name,
        architecture=architecture(fitted.model.spec),
        kind=title(fitted.model.spec),
        metrics=found,
    )


def versions() -> dict[str, str]:
    """What the run was made with."""
    return {
        "plusx": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "command": " ".join(sys.argv),
    }


def _provenance(setup: Setup, fitted: Fitted) -> dict[str, Any]:
    return {
        "weights": setup.network.origin,
        "weights_sha256": setup.network.sha256,
        "ships": fitted.ships,
        "trained_blocks": "all" if setup.unfreeze is None else setup.unfreeze,
        "seed": setup.recipe.seed,
        "data": Path(setup.listing.root).name,
    }


def _save(setup: Setup, fitted: Fitted, folder: Path) -> None:
    save_artifact(
        folder / "model",
        fitted.model,
        classes=setup.listing.classes,
        preprocessing=setup.preprocessing,
        task=setup.listing.task,
        provenance=_provenance(setup, fitted),
        card="",
    )


def _folds(setup: Setup, material: Material, folder: Path, talk: Talk) -> list[Evaluation]:
    """Train once per fold; every image is predicted by a training that never saw it."""
    unreadable = {item.path for item in material.bad}
    samples = [
        replace(s, split="unused" if s.split == "test" or s.path in unreadable else "train")
        for s in setup.listing.samples
    ]
    usable = [i for i, s in enumerate(samples) if s.split == "train"]
    pool = replace(setup.listing, samples=tuple(samples[i] for i in usable))
    judged: list[Predictions] = []
    for k, part in enumerate(folds(pool, setup.options.folds, seed=setup.options.seed)):
        talk.say(f"fold {k + 1} of {setup.options.folds}")
        turned = list(samples)
        for i in part:
            turned[usable[i]] = replace(turned[usable[i]], split="test")
        listing = split_listing(
            replace(setup.listing, samples=tuple(turned)),
            seed=setup.options.seed,
            val_fraction=setup.options.val_fraction,
        )
        fold = folder / "folds" / str(k + 1)
        fold.mkdir(parents=True, exist_ok=True)
        fitted = fit(setup, material, listing, fold, talk)
        _save(setup, fitted, fold)
        chose = [listing.samples[p] for p in fitted.positions["val"]]
        raw = score(setup, fold / "model", chose, f"scoring val of fold {k + 1}", talk)
        wish = Wish(sets=None, unknown=None)
        decide(fold / "model", raw, wish, seed=setup.recipe.seed, talk=talk)
        held = [listing.samples[p] for p in fitted.positions["test"]]
        judged.append(score(setup, fold / "model", held, f"scoring fold {k + 1}", talk))
        shutil.rmtree(fold / "model")
        shutil.rmtree(fold / "checkpoints", ignore_errors=True)
    by_fold = [figure_then_nll(p)[0] for p in judged]
    method = (
        f"{len(judged)} trainings, each image predicted by the one that never saw it "
        f"(spread between folds {np.std(by_fold, ddof=1):.4f})"
    )
    pooled = Predictions.concat(judged)
    found = entry(pooled, folder, ("out of fold", "report"), method, "out-of-fold")
    return [found | {f"{HEADLINE[pooled.task]}_by_fold": by_fold}]
