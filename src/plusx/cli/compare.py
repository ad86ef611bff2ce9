"""``plusx compare``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx compare runs/photos-1 runs/photos-2 test-photos/
  plusx compare runs/photos-1 runs/photos-2 photos/ --split test --json
"""


def compare(
    run_a: Annotated[str, typer.Argument(help="A run folder or a model folder.")],
    run_b: Annotated[str, typer.Argument(help="The other; it must know the same classes.")],
    data: Annotated[str, typer.Argument(help="Labelled images that trained neither.")],
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all [default: test, else val, else all]."),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write all of it to this JSON file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda[:N] or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Compare two runs image by image: the difference with its interval, McNemar's test, and the
    images where they differ."""
    from pathlib import Path

    from plusx.cli.evaluate import ready
    from plusx.jobs.compare import compare_runs
    from plusx.jobs.run import write_json

    ready("--out", out)
    found = compare_runs(run_a, run_b, data, split=split, device=device)
    plain = found.to_json()
    if as_json:
        print(json.dumps(plain, ensure_ascii=False, allow_nan=False))
    else:
        print(found.finding)
        for name, share in zip(found.names, plain["top1"], strict=True):
            print(f"{name}: {share:.1%} right")
        a, b = found.names
        print(f"only {a} is right: {found.paired.only_a}; only {b}: {found.paired.only_b}; "
              f"McNemar's p = {found.paired.p:.3g}")  # fmt: skip
        shown = plain["differing"][:20]
        for one in shown:
            print(f"  {one['path']}: {one['true']}; {a}: {one['a']}, {b}: {one['b']}")
        if len(plain["differing"]) > len(shown):
            print(f"  and {len(plain['differing']) - len(shown)} more (--json has all)")
    if out is not None:
        write_json(Path(out), plain)
