"""``plusx train``: from a folder of images to a run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plusx.data import Listing, folds, split_listing
from plusx.errors import Diverged
from plusx.evaluate import Predictions
from plusx.evaluate.selection import figure_then_nll
from plusx.evaluate.wish import Wish
from plusx.fit.distributed import Processes, joined
from plusx.fit.stop import Stop
from plusx.jobs.assess import HEADLINE, Evaluation, assess, entry, metrics
from plusx.jobs.auditing import auditor, finish_audit
from plusx.jobs.beginning import Fitted
from plusx.jobs.card import model_card
from plusx.jobs.decision import decide, score
from plusx.jobs.fitting import fit
from plusx.jobs.material import Material, gather
from plusx.jobs.neighbours import keep_neighbours
from plusx.jobs.options import TrainOptions
from plusx.jobs.report import write_report
from plusx.jobs.resuming import Began, Config
from plusx.jobs.run import Run, check_free, resumable, run_folder, write_json
from plusx.jobs.setup import Setup, prepare
from plusx.jobs.talk import Talk
from plusx.runtime import seed_everything
from plusx.weights import architecture, save_artifact, title, write_card


def train(data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any) -> Run:
    """Train a classifier on a folder of images.

    Started by a launcher such as torchrun, all processes train it together; the first one tells,
    writes and assesses, and the others return when the training is done, with a run that has no
    metrics.

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
        KeyboardInterrupt: at the first Ctrl-C or SIGTERM, in training after the step in hand.
    """
    with joined(str(options.get("device", "auto"))) as processes:
        return _train(TrainOptions.of(data, **options), _voice(talk, processes), processes)


def resume(run: str | os.PathLike[str], *, force: bool = False, talk: Talk | None = None) -> Run:
    """Go on with an interrupted run from its last checkpoint, to the end it would have had.

    What was resolved when it began stays. A finished run is given back as it is.

    Args:
        run: its folder.
        force: go on though the data or the version of plusx changed.
        talk: where progress is said.

    Raises:
        PlusxError: the folder is no training run, or its data or weights cannot be used any more,
            or changed.
    """
    began = Began.read(run)
    with joined(str(began.asked["device"])) as processes:
        talk = _voice(talk, processes)
        if processes.first_says(began.is_finished):
            talk.say(f"{began.folder}: is finished: there is nothing to go on with")
            return Run(began.folder)
        options = TrainOptions.as_resolved(began.asked)
        with began.threads(processes):
            return _train(options, talk, processes, replace(began, force=force))


def _voice(talk: Talk | None, processes: Processes) -> Talk:
    """One of several processes speaks."""
    if not processes.world.is_main:
        return Talk(quiet=True)
    return talk or Talk()


def _train(
    options: TrainOptions, talk: Talk, processes: Processes, began: Began | None = None
) -> Run:
    main, stop = processes.world.is_main, Stop()
    with stop.listening(quiet=talk.quiet):
        if began is None and main:
            check_free(options.out, overwrite=options.overwrite)
        seed_everything(options.seed)
        with processes.node_first():
            setup = prepare(options, talk, examine=auditor(options, talk), processes=processes)
        setup = replace(setup, stop=stop)
        if began is not None:
            began.check(setup, talk)
        if not main:
            return _help(setup, talk)
        out, overwrite = options.out, options.overwrite
        again = began is not None
        with run_folder(out, options.data, overwrite=overwrite, resume=again) as folder:
            talk.log_to(folder / "train.log")
            config = Config(folder, setup, began)
            config.write()
            processes.first_says(lambda: str(folder.absolute()))
            try:
                _run(setup, folder, config, talk)
            except BaseException as error:
                _say_how_to_go_on(folder, error, options, talk)
                raise
            return Run(folder)


def _say_how_to_go_on(
    folder: Path, error: BaseException, options: TrainOptions, talk: Talk
) -> None:
    if resumable(folder) and not options.overwrite and not isinstance(error, Diverged):
        talk.say(f"to go on: plusx train --resume {folder}")


def _help(setup: Setup, talk: Talk) -> Run:
    """What all processes but the first do: train, and leave the rest to it."""
    folder = Path(setup.hardware.processes.first_says(lambda: ""))
    with _cache(folder, setup.hardware.processes) as cache:
        _fit_all(setup, folder, cache, talk)
    return Run.of_other_process(folder)


@contextmanager
def _cache(folder: Path, processes: Processes) -> Iterator[Path]:
    """A place for what the training can compute anew; on another machine that of such files."""
    rank = processes.world.rank
    cache = folder / "cache"
    if rank and folder.is_dir():
        cache = cache / str(rank)
    elif rank:
        cache = Path(tempfile.mkdtemp(prefix="plusx-"))
    cache.mkdir(parents=True, exist_ok=True)
    try:
        yield cache
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _run(setup: Setup, folder: Path, config: Config, talk: Talk) -> None:
    with _cache(folder, setup.hardware.processes) as cache:
        material, judged, fitted = _fit_all(setup, folder, cache, talk, config)
        config.write(recipe=dataclasses.asdict(fitted.recipe))
        _save(setup, fitted, folder)
        evaluations = _out_of_fold(judged, folder)
        evaluations += assess(setup, material, fitted, folder, talk)
        if setup.options.neighbours:
            keep_neighbours(setup, material, fitted, folder, talk)
        found = metrics(setup, fitted, evaluations, material, talk)
        write_json(folder / "metrics.json", found)
        write_card(folder / "model", _card(setup, fitted, found, folder.name))
        write_report(folder)


def _fit_all(
    setup: Setup, folder: Path, cache: Path, talk: Talk, config: Config | None = None
) -> tuple[Material, list[Predictions], Fitted]:
    """What several processes do alike; ``config`` is of the first one, which also writes."""
    with setup.hardware.processes.node_first():
        material = gather(setup, cache, talk)
    if config is not None:
        config.write(cache=material.about)
        finish_audit(setup, material, folder, talk)
    judged = _folds(setup, material, folder, talk) if setup.options.folds else []
    return material, judged, fit(setup, material, setup.listing, folder, talk)


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


def _folds(setup: Setup, material: Material, folder: Path, talk: Talk) -> list[Predictions]:
    """Train once per fold; every image is predicted by a training that never saw it.

    What a finished fold predicted is kept, so that a resumed run does not train it again.
    """
    unreadable = {item.path for item in material.bad}
    samples = [
        replace(s, split="unused" if s.split == "test" or s.path in unreadable else "train")
        for s in setup.listing.samples
    ]
    usable = [i for i, s in enumerate(samples) if s.split == "train"]
    pool = replace(setup.listing, samples=tuple(samples[i] for i in usable))
    processes = setup.hardware.processes
    judged: list[Predictions] = []
    for k, part in enumerate(folds(pool, setup.options.folds, seed=setup.options.seed)):
        fold = folder / "folds" / str(k + 1)
        if not processes.first_says((fold / "held.npz").is_file):
            talk.say(f"fold {k + 1} of {setup.options.folds}")
            turned = list(samples)
            for i in part:
                turned[usable[i]] = replace(turned[usable[i]], split="test")
            listing = split_listing(
                replace(setup.listing, samples=tuple(turned)),
                seed=setup.options.seed,
                val_fraction=setup.options.val_fraction,
            )
            if processes.world.is_main:
                fold.mkdir(parents=True, exist_ok=True)
            fitted = fit(setup, material, listing, fold, talk)
            if processes.world.is_main:
                _judge_fold(setup, fitted, listing, fold, talk)
        if processes.world.is_main:
            judged.append(Predictions.load(fold / "held.npz"))
            shutil.rmtree(fold / "model", ignore_errors=True)
            shutil.rmtree(fold / "checkpoints", ignore_errors=True)
    return judged


def _judge_fold(setup: Setup, fitted: Fitted, listing: Listing, fold: Path, talk: Talk) -> None:
    """What a fold's training says of the images that it never saw, into ``held.npz``."""
    name = f"fold {fold.name}"
    _save(setup, fitted, fold)
    chose = [listing.samples[p] for p in fitted.positions["val"]]
    raw = score(setup, fold / "model", chose, f"scoring val of {name}", talk)
    wish = Wish(sets=None, unknown=None)
    decide(fold / "model", raw, wish, seed=setup.recipe.seed, talk=talk)
    held = [listing.samples[p] for p in fitted.positions["test"]]
    score(setup, fold / "model", held, f"scoring {name}", talk).save(fold / "held.npz")


def _out_of_fold(judged: list[Predictions], folder: Path) -> list[Evaluation]:
    if not judged:
        return []
    by_fold = [figure_then_nll(p)[0] for p in judged]
    method = (
        f"{len(judged)} trainings, each image predicted by the one that never saw it "
        f"(spread between folds {np.std(by_fold, ddof=1):.4f})"
    )
    pooled = Predictions.concat(judged)
    found = entry(pooled, folder, ("out of fold", "report"), method, "out-of-fold")
    return [found | {f"{HEADLINE[pooled.task]}_by_fold": by_fold}]
