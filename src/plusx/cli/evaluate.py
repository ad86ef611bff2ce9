"""``plusx evaluate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from plusx.cli.options import BatchSize, Device, Precision, Threads

EXAMPLES = """\b
Examples:
  plusx evaluate runs/photos-1 test-photos/
  plusx evaluate runs/photos-1 list.csv --split test --json
  plusx evaluate runs/photos-1 test-photos/ --costs costs.csv --slice-by size,brightness
  plusx evaluate runs/photos-1 test-photos/ --robustness --tta mirror --crop centre,squish,pad
"""


def evaluate(
    run: Annotated[
        str, typer.Argument(help="A run or model folder, or an exported .onnx, .xml or .pt2 file.")
    ],
    data: Annotated[
        str, typer.Argument(help="Class folders (with or without splits), a CSV or Parquet file.")
    ],
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all [default: test, else val, else all]."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    predictions: Annotated[
        str | None, typer.Option(help="Write logits and targets to this .npz file.")
    ] = None,
    specificity: Annotated[
        list[float] | None,
        typer.Option(help="Tell the sensitivity at it [default: two classes 0.95, 0.99]."),
    ] = None,
    sensitivity: Annotated[
        list[float] | None,
        typer.Option(help="Tell the specificity at it [default: two classes 0.95, 0.99]."),
    ] = None,
    costs: Annotated[
        str | None, typer.Option(help="CSV of costs: rows true, columns decided for.")
    ] = None,
    slice_by: Annotated[
        str | None,
        typer.Option(help="Columns of the CSV or Parquet file, or size,brightness,sharpness."),
    ] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Harm images on purpose: 36 passes.")
    ] = False,
    robustness_images: Annotated[int, typer.Option(min=1, help="To harm, at most.")] = 500,
    tta: Annotated[
        str | None, typer.Option(help="Average over views: mirror, or five (crops).")
    ] = None,
    crop: Annotated[str | None, typer.Option(help="Ways to compare: centre,squish,pad.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what --robustness draws.")] = 0,
    engine: Annotated[
        str | None,
        typer.Option(
            help="torch, onnxruntime, openvino, or auto: the fastest installed "
            "[default: torch; for a file auto]."
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Score a run on labelled images, classes matched by name; the run is not changed."""
    from pathlib import Path

    from plusx.cli.evaluate_tables import show
    from plusx.evaluate import Held
    from plusx.jobs.evaluate import Also, Running
    from plusx.jobs.evaluate import evaluate as job
    from plusx.jobs.run import write_json

    for option, name in (("--out", out), ("--predictions", predictions)):
        ready(option, name)
    rates = (None if given is None else tuple(given) for given in (specificity, sensitivity))
    also = Also(
        held=Held(*rates),
        costs=costs,
        slice_by=_names("--slice-by", slice_by),
        robustness=robustness_images if robustness else 0,
        tta=tta or "",
        crop=_names("--crop", crop),
        seed=seed,
    )
    result = job(
        run,
        data,
        split=split,
        device=device,
        running=Running(engine, precision, batch_size, threads),
        also=also,
    )
    found = result.to_json()
    if as_json:
        print(json.dumps(found, ensure_ascii=False, allow_nan=False))
    else:
        show(found)
    if out is not None:  # after the figures were shown: a full disk shall not cost them
        write_json(Path(out), found)
    if predictions is not None:
        result.predictions.save(Path(predictions))
    for item in result.bad:
        print(f"unreadable: {item.path}: {item.reason}", file=sys.stderr)
    if result.bad:
        raise typer.Exit(1)


def ready(option: str, name: str | None) -> None:
    """Make the folder of a file to write, and refuse what can't be one, before hours of work."""
    from pathlib import Path

    from plusx.errors import UsageError

    if name is None:
        return
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{option} {name}: cannot be written: {error.strerror}") from error
    if Path(name).is_dir():
        raise UsageError(f"{option} {name!r}: is a folder; give the name of a file")


def _names(option: str, text: str | None) -> tuple[str, ...]:
    """Names between commas, each once."""
    from plusx.errors import UsageError

    if text is None:
        return ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if not all(names):
        raise UsageError(f"{option} {text!r} has an empty name between its commas")
    return names
