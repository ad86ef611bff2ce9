"""``plusx study refinement``: one pass, its pieces, and what they say together."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plusx.errors import DataError, UsageError
from plusx.jobs.study_pieces import Crew, Pieces, work_off
from plusx.jobs.talk import Talk
from plusx.science import refinement
from plusx.science.ledger import Key, Ledger
from plusx.science.refinement import Floats, Probing, Stop
from plusx.science.refinement_exit import Right
from plusx.science.refinement_steps import steps
from plusx.science.refinement_summary import Refined, Steps, summary
from plusx.science.result import Result
from plusx.science.subject import Asked, Images, Subject, identity, opened, subset


def study_refinement(
    asked: Sequence[Asked],
    folder: Path,
    *,
    probing: Probing,
    crew: Crew | None = None,
    talk: Talk | None = None,
) -> Result:
    """Probe every net after each of its blocks; what is finished is kept below ``folder``, the
    features only until all probes are.

    Raises:
        UsageError: a net without blocks, or more images than probes can be judged on.
        DataError: images that cannot be used.
    """
    talk, crew = talk or Talk(), crew or Crew()
    found = []
    for one in asked:
        found.append(_refined(_readable(one), folder, probing=probing, crew=crew, talk=talk))
    return summary(found, probing)


def _readable(asked: Asked) -> Asked:
    """With the data's own classes where the net's head has others: probes do not ask it."""
    try:
        opened(asked)
    except DataError:
        other = replace(asked, match=False)
        opened(other)
        return other
    return asked


def _refined(asked: Asked, folder: Path, *, probing: Probing, crew: Crew, talk: Talk) -> Refined:
    subject, images = opened(asked)
    for note in subject.notes:
        talk.note(note)
    height, width = images.images.shape[2:]
    stops = refinement.stops_of(subject.model, (height, width))
    study = {"study": "refinement", **asdict(probing), **identity(subject, images)}
    name = identity(subject, images)
    features = folder / "features" / f"{name['net'][:12]}-{name['images'][:12]}"
    keys: list[Key] = [{"head": True}, *({"stop": at} for at in range(len(stops)))]
    ledger = Ledger(folder / "pieces", study)
    if any(ledger.get(key) is None for key in keys):
        _pass(subject, images, features, crew=crew, talk=talk)
    if probing.step_images:
        keys.append({"steps": True})
    pieces = Pieces(
        study=study,
        keys=keys,
        costs=[_cost(key, stops, probing) for key in keys],
        label=partial(_label, subject.name, tuple(stop.name for stop in stops)),
        do=partial(_do, asked, probing, features),
    )
    head, *values = work_off(pieces, folder / "pieces", crew, talk)
    shutil.rmtree(features.parent, ignore_errors=True)
    logits = np.stack([_array(text, len(images)) for text in values[: len(stops)]])
    right: Right | None = np.array(head, np.bool_) if asked.match else None
    stepped = _steps(values[-1]) if probing.step_images else {}
    return Refined(subject, images, stops, logits, stepped, right)


def _pass(subject: Subject, images: Images, folder: Path, *, crew: Crew, talk: Talk) -> None:
    """All features of all images, once; the folder is there only when it is whole."""
    if folder.is_dir():
        return
    beside = folder.with_name(f"{folder.name}.{os.getpid()}")
    beside.mkdir(parents=True)
    torch.set_num_threads(crew.threads_each())
    try:
        with talk.phase(f"{subject.name}, one pass", len(images)) as bar:
            refinement.pool_all(subject, images, beside, tick=lambda n: bar(n, ""))
        if not folder.is_dir():
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _do(
    asked: Asked, probing: Probing, features: Path, key: Key, tick: Callable[[int], None]
) -> Any:
    subject, images = opened(asked)
    if "steps" in key:
        some = subset(images, probing.step_images)
        targets = some.targets if asked.match else None
        found = steps(subject.model, some.images, targets, tick=tick)
        return {str(block): [ratio.tolist(), None if cosine is None else cosine.tolist()]
                for block, (ratio, cosine) in found.items()}  # fmt: skip
    if "head" in key:
        last = sorted(features.glob("stop_*.npy"))[-1]
        if not asked.match:
            return []
        with torch.no_grad():
            logits = subject.model.head(torch.from_numpy(np.load(last)))
        return (logits.argmax(1) == images.targets).tolist()
    rows = np.load(features / f"stop_{int(key['stop']):03}.npy", mmap_mode="r")
    try:
        logits = refinement.probe(rows, images, probing)
    except UsageError as error:
        raise UsageError(f"{subject.name}, probe {key['stop']}: {error} (--images N)") from error
    tick(0)
    return base64.b64encode(logits.astype(np.float32).tobytes()).decode()


def _array(text: str, n: int) -> Floats:
    found: Floats = np.frombuffer(base64.b64decode(text), np.float32).reshape(n, -1)
    return found


def _steps(value: Mapping[str, Any]) -> Steps:
    return {
        int(block): (np.array(ratio), None if cosine is None else np.array(cosine))
        for block, (ratio, cosine) in value.items()
    }


def _cost(key: Key, stops: Sequence[Stop], probing: Probing) -> int:
    """About in milliseconds on a core for a few hundred images; for the bar's time left."""
    if "steps" in key:
        return 1 + probing.step_images * stops[-1].macs // 10**7
    return 1 if "head" in key else 200 + stops[int(key["stop"])].features


def _label(name: str, stops: Sequence[str], key: Key) -> str:
    if "steps" in key:
        return f"{name}, steps against gradients"
    return f"{name}, its own head" if "head" in key else f"{name}, probe after {stops[key['stop']]}"
