"""``plusx bench``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from plusx.jobs.bench import Bench, Measurement

EXAMPLES = """\b
Examples:
  plusx bench resnet18 resnet50
  plusx bench runs/photos-1 --engine torch,openvino --precision float32,bfloat16
  plusx bench resnet50 --batch 1,16,64 --plot speed.svg
  plusx bench photos.onnx --json
  plusx bench runs/photos-1 --end-to-end photos/
"""


def bench(
    what: Annotated[
        list[str], typer.Argument(help="Networks by name, runs, exported files (.onnx, .xml).")
    ],
    engine: Annotated[
        str | None,
        typer.Option(help="torch, onnxruntime, openvino, or several [default: all installed]."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16, auto, or several [default: float32,auto]; exported "
            "files run as they are."
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Images a batch, or several sizes.")] = "1,16",
    seconds: Annotated[float, typer.Option(help="Timed for each measurement.")] = 3.0,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Don't measure peak memory.")
    ] = False,
    end_to_end: Annotated[
        str | None, typer.Option(help="Images to read, decode and classify as well.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of torch: auto, cpu, cuda[:N] or mps.")] = "auto",
    plot: Annotated[str | None, typer.Option(help="Write the picture: .svg or .png.")] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for bench.json, bench.svg and bench.png.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Time networks on this machine: latency, images a second and peak memory per engine, precision
    and batch size, all in turn within one run. Exits with 1 where images of --end-to-end cannot
    be read."""
    from pathlib import Path

    from plusx.evaluate.bench_plots import check_plot, save_plot
    from plusx.jobs.bench import bench as job
    from plusx.jobs.talk import Talk

    if plot is not None:
        check_plot(Path(plot))
    found = job(
        *what, engine=engine, precision=precision, batch=batch, seconds=seconds,
        memory=not no_memory, end_to_end=end_to_end, device=device, out=out,
        talk=Talk(quiet=as_json),
    )  # fmt: skip
    if plot is not None:
        save_plot(found.plot(), Path(plot))
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        _show(found)
    if any(one.bad for one in found.whole):
        raise typer.Exit(1)


_HEADS = ("network", "engine", "precision", "batch", "ms p50", "ms p95", "rounds", "images/s",
          "memory MiB", "multiply-adds", "parameters", "file MiB")  # fmt: skip


def _show(found: Bench) -> None:
    from plusx.cli.words import table
    from plusx.jobs.wording import by_reason

    machine = found.machine
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['torch_threads']} threads "
          f"of torch, on {machine['device']}")  # fmt: skip
    table(_HEADS, [_cells(row) for row in found.rows], left=3, wide=sys.stdout.isatty())
    for one in found.whole:
        print(f"end to end: {one.name}, {one.engine} {one.precision}, batches of {one.batch}: "
              f"{one.per_s:.1f} images/s over {one.images:,} images")  # fmt: skip
    for why, names in by_reason(found.left_out).items():
        print(f"left out: {', '.join(names)}: {why}")


def _cells(row: Measurement) -> tuple[str, ...]:
    from plusx.cli.words import three
    from plusx.jobs.drawing import short

    subject, time = row.subject, row.timing
    return (
        subject.name,
        row.engine,
        row.precision,
        str(row.batch),
        three(time.p50_ms),
        three(time.p95_ms),
        f"{three(time.low_ms)}-{three(time.high_ms)}",
        three(time.per_s),
        "-" if row.memory_mib is None else f"{row.memory_mib:.0f}",
        "-" if subject.macs is None else short(subject.macs),
        "-" if subject.params is None else f"{subject.params:,}",
        f"{subject.file_mib:.1f}",
    )
