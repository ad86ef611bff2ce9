"""``plusx slim``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plusx.cli.options import Device, TrainPrecision

if TYPE_CHECKING:
    from plusx.jobs.slim import Slimmed

EXAMPLES = """\b
Examples:
  plusx slim runs/photos-1
  plusx slim runs/photos-1 --max-drop 1 --out runs/small
  plusx slim runs/photos-1 photos/ --blocks 4 --json
  plusx slim runs/photos-1 --curve --compare-random 20
"""


def slim(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder; stays as it is.")],
    data: Annotated[
        str | None,
        typer.Argument(help="Labelled images [default: those that the run was trained on]."),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(help="Points of top-1 that may be lost, on the images that choose."),
    ] = 0.5,
    out: Annotated[
        str | None, typer.Option(help="Folder of the new run [default: a new one under runs/].")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that is already at --out.")
    ] = False,
    blocks: Annotated[
        int | None,
        typer.Option(help="Remove exactly so many [default: as many as --max-drop permits]."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of the tuning [default: 4 to 40, for 150 steps].")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate [default: 1e-4 at 32 images a step].")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 32,
    images: Annotated[int, typer.Option(help="At most so many images choose.")] = 1_000,
    tune_images: Annotated[
        int, typer.Option(help="At most so many training images are tuned on.")
    ] = 4_000,
    views: Annotated[
        int | None,
        typer.Option(help="Of each, the plain one first [default: 2 to 8, for 4000 in all]."),
    ] = None,
    cache_gib: Annotated[float, typer.Option(help="Most disk for activations.")] = 8.0,
    curve: Annotated[
        bool, typer.Option("--curve", help="Tune every number of blocks: the whole curve.")
    ] = False,
    compare_random: Annotated[
        int, typer.Option(help="Judge so many random choices of as many blocks, too.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of halves, samples and tuning.")] = 0,
    device: Device = "auto",
    precision: TrainPrecision = "auto",
    threads: Annotated[int | None, typer.Option(help="For decoding [default: one a core].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Take whole blocks out of a trained residual network, tune what is left briefly, and hand back
    a smaller run with its speed-up and what it lost, both with intervals. Where nothing can go
    within --max-drop, or no gain in speed can be shown, nothing is shipped and the exit code is
    1."""
    given: dict[str, Any] = dict(locals())
    from plusx.jobs.slim import slim as make

    as_json = given.pop("as_json")
    made = make(given.pop("run"), given.pop("data"), **given)
    if as_json:
        print(json.dumps(made.found, ensure_ascii=False, allow_nan=False))
    else:
        _show(made)
    if made.run is None:
        raise typer.Exit(1)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _show(made: Slimmed) -> None:
    from rich.console import Console
    from rich.table import Table

    found = made.found
    table = Table(title=None)
    for head in ("blocks out", "the last to go", "ranking images", "before tuning", "after",
                 "change in points (95%)", "fits"):  # fmt: skip
        table.add_column(head, justify="right")
    for row in found["curve"]:
        points = "-"
        if row["change"] is not None:
            low, high = 100 * row["change_low"], 100 * row["change_high"]
            points = f"{100 * row['change']:+.1f} ({low:+.1f} to {high:+.1f})"
        block = "-" if row["block"] is None else str(row["block"])
        fits = {None: "-", True: "yes", False: "no"}[row["fits"]]
        shares = (_share(row[f"{name}_top1"]) for name in ("ranking", "before", "after"))
        table.add_row(str(row["removed"]), block, *shares, points, fits)
    Console().print(table, markup=False)
    told = found["settings"]
    print(f"top-1 of {told['ranking_images']} images that ranked, else of "
          f"{told['choosing_images']} that choose; neither reports")  # fmt: skip
    for one in found["speed"]:
        print(
            f"batch {one['batch']}: {one['parent_ms'][1]:.1f} -> {one['child_ms'][1]:.1f} ms, "
            f"{one['ratio']:.2f} times (95% {one['low']:.2f} to {one['high']:.2f}, {one['turns']} "
            f"turns, {told['precision']})"
        )
    if random := found["random"]:
        others = [one["top1"] for one in random["random"]]
        print(
            f"fitted, not tuned, on {random['images']} images that report: ranked "
            f"{random['ranked']['top1']:.1%}, {len(others)} random choices "
            f"{min(others):.1%} to {max(others):.1%}, mean {sum(others) / len(others):.1%}"
        )
    print(made.finding)
    if made.run is not None:
        print(f"run:     {made.run.path}")
        print(f"report:  {made.run.report_path}")
