"""``plusx train``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from plusx.cli.options import Background, Bands, Depth, Device, MaxPixels, Range, TrainPrecision

EXAMPLES = """\b
Examples:
  plusx train photos/
  plusx train photos/ --weights bundled
  plusx train list.csv --model resnet18 --unfreeze 4 --out runs/mine
  plusx train photos/ --unfreeze 0 (the probe alone: seconds)
  plusx train photos/ --dry-run
  plusx train photos/ --recipe full --max-time 10m
  plusx train photos/ --find-lr
  plusx train --resume runs/photos-1
"""


def train(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Argument(
            help="Folders [train|val|test/]<class>/, or CSV/Parquet path,label[,split][,group]."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Run folder [default: runs/NAME-N].")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run at --out.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(help="Name, timm:NAME or SPEC.json [default: what the weights are for]."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="auto, bundled, none, a file, a run, or a hub id.")
    ] = "auto",
    unfreeze: Annotated[
        str | None,
        typer.Option(help="Last blocks to fine-tune, or all; 0: probe alone [default: 2]."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="At most [default: by the number of images].")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Start from its values; plusx recipes lists them.")
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="A TOML file of options, above the recipe's.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE: any other number of a recipe (docs/recipes.md)."),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps, instead of --epochs.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    accumulate: Annotated[int, typer.Option(help="Parts in which a step's images run.")] = 1,
    optimizer: Annotated[str, typer.Option(help="adamw, sgd or lamb.")] = "adamw",
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate [default: by optimizer].")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of convolutions and linear layers.")] = 0.05,
    schedule: Annotated[str, typer.Option(help="cosine, step, poly or constant.")] = "cosine",
    warmup: Annotated[
        str, typer.Option(help="Fraction of the steps, '5 epochs' or '400 steps'.")
    ] = "0.1",
    clip: Annotated[float, typer.Option(help="Largest norm of the gradient (0: any).")] = 1.0,
    ema: Annotated[
        float, typer.Option(help="Judge a running average of the weights: decay, such as 0.999.")
    ] = 0.0,
    layer_decay: Annotated[
        float, typer.Option(help="Each block's rate over that of the one after it.")
    ] = 1.0,
    gradual: Annotated[
        int, typer.Option(help="Epochs after which one more block learns (0: all at once).")
    ] = 0,
    drop_path: Annotated[float, typer.Option(help="Stochastic depth: rate at the last block.")] = 0,
    loss: Annotated[str, typer.Option(help="auto, softmax, bce or focal.")] = "auto",
    label_smoothing: Annotated[
        float | None, typer.Option(help="[default: 0.1 from scratch, else 0]")
    ] = None,
    mixup: Annotated[
        float, typer.Option(help="Mix pairs of images: alpha, such as 0.2 (0: don't).")
    ] = 0.0,
    cutmix: Annotated[
        float, typer.Option(help="Cut and paste between images: alpha, such as 1 (0: don't).")
    ] = 0.0,
    policy: Annotated[
        str, typer.Option(help="none, randaugment, trivialaugment or autoaugment.")
    ] = "none",
    train_size: Annotated[
        int | None, typer.Option(help="Pixels of training views [default: --image-size].")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without gain before stopping; 0: never stop.")
    ] = None,
    norm: Annotated[
        str, typer.Option(help="Trainable BatchNorm: auto, train or eval (statistics kept).")
    ] = "auto",
    class_weights: Annotated[str, typer.Option(help="auto, balanced or none.")] = "auto",
    balanced: Annotated[
        bool, typer.Option("--balanced/--unbalanced", help="Draw every class equally often.")
    ] = False,
    max_time: Annotated[
        str | None, typer.Option(help="Of training, such as 10m; the rate falls with it.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A run whose answers are learnt from as well.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Go on from this run, with more images or classes.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="wandb, mlflow or both, besides TensorBoard.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels the network sees [default: that of the weights].")
    ] = None,
    resize_mode: Annotated[
        str | None, typer.Option(help="short, squish or pad [default: that of the weights].")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Of the input: 3 colour, 1 grey [default: of the weights].")
    ] = None,
    bands: Bands = None,
    range: Range = None,
    depth: Depth = "full-range",
    background: Background = "white",
    max_pixels: MaxPixels = None,
    views: Annotated[
        int | None, typer.Option(help="Views cached per training image [default: 4].")
    ] = None,
    cache_gib: Annotated[float, typer.Option(help="Disk for cached activations, at most.")] = 8.0,
    val_fraction: Annotated[
        float, typer.Option(help="Share for validation, where the data names none.")
    ] = 0.2,
    folds: Annotated[
        int, typer.Option(help="Also train K times for out-of-fold figures (0: don't).")
    ] = 0,
    allow_leaks: Annotated[
        bool, typer.Option("--allow-leaks", help="Train though images lie in two splits.")
    ] = False,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails/--no-thumbnails", help="Show images in the report.")
    ] = True,
    decide: Annotated[
        str | None,
        typer.Option(
            help="Promises, such as precision=0.95 or sensitivity:CLASS=0.95 "
            "[default: sets=0.9,unknown=0.05]."
        ),
    ] = None,
    neighbours: Annotated[
        bool,
        typer.Option("--neighbours/--no-neighbours", help="Keep features of training images."),
    ] = True,
    checkpoint_minutes: Annotated[
        float, typer.Option(help="Between checkpoints within an epoch; each epoch ends with one.")
    ] = 5.0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: Device = "auto",
    precision: TrainPrecision = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="Run steps through torch.compile [default: off].")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="For decoding [default: one a core].")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell time, memory and disk; train nothing.")
    ] = False,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Try learning rates, draw a plot; train nothing.")
    ] = False,
    resume: Annotated[str | None, typer.Option(help="Go on with this interrupted run.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on though data or version of plusx changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json's content.")] = False,
) -> None:
    """Train a classifier on a folder of images: a probe on the frozen backbone, then fine-tuning of
    the last residual blocks; leaves a model, honest figures and a report in the run folder."""
    values = dict(locals())
    given = _given(context, values)
    from plusx.errors import UsageError

    if (data is None) == (resume is None):
        raise UsageError("give DATA to train on, or --resume RUN to go on with a run")
    if force and resume is None:
        raise UsageError("--force is of --resume RUN; leave it out")
    from plusx.jobs import train as job
    from plusx.jobs.talk import Talk

    others = ["--dry-run"] * dry_run + ["--find-lr"] * find_lr
    if resume is not None and (changed := _flags(given) + others):
        raise UsageError(f"--resume goes on as the run began; leave out {', '.join(changed)}")
    talk = Talk()
    if dry_run and data is not None:
        _estimate(data, given, talk, as_json)
        return
    if find_lr and data is not None:
        _find_lr(data, given, talk, as_json)
        return
    if resume is not None:
        run = job.resume(resume, force=force, talk=talk)
    else:
        run = job.train(str(data), talk=talk, **given)
    if not run.metrics:  # of several processes, the first one tells
        return
    if as_json:
        print(json.dumps({"run": str(run.path), **run.metrics}, ensure_ascii=False))
        return
    from plusx.cli.words import figure

    headline = run.metrics["headline"]
    print(f"ships:   {run.metrics['chosen']['text']}")
    if headline is not None:
        name = {"top1": "top-1:", "mean_average_precision": "mAP:"}[headline["figure"]]
        print(f"{name:<8} {figure(headline)}  ({headline['method']}, n = {headline['n']})")
    print(f"model:   {run.model_path}")
    print(f"report:  {run.report_path}")
    print(f"next:    plusx predict {run.path} IMAGE...")


def _given(context: typer.Context, values: dict[str, Any]) -> dict[str, Any]:
    """The options of the training that stand on the command line."""
    from plusx.errors import UsageError
    from plusx.jobs.recipes import parse_setting

    own = ("context", "data", "dry_run", "find_lr", "resume", "force", "as_json", "settings")
    given = {
        name: value for name, value in values.items() if name not in own and _stands(context, name)
    }
    if "unfreeze" in given:
        given["unfreeze"] = _unfreeze(given["unfreeze"])
    if "warmup" in given:
        given["warmup"] = parse_setting(f"warmup={given['warmup']}")[1]
    for text in values["settings"] or []:
        name, value = parse_setting(text)
        if name in own or name in given:
            raise UsageError(f"--set {text}: is an option of its own, or given twice")
        given[name] = value
    return given


def _stands(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _flags(given: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}" for name in given]


def _unfreeze(text: str | None) -> int | str | None:
    from plusx.errors import UsageError

    if text is None or text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--unfreeze {text!r} must be a number of blocks, or all") from None


def _estimate(data: str, given: dict[str, Any], talk: Any, as_json: bool) -> None:
    import dataclasses

    from plusx.jobs.estimate import estimate
    from plusx.jobs.options import TrainOptions

    found = estimate(TrainOptions.of(data, **given), talk)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    minutes, seconds = divmod(round(found.seconds), 60)
    memory = "unknown" if found.memory_gib is None else f"about {found.memory_gib:.1f} GiB"
    print(f"{found.images} images, at most {found.epochs} epochs; nothing was trained")
    print(f"time:    about {minutes} min {seconds:02d} s")
    print(f"memory:  {memory}")
    print(f"disk:    at most {found.disk_gib:.2f} GiB, most of it a cache removed at the end")


def _find_lr(data: str, given: dict[str, Any], talk: Any, as_json: bool) -> None:
    import dataclasses

    from plusx.jobs.find_lr import find_lr
    from plusx.jobs.options import TrainOptions

    found = find_lr(TrainOptions.of(data, **given), talk)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    print(f"suggested: --lr {found.suggested:.2g}  (the default here: {found.usual:.2g})")
    print(f"plot:      {found.plot}")
    print("nothing was trained")
