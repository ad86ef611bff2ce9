"""``plusx choose``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plusx.cli.options import Device, Threads

if TYPE_CHECKING:
    from plusx.jobs.choose import Choice
    from plusx.jobs.choose_estimate import ChooseEstimate
    from plusx.jobs.choose_figures import Judged

EXAMPLES = """\b
Examples:
  plusx choose photos/ --dry-run
  plusx choose photos/ --latency 20ms
  plusx choose photos/ --models resnet18,resnet50,resnet101 --download
  plusx choose photos/ --weights-dir weights/ --engine openvino
  plusx choose photos/ --models resnet18,resnet50=mine.safetensors --json
"""


def choose(
    data: Annotated[str, typer.Argument(help="Class folders (with or without splits), or a CSV.")],
    latency: Annotated[
        str | None, typer.Option(help="The most that one image may take: 20ms, 0.1s.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between, each with =WEIGHTS if it shall be these [default: "
            "ResNet-18 to -152, ResNeXt-50 and others whose weights are at hand]."
        ),
    ] = None,
    weights_dir: Annotated[
        str | None, typer.Option(help="Folder of weights files and model folders.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch weights that are not at hand.")
    ] = False,
    engine: Annotated[
        str, typer.Option(help="That is timed: torch, onnxruntime or openvino.")
    ] = "torch",
    precision: Annotated[
        str, typer.Option(help="That is timed: auto, float32, bfloat16 or float16.")
    ] = "auto",
    seconds: Annotated[float, typer.Option(help="Of timing for each net.")] = 2.0,
    images: Annotated[int, typer.Option(help="At most so many training images are used.")] = 2_000,
    val_fraction: Annotated[
        float, typer.Option(help="Left alone where the data names no splits, as training does.")
    ] = 0.2,
    out: Annotated[
        str | None, typer.Option(help="Folder of page and figures [default: choose-NAME].")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for features [default: the user's cache folder].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which nets are at hand and how long it takes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of splits, folds and samples.")] = 0,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Find the right net: what a linear head on each net's features gets right on your images,
    against the time that one image takes on this machine. Exits with 1 where images cannot be
    read."""
    given: dict[str, Any] = dict(locals())
    for name in ("data", "dry_run", "as_json"):
        given.pop(name)
    from plusx.jobs.choose import choose as job
    from plusx.jobs.choose_estimate import estimate
    from plusx.jobs.talk import Talk

    talk = Talk(quiet=as_json)
    if dry_run:
        _show_estimate(estimate(data, talk=talk, **given), as_json)
        return
    found = job(data, talk=talk, **given)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _show(found)
    if found.bad:
        raise typer.Exit(1)


def _show_estimate(found: ChooseEstimate, as_json: bool) -> None:
    import dataclasses

    from plusx.jobs.wording import by_reason, duration

    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
        return
    print(f"about {duration(found.seconds)}: {len(found.nets)} nets on {found.images:,} images")
    if found.kept:
        total = len(found.nets) * found.images
        print(f"features kept from before: {found.kept:,} of {total:,}")
    print(f"at hand: {', '.join(found.nets)}")
    for why, names in by_reason(found.skipped).items():
        print(f"left out: {', '.join(names)}: {why}")


_HEADS = ("net", "top-1", "95% interval", "points behind the best", "ms p50", "ms p95",
          "file MiB", "multiply-adds")  # fmt: skip


def _show(found: Choice) -> None:
    from plusx.cli.words import table

    table(_HEADS, [_cells(one) for one in found.nets], left=4, wide=sys.stdout.isatty())
    print("* no other net is both faster and more accurate")
    print(found.advice.sentence)
    if found.advice.deeper is not None:
        print(found.advice.deeper)
    print(f"page: {found.path / 'report.html'}")


def _cells(one: Judged) -> tuple[str, ...]:
    from plusx.cli.words import three
    from plusx.jobs.drawing import short

    gap, time = one.to_best, one.timing
    behind = "-"
    if gap is not None:
        behind = f"{100 * gap.value:.1f} ({100 * gap.low:.1f} to {100 * gap.high:.1f})"
        behind += ", may be noise" if one.as_good else ""
    return (
        f"{one.name}{' *' if one.on_front else ''}",
        f"{100 * one.top1.value:.1f}%",
        f"{100 * one.top1.low:.1f}-{100 * one.top1.high:.1f}",
        behind,
        three(time.p50_ms),
        three(time.p95_ms),
        f"{one.net.file_mib:.1f}",
        short(one.net.macs),
    )
