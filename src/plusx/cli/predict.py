"""``plusx predict``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from plusx.cli.options import BatchSize, Device, Engine, Precision, Threads

EXAMPLES = """\b
Examples:
  plusx predict runs/photos-1 x.jpg
  plusx predict runs/photos-1 new/ --out new.csv
  plusx predict runs/photos-1 'new/*.png' --out new.parquet --top 3
  plusx predict runs/photos-1 new/ --no-decide
  plusx predict runs/photos-1 new/ --out new.csv --precision auto
  plusx predict photos.onnx new/ --out new.csv
"""


def predict(
    run: Annotated[
        str, typer.Argument(help="A run or model folder, or an exported .onnx, .xml or .pt2 file.")
    ],
    images: Annotated[list[str], typer.Argument(help="Images, folders or glob patterns.")],
    out: Annotated[
        str | None, typer.Option(help="FILE.csv, .jsonl or .parquet instead of the terminal.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown per image.")] = 5,
    engine: Engine = "auto",
    device: Device = "auto",
    precision: Precision = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
    no_decide: Annotated[
        bool, typer.Option("--no-decide", help="Always answer: no unknown, no unsure, no sets.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on the terminal.")] = False,
) -> None:
    """Classify images; unreadable ones are listed and skipped (exit code 1)."""
    from contextlib import nullcontext
    from pathlib import Path

    from plusx.data import BadImage, unlabelled
    from plusx.jobs.predictions_file import Write, as_json_line, layout_of, predictions_file
    from plusx.jobs.talk import Talk
    from plusx.predict import Prediction, Predictor

    samples = unlabelled(images)  # complains about a wrong name before the model is loaded
    predictor = Predictor(
        run,
        engine=engine,
        device=device,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
        decide=not no_decide,
    )
    layout = layout_of(predictor, top)
    bad: list[BadImage] = []

    def show(prediction: Prediction) -> None:
        if as_json:
            print(as_json_line(prediction, layout))
            return
        print(f"{prediction.path}: {layout.words(prediction)}")

    def say(item: BadImage) -> None:
        bad.append(item)
        print(f"unreadable: {item.path}: {item.reason}", file=sys.stderr)

    talk = Talk()
    count, silent = 0, {"unknown": 0, "unsure": 0}
    target = nullcontext(show) if out is None else predictions_file(Path(out), layout)
    with target as opened, talk.counting("predicting", shown=out is not None) as tick:
        write: Write = opened
        for answer in predictor.stream(samples):
            if isinstance(answer, BadImage):
                say(answer)
            else:
                write(answer)
                count += 1
                if answer.decision != "answer":
                    silent[answer.decision] += 1
            tick(1, "")
    for line in (*predictor.notes, *predictor.remarks.lines()):
        talk.note(line)
    if out is not None:
        if as_json:
            how = predictor.engine
            found = {"out": out, "predicted": count, **silent, "unreadable": len(bad),
                     "engine": how.name, "precision": how.precision}  # fmt: skip
            print(json.dumps(found))
        else:
            numbers = silent | {"unreadable": len(bad)}
            more = "".join(f", {n} {what}" for what, n in numbers.items() if n)
            print(f"{count} predictions in {out}{more}")
    if bad:
        raise typer.Exit(1)
