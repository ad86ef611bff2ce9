"""``plusx export``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx export runs/photos-1
  plusx export runs/photos-1 --to openvino --precision int8
  plusx export runs/photos-1 --precision int8 --calibrate more-photos/ --tolerance 0.5
  plusx export runs/photos-1 --to torch --precision bf16 --out photos.pt2
"""


def export(
    run: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    to: Annotated[str, typer.Option(help="onnx, openvino or torch.")] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, bf16, fp16 or int8.")] = "fp32",
    out: Annotated[
        str | None, typer.Option(help="The file to write [default: RUN/export/NAME-PRECISION.*].")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="Images to calibrate int8 on [default: the run's training images]."),
    ] = None,
    no_preprocessing: Annotated[
        bool,
        typer.Option("--no-preprocessing", help="Leave it out: takes (N, C, S, S) float32."),
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(help="Images to compare on [default: the run's validation images]."),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Points of accuracy that may be lost below fp32 [default: 1; without "
                     "labels 5 of changed answers]."),
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Don't compare with plusx; it is written down.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:  # fmt: skip
    """Write a run as a file that other programs run, from pixels to probabilities; its answers are
    compared with plusx's, and a file that differs is not written."""
    from plusx.jobs.export import Checking
    from plusx.jobs.export import export as job
    from plusx.jobs.talk import Talk

    done = job(
        run,
        to=to,
        precision=precision,
        out=out,
        calibrate=calibrate,
        preprocessing=not no_preprocessing,
        checking=Checking(check, tolerance, skip=no_check),
        overwrite=overwrite,
        talk=Talk(),
    )
    if as_json:
        print(json.dumps(done.to_json(), ensure_ascii=False))
        return
    print(f"wrote:   {done.path} ({done.bytes / 1e6:.1f} MB)")
    if done.calibrated:
        print(f"int8:    calibrated on {done.calibrated} images")
    said = "left out" if done.parity is None else done.parity.words()
    print(f"check:   {said}")
    print(f"report:  {done.files[-1]}")
