"""``plusx compare``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plusx.cli.options import Device, TrainPrecision

if TYPE_CHECKING:
    from plusx.jobs.compare import Comparison
    from plusx.jobs.contest import Contest

EXAMPLES = """\b
Examples:
  plusx compare runs/photos-1 runs/photos-2 test-photos/
  plusx compare runs/photos-1 runs/photos-2 photos/ --split test --json
  plusx compare photos/ --with pretrained,scratch,plain,cnn --dry-run
  plusx compare photos/ --with pretrained,scratch --weights bundled --budget 5x3
  plusx compare photos/ --with pretrained,cnn,vgg16_bn,timm:vit_tiny_patch16_224=auto
"""


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            help="RUN_A RUN_B DATA: two runs or model folders, and labelled images that trained "
            "neither; or DATA alone, with --with."
        ),
    ],
    contestants: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="Train these on DATA: pretrained, scratch, plain, cnn, any network, timm:NAME, "
            "each of the last two with =WEIGHTS if it shall not start at random.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Of two runs: a JSON file; else the folder [default: compare-NAME]."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Of two runs: train, val, test or all [default: test, else val, else all]."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="Of pretrained: auto, bundled, a file, a run, or a hub id.")
    ] = "auto",
    model: Annotated[
        str | None, typer.Option(help="The residual net [default: what the weights are for].")
    ] = None,
    unfreeze: Annotated[
        str, typer.Option(help="Last blocks to train of what starts from weights, or all.")
    ] = "all",
    budget: Annotated[
        str, typer.Option(help="EPOCHSxTRIALS to find each contestant's learning rate.")
    ] = "5x3",
    epochs: Annotated[
        int | None, typer.Option(help="Of each training [default: what a net from scratch needs].")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings of each contestant.")] = 3,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    image_size: Annotated[
        int | None, typer.Option(help="Pixels all networks see [default: that of the weights].")
    ] = None,
    shift_images: Annotated[
        int, typer.Option(help="At most so many images are harmed on purpose (0: none).")
    ] = 200,
    seed: Annotated[int, typer.Option(help="Of the split, and of the first training.")] = 0,
    device: Device = "auto",
    precision: TrainPrecision = "auto",
    threads: Annotated[int | None, typer.Option(help="For decoding [default: one a core].")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell the time; train nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Compare two runs image by image, or train several networks on your images with the same
    budget and seeds: which is better, with an interval. A comparison that was stopped goes on when
    the same command is given again."""
    given: dict[str, Any] = dict(locals())
    from plusx.errors import UsageError

    for name in ("what", "contestants", "out", "split", "device", "dry_run", "as_json"):
        given.pop(name)
    if contestants is None:
        if len(what) != 3:
            raise UsageError(
                "give RUN_A RUN_B DATA to compare two runs, or DATA --with "
                "pretrained,scratch,plain,cnn to train and compare"
            )
        _refuse(given | {"dry_run": dry_run})
        _compare_runs(what, split=split, out=out, device=device, as_json=as_json)
        return
    if len(what) != 1:
        raise UsageError(f"--with trains on one DATA; got {len(what)}: {' '.join(what)}")
    if split is not None:
        raise UsageError("--split is for two runs; with --with the test split reports")
    given |= {"contestants": contestants, "out": out, "device": device}
    given["unfreeze"] = int(unfreeze) if unfreeze.isdecimal() else unfreeze
    _contest(what[0], given, dry_run=dry_run, as_json=as_json)


def _refuse(given: dict[str, Any]) -> None:
    """Options of the other way to compare."""
    from dataclasses import fields

    from plusx.errors import UsageError
    from plusx.jobs.contest_options import ContestOptions

    usual = {field.name: field.default for field in fields(ContestOptions)} | {"dry_run": False}
    if changed := [f"--{k.replace('_', '-')}" for k, v in given.items() if v != usual[k]]:
        raise UsageError(f"{', '.join(changed)}: for DATA --with ... only; leave it out")


def _compare_runs(
    what: list[str], *, split: str | None, out: str | None, device: str, as_json: bool
) -> None:
    from pathlib import Path

    from plusx.cli.evaluate import ready
    from plusx.jobs.compare import compare_runs
    from plusx.jobs.run import write_json

    ready("--out", out)
    found = compare_runs(what[0], what[1], what[2], split=split, device=device)
    plain = found.to_json()
    if as_json:
        print(json.dumps(plain, ensure_ascii=False, allow_nan=False))
    else:
        _show_runs(found, plain)
    if out is not None:
        write_json(Path(out), plain)


def _show_runs(found: Comparison, plain: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    print(found.finding)
    for name, share in zip(found.names, plain["top1"], strict=True):
        print(f"{name}: {share:.1%} right")
    a, b = found.names
    print(f"only {a} is right: {found.paired.only_a}; only {b}: {found.paired.only_b}; "
          f"McNemar's p = {found.paired.p:.3g}")  # fmt: skip
    table = Table(title=None)
    heads = ("class", "images", a, b, "difference in points (95%)", "p")
    for head in heads:
        table.add_column(head, justify="left" if head == "class" else "right")
    seen = [(name, one) for name, one in plain["per_class"].items() if one is not None]
    seen.sort(key=lambda item: (item[1]["p"], item[0]))
    for name, one in seen[:30]:
        shares = (f"{share:.1%}" for share in one["top1"])
        points = (f"{100 * one['value']:+.1f} ({100 * one['low']:+.1f} to "
                  f"{100 * one['high']:+.1f})")  # fmt: skip
        table.add_row(name, str(one["n"]), *shares, points, f"{one['p']:.2g}")
    Console().print(table, markup=False)
    print(f"p: McNemar's, corrected for {len(seen)} classes"
          + (f"; {len(seen) - 30} classes more in --json" if len(seen) > 30 else ""))  # fmt: skip
    shown = plain["differing"][:20]
    for one in shown:
        print(f"  {one['path']}: {one['true']}; {a}: {one['a']}, {b}: {one['b']}")
    if len(plain["differing"]) > len(shown):
        print(f"  and {len(plain['differing']) - len(shown)} more (--json has all)")


def _contest(data: str, given: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        _estimate(data, given, as_json)
        return
    from plusx.jobs.contest import contest

    made = contest(data, **given)
    if as_json:
        shown = {"folder": str(made.path), **made.found}
        print(json.dumps(shown, ensure_ascii=False, allow_nan=False))
        return
    _show(made)


def _estimate(data: str, given: dict[str, Any], as_json: bool) -> None:
    from plusx.jobs.contest_estimate import estimate_contest
    from plusx.jobs.wording import duration

    found = estimate_contest(data, **given)
    if as_json:
        print(json.dumps({"seconds": found.seconds, "total_seconds": found.total_seconds,
                          "trainings": found.trainings, "epochs": found.epochs}))  # fmt: skip
        return
    print(f"{found.trainings} trainings, those that count of {found.epochs} epochs; "
          "nothing was trained")  # fmt: skip
    for name, seconds in found.seconds.items():
        print(f"  {name}: about {duration(seconds)}")
    print(f"time:    about {duration(found.total_seconds)} in all")


def _range(figure: dict[str, float]) -> str:
    low, high = 100 * figure["low"], 100 * figure["high"]
    return f"{100 * figure['value']:.1f}% ({low:.1f}-{high:.1f})"


def _show(made: Contest) -> None:
    from rich.console import Console
    from rich.table import Table

    from plusx.jobs.contest_page import to_goal

    print(made.finding)
    table = Table(title=None)
    for head in ("contestant", "top-1 (95%)", "seeds", "to goal", "harmed", "diverged"):
        table.add_column(head, justify="left" if head == "contestant" else "right")
    for one in made.found["contestants"]:
        top1 = one["top1"]
        spread = "-" if top1 is None else (
            f"{100 * min(top1['by_seed']):.1f} - {100 * max(top1['by_seed']):.1f}%")  # fmt: skip
        harmed = "-" if one["shift"] is None else f"{one['shift']['value']:.1%}"
        right = "-" if top1 is None else _range(top1)
        diverged = f"{one['diverged']} of {one['runs']}"
        table.add_row(one["name"], right, spread, to_goal(one), harmed, diverged)
    Console().print(table, markup=False)
    print(f"goal:    {made.found['goal_val_top1']:.1%} on the images that choose, nine tenths of "
          "the best")  # fmt: skip
    print(f"report:  {made.report_path}")
    print(f"curves:  {made.path / 'curves.csv'}")
