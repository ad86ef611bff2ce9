"""``plusx shards``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

EXAMPLES = """\b
Examples:
  plusx shards photos/ photo-shards/
  plusx shards list.csv photo-shards/ --size-mib 1024
  plusx train photo-shards/
"""

SHOWN = 5
"""Images named on the screen that were left out."""


def shards(
    data: Annotated[str, typer.Argument(help="A folder, a CSV or Parquet file, a saved data set.")],
    out: Annotated[str, typer.Argument(help="Folder for the shards; it is made.")],
    size_mib: Annotated[int, typer.Option(help="Most that a shard takes, in MiB.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of the images.")] = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Decode every image first, and leave out what can't be."
        ),
    ] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="That read images [default: one a core].")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the shards that are in OUT.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Pack a data set into tar files (WebDataset) of images as they are, with their labels. After
    an interruption the same command goes on. Exits with 1 where images cannot be read."""
    from plusx.jobs.shards import make_shards
    from plusx.jobs.talk import Talk
    from plusx.jobs.wording import one_line

    done = make_shards(
        data, out, size_mib=size_mib, seed=seed, check=check, threads=threads,
        overwrite=overwrite, talk=Talk(quiet=as_json),
    )  # fmt: skip
    if as_json:
        print(json.dumps(done.to_json(), ensure_ascii=False))
    else:
        mib = sum(shard.bytes for shard in done.shards) / 2**20
        print(f"wrote:   {done.out}: {done.images:,} images in {len(done.shards):,} shards, "
              f"{mib:,.1f} MiB")  # fmt: skip
        for bad in done.left_out[:SHOWN]:
            print(one_line(f"left out: {bad.path}: {bad.reason}"))
        if len(done.left_out) > SHOWN:
            print(f"and {len(done.left_out) - SHOWN:,} more (index.json has all)")
        print(f"next:    plusx train {done.out}")
    if done.left_out:
        raise typer.Exit(1)
