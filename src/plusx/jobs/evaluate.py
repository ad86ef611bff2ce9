"""``plusx evaluate``: what a run is worth on labelled images. It never changes the run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plusx._version import __version__
from plusx.data import BadImage, Preprocessing, Sample, align, read_listing
from plusx.decide import Decision
from plusx.errors import UsageError
from plusx.evaluate import SCHEMA_VERSION, Evaluation, Predictions, to_json
from plusx.evaluate import evaluate as figures
from plusx.evaluate.deciding import worth
from plusx.evaluate.one_against_rest import Held
from plusx.evaluate.slices import Slice
from plusx.jobs.costs import Costs, read_costs, weigh
from plusx.jobs.robustness import Robustness, robustness
from plusx.jobs.slicing import named, sliced
from plusx.jobs.talk import Talk
from plusx.jobs.views import Viewer, Way, check_crops, check_views
from plusx.predict import Predictor
from plusx.runtime import cpu_count

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Also:
    """What to find out beside the figures; by default nothing.

    Attributes:
        held: specificities and sensitivities to tell the other one at.
        costs: a CSV file of costs (see ``plusx.jobs.costs.read_costs``).
        slice_by: columns of the data, or size, brightness, sharpness.
        robustness: harm at most so many images; 0 for none.
        tta: average over views: ``mirror`` or ``five``; empty for no such thing.
        crop: ways to compare: ``centre``, ``squish``, ``pad``.
        seed: of the harm and of which images.

    Raises:
        UsageError: a number is negative, or a name unknown.
    """

    held: Held = field(default_factory=Held)
    costs: PathLike | None = None
    slice_by: tuple[str, ...] = ()
    robustness: int = 0
    tta: str = ""
    crop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.robustness < 0:
            raise UsageError(f"robustness {self.robustness} must be a number of images")
        if self.tta:
            check_views(self.tta)
        check_crops(self.crop)


@dataclass(frozen=True)
class Running:
    """How the network is run; see ``plusx.predict.Predictor``.

    Attributes:
        engine: ``torch``, ``onnxruntime``, ``openvino`` or ``auto``; None for torch, and for an
            exported file ``auto``.
        precision: ``float32``, ``bfloat16``, ``float16`` or ``auto``; None for float32, and for an
            exported file what it holds.
        batch_size: images per forward; by default 8 on a CPU, else 64.
        threads: for decoding.
    """

    engine: str | None = None
    precision: str | None = None
    batch_size: int | None = None
    threads: int | None = None


_NOTHING, _USUAL = Also(), Running()


@dataclass(frozen=True, eq=False)
class Result:
    """One evaluation; what ``Also`` did not ask for is None or empty.

    Attributes:
        evaluation: figures with intervals, per class, confusion.
        predictions: what they were computed from.
        bad: images that could not be read, left out.
        split: which images: ``test``, ``val``, ``train`` or ``all``.
        engine: what ran the network, ``name`` and ``precision``.
        decision: what the run's decisions are worth on these images (``plusx.evaluate.deciding``),
            taken for images of its classes; None for task multi.
        costs: of deciding by a cost matrix.
        slices: worst first.
        robustness: under harm.
        tta: averaged over views.
        crops: best first; they are compared on these images, which so choose among them.
    """

    evaluation: Evaluation
    predictions: Predictions
    bad: tuple[BadImage, ...]
    split: str
    engine: dict[str, str]
    decision: dict[str, Any] | None = None
    costs: Costs | None = None
    slices: tuple[Slice, ...] | None = None
    robustness: Robustness | None = None
    tta: Way | None = None
    crops: tuple[Way, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it; same schema as an entry of ``metrics.json``."""
        found = to_json(self.evaluation, split=self.split, role="report")
        bad = [{"path": item.path, "reason": item.reason} for item in self.bad]
        about = {"schema_version": SCHEMA_VERSION, "plusx_version": __version__}
        found |= {"engine": self.engine, "decision": self.decision, "bad_images": bad}
        if self.costs is not None:
            found["costs"] = self.costs.to_json()
        if self.slices is not None:
            found["slices"] = [one.to_json() for one in self.slices]
        if self.robustness is not None:
            found["robustness"] = self.robustness.to_json()
        if self.tta is not None:
            found["tta"] = self.tta.to_json() | {"role": "selection"}
        if self.crops:
            found["crops"] = [way.to_json() | {"role": "selection"} for way in self.crops]
        return {**about, **found}


def evaluate(
    run: PathLike,
    data: PathLike,
    *,
    split: str | None = None,
    device: str = "auto",
    running: Running = _USUAL,
    also: Also = _NOTHING,
    talk: Talk | None = None,
) -> Result:
    """Score a run on labelled images; classes are matched by name.

    Args:
        run: a run folder, a model folder, or an exported file. Of an exported file unknown images
            are not judged, because it does not hold the features to do so.
        data: a folder of class folders (with or without splits), a CSV or Parquet file, or a data
            set that Hugging Face datasets saved.
        split: ``train``, ``val``, ``test`` or ``all``; by default ``test`` where the data has
            one, else ``val``, else all.
        device: where to run.
        running: the engine, its precision, batch size and threads.
        also: what to find out beside the figures.
        talk: where progress is said.

    Raises:
        DataError: a class of the data is unknown to the model; both sides are listed.
        UsageError: the split is not in the data.
    """
    talk = talk or Talk()
    predictor = Predictor(run, device=device, **vars(running))
    costs = None if also.costs is None else read_costs(also.costs, predictor.classes)
    if predictor.task == "multi":
        _refuse_multi(also)
    beside = named(also.slice_by)
    given = read_listing(data, training=False, task=predictor.task, beside=beside)
    if given.unlabelled:
        talk.note(f"images left out because they have no label yet: {given.unlabelled}")
    listing, absent = align(given, predictor.classes)
    if absent:
        shown = ", ".join(absent[:5]) + (" ..." if len(absent) > 5 else "")
        talk.note(f"{len(absent)} of the model's classes are absent from the data: {shown}")
    present = {sample.split for sample in listing.samples}
    if split is None:
        split = next((name for name in ("test", "val") if name in present), "all")
        if split != "all":
            talk.note(f"the data has splits: scoring {split} (--split to choose another)")
    samples = listing.samples if split == "all" else listing.part(split)
    if not samples:
        known = ", ".join(sorted(str(name) for name in present)) if present != {None} else "none"
        raise UsageError(f"--split {split!r}: not in the data; it has: {known}; or --split all")
    decider = _judged(predictor, talk)
    with talk.phase("scoring", len(samples)) as tick:
        predictions, bad = predictor.predictions(
            samples,
            features=decider.unknown is not None,
            tick=lambda n: tick(n, ""),
        )
    for line in (*predictor.notes, *predictor.remarks.lines()):
        talk.note(line)
    single = predictions.task == "single"
    decision = worth([(decider, predictions)]) if single else None
    predictions = replace(predictions, features=None)
    engine = {"name": predictor.engine.name, "precision": predictor.engine.precision}
    result = Result(
        figures(predictions, held=also.held), predictions, tuple(bad), split, engine, decision
    )
    if costs is not None:
        result = replace(result, costs=weigh(predictions, costs))
    if also.slice_by:
        found = sliced(predictions, data, also.slice_by, predictor.preprocessing,
                       processes=running.threads or cpu_count(), talk=talk)  # fmt: skip
        result = replace(result, slices=tuple(found))
    return _shown(result, predictor, predictor.preprocessing, samples, also=also, talk=talk)


def _judged(predictor: Predictor, talk: Talk) -> Decision:
    """The decision whose worth is told."""
    decision = predictor.decision
    if decision.unknown is None or decision.unknown.bank is not None:
        return decision
    talk.note("unknown images are not judged: an exported file does not hold what that needs")
    return replace(decision, unknown=None)


def _shown(
    result: Result,
    predictor: Predictor,
    preprocessing: Preprocessing,
    samples: Sequence[Sample],
    *,
    also: Also,
    talk: Talk,
) -> Result:
    """With what needs images to be read again."""
    if also.tta or also.crop:
        viewer = Viewer(predictor, preprocessing, samples, result.predictions, talk)
        result = replace(
            result,
            tta=viewer.averaged(also.tta) if also.tta else None,
            crops=tuple(viewer.cropped(also.crop)),
        )
    if also.robustness:
        found = robustness(
            predictor, preprocessing, samples, most=also.robustness, seed=also.seed, talk=talk
        )
        result = replace(result, robustness=found)
    return result


def _refuse_multi(also: Also) -> None:
    for option, given in (("--costs", also.costs), ("--slice-by", also.slice_by),
                          ("--tta", also.tta), ("--crop", also.crop)):  # fmt: skip
        if given:
            raise UsageError(
                f"{option} needs one class an image; this model gives an image any number"
            )
